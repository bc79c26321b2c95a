"""The command where no script is on the path: python -m imagen_diffusers generate ..."""

from imagen_diffusers.cli import app

app()
