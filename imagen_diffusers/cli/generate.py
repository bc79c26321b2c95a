"""`imagen-diffusers generate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .again import remembered, said, with_remembered
from .options import NegativePrompt, PipelineOptions, SamplingOptions, StopAt
from .sampling import sample

Side = Annotated[int | None, typer.Option(min=1, help="Of the final image, in pixels.")]


def generate(
    context: typer.Context,
    pipeline: PipelineOptions,
    sampling: SamplingOptions,
    prompt: Annotated[str | None, typer.Argument(help="What to generate.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", exists=True, dir_okay=False, help="An image made by this command: the rest is as it was there."),
    ] = None,
    negative_prompt: NegativePrompt = None,
    stop_at: StopAt = None,
    height: Side = None,
    width: Side = None,
) -> None:
    """Generate images of PROMPT."""
    call: dict[str, Any] = {"negative_prompt": negative_prompt, "stop_at": stop_at, "height": height, "width": width}
    if source is not None:
        told = remembered(source)
        pipeline, sampling = with_remembered(context, pipeline, told), with_remembered(context, sampling, told)
        prompt = told["prompt"] if prompt is None else prompt
        call = {name: value if said(context, name) else told.get(name) for name, value in call.items()}
    if prompt is None:
        raise typer.BadParameter("it is missing; say what to generate, or give --from an image", param_hint="PROMPT")
    sample(prompt, pipeline, sampling, **call)
