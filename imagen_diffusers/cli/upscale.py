"""`imagen-diffusers upscale`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .sampling import sample


def upscale(  # noqa: PLR0913 (one argument an option)
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Any image file; transparent parts show white.")],
    prompt: str,
    model: o.Model = o.DEFAULT_MODEL,
    variant: o.Variant = None,
    revision: o.Revision = None,
    output: o.Output = Path("picture.png"),
    seed: o.Seed = None,
    num_images: o.NumImages = 1,
    steps: o.Steps = None,
    guidance_scale: o.Guidance = None,
    noise_level: o.NoiseLevel = None,
    preset: o.Preset = None,
    scheduler: o.Scheduler = None,
    lora: o.Lora = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    tile: o.Tile = None,
) -> None:
    """Enlarge IMAGE, which shows PROMPT, by the super-resolution stages."""
    from imagen_diffusers.images import read_image

    call = {"image": read_image(image)}
    settings = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "noise_level": noise_level}
    ready = {"model": model, "variant": variant, "revision": revision, "preset": preset, "scheduler": scheduler, "lora": lora}
    sample(prompt, {**ready, "dtype": dtype, "device": device, "tile": tile}, output, seed, num_images, settings, call)
