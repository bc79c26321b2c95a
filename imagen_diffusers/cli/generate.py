"""`imagen-diffusers generate`."""

from typing import Annotated

import typer

from .options import PipelineOptions, SamplingOptions
from .sampling import sample

Side = Annotated[int | None, typer.Option(min=1, help="Of the final image, in pixels.")]


def generate(
    prompt: str,
    pipeline: PipelineOptions,
    sampling: SamplingOptions,
    negative_prompt: Annotated[str | None, typer.Option(help="What to steer away from.")] = None,
    stop_at: Annotated[int | None, typer.Option(min=1, help="The last stage to run.")] = None,
    height: Side = None,
    width: Side = None,
) -> None:
    """Generate images of PROMPT."""
    sample(prompt, pipeline, sampling, negative_prompt=negative_prompt, stop_at=stop_at, height=height, width=width)
