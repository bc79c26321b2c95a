"""The command for launchers, which start modules: accelerate launch -m imagen_diffusers.cli evaluate ..."""

from . import app

app()
