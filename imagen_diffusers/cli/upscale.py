"""`imagen-diffusers upscale`."""

from pathlib import Path
from typing import Annotated

import typer

from .options import PipelineOptions, SamplingOptions
from .sampling import sample


def upscale(
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Any image file; transparent parts show white.")],
    prompt: str,
    pipeline: PipelineOptions,
    sampling: SamplingOptions,
) -> None:
    """Enlarge IMAGE, which shows PROMPT, by the super-resolution stages."""
    from imagen_diffusers.images import read_image

    if sampling.output.exists() and sampling.output.samefile(image):
        raise ValueError(f"--output is {image} itself; give another name, so that the image is kept")
    sample(prompt, pipeline, sampling, task="ImagenCascadeUpscalePipeline", image=read_image(image))
