"""`imagen-diffusers generate`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .sampling import sample


def generate(  # noqa: PLR0913 (one argument an option)
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
    negative_prompt: o.Negative = None,
    preset: o.Preset = None,
    scheduler: o.Scheduler = None,
    lora: o.Lora = None,
    stages: Annotated[int | None, typer.Option(min=1, help="Stop after this many stages.")] = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    tile: o.Tile = None,
    width: o.Side = None,
    height: o.Side = None,
) -> None:
    """Generate images of PROMPT."""
    call = {"negative_prompt": negative_prompt, "stop_at": stages, "width": width, "height": height}
    settings = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "noise_level": noise_level}
    ready = {"model": model, "variant": variant, "revision": revision, "preset": preset, "scheduler": scheduler, "lora": lora}
    sample(prompt, {**ready, "dtype": dtype, "device": device, "tile": tile}, output, seed, num_images, settings, call)
