"""The page of `imagen-diffusers web`: a prompt becomes an image in the browser, stage after stage.

One idea a file. `limits` and `asked` read what a browser sends, `models`, `worker` and `sampling` make images of it, `gallery` keeps them,
`answers` says what is seen meanwhile, `page` shows it, `gate` and `serving` stand between the page and the network. Only `page` and
`serving` import gradio, and nothing imports this folder but the command.
"""
