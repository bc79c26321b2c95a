"""`imagen-diffusers generate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .again import remembered, said, with_remembered
from .options import PipelineOptions, SamplingOptions, StopAt, TextOptions
from .sampling import sample

Side = Annotated[int | None, typer.Option(min=1, help="Of the final image, in pixels.")]


def generate(
    context: typer.Context,
    text: TextOptions,
    pipeline: PipelineOptions,
    sampling: SamplingOptions,
    prompt: Annotated[str | None, typer.Argument(help="What to generate.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", exists=True, dir_okay=False, help="An image made by this command: the rest is as it was there."),
    ] = None,
    stop_at: StopAt = None,
    height: Side = None,
    width: Side = None,
) -> None:
    """Generate images of PROMPT."""
    call: dict[str, Any] = {"stop_at": stop_at, "height": height, "width": width}
    if source is not None:
        told = remembered(source)
        text, pipeline, sampling = (with_remembered(context, group, told) for group in (text, pipeline, sampling))
        prompt = told["prompt"] if prompt is None else prompt
        call = {name: value if said(context, name) else told.get(name) for name, value in call.items()}
    if prompt is None:
        raise typer.BadParameter("it is missing; say what to generate, or give --from an image", param_hint="PROMPT")
    sample(prompt, text, pipeline, sampling, **call)
