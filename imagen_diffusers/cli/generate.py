"""`imagen-diffusers generate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .again import check_sides, of_the_first, remembered, said, say_which_of_several, with_remembered
from .best import BestOptions
from .many import ManyOptions, sample_many
from .options import PipelineOptions, SamplingOptions, StopAt, TextOptions
from .sampling import sample

Side = Annotated[int | None, typer.Option(min=1, help="Of the final image, in pixels; smaller images: --stop-at 2.")]


def generate(
    context: typer.Context,
    text: TextOptions,
    pipeline: PipelineOptions,
    sampling: SamplingOptions,
    many: ManyOptions,
    best: BestOptions,
    prompt: Annotated[str | None, typer.Argument(help="What to generate.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", exists=True, dir_okay=False, help="An image made by this command: the rest is as it was there."),
    ] = None,
    stop_at: StopAt = None,
    height: Side = None,
    width: Side = None,
) -> None:
    """Generate images of PROMPT, or of every prompt of a file.

    A file's images go into a folder that --output names, one numbered PNG each; the same command run again goes on.
    """
    many.check(prompt, best.best_of)
    chosen = best.read()
    call: dict[str, Any] = {"stop_at": stop_at, "height": height, "width": width}
    kept = [] if source is None else [source]
    if source is not None:
        told = remembered(source)
        text, pipeline, sampling = (with_remembered(context, group, told) for group in (text, pipeline, sampling))
        prompt = told.get("prompt") if prompt is None else prompt
        say_which_of_several(context, told)
        call = {name: value if said(context, name) else told.get(name) for name, value in call.items()}
        check_sides(context, source, told, call["stop_at"])
        sampling = sampling if stop_at is None else of_the_first(sampling, context, stop_at)
    if many.prompts is not None:
        return sample_many(many, text, pipeline, sampling, **call)
    if prompt is None:
        raise typer.BadParameter("it is missing; say what to generate, or give --prompts, or --from an image", param_hint="PROMPT")
    sample(prompt, text, pipeline, sampling, kept=kept, best=chosen, **call)
