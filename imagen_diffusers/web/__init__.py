"""The page of `imagen-diffusers web`: a prompt becomes an image in the browser, stage after stage.

One idea a file. `limits` and `asked` read what a browser sends, `models`, `worker` and `sampling` make images of it, `gallery` keeps them,
`answers` says what is seen meanwhile, `page` lays it out, of `parts`, and `clicks` connects them, `gate` and `serving` stand between the
page and the network. Only these but `gate` import gradio, and nothing imports this folder but the command.
"""
