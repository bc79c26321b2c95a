"""The settings an image was generated with, as its file remembers them, in place of options that are not given."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import typer

from .guiders import WITHOUT
from .options import OF_THE_MACHINE, TEXT_TO_IMAGE

OF_THE_MODEL = {"revision", "variant"}  # and of no other
BY = {  # which command makes an image of another one, by its task
    "ImagenCascadeImg2ImgPipeline": "edit or vary",
    "ImagenCascadeInpaintPipeline": "edit",
    "ImagenCascadeUpscalePipeline": "upscale",
}
PER_STAGE = ("num_inference_steps", "guidance_scale", "noise_level", "guider")
INSTEAD = {"guider": "guidance_scale", "guidance_scale": "guider"}  # which take each other's place


def remembered(path: Path, *others: str) -> dict[str, Any]:
    """What the file says of its image.

    Args:
        path: of a PNG.
        others: tasks that it may be of beside text to image.

    Raises:
        ValueError: for a file that says nothing, and for an image of another task, or one that `extend` made.
    """
    from imagen_diffusers.images import read_settings

    told = read_settings(path)
    task = told.get("task", TEXT_TO_IMAGE)
    if task not in (TEXT_TO_IMAGE, *others) or "left" in told:  # where the image stands on a larger canvas
        by = "extend" if "left" in told else BY.get(task, str(task))
        wanted = "generate, edit or vary" if others else "generate"
        edited = f", or this one to edit, as --from {path}" if by.startswith("edit") else ""
        raise ValueError(f"{path} was made by {by} of another image, which its file does not hold; give an image made by {wanted}{edited}")
    prompt, seed = told.get("prompt"), told.get("seed", 0)
    if not isinstance(prompt, str | None) or type(seed) is not int:
        raise ValueError(f"{path} says that its prompt is {prompt!r} and its seed {seed!r}; give a PNG that imagen-diffusers wrote")
    return told


def with_remembered(context: typer.Context, group: Any, told: dict[str, Any]) -> Any:
    """A group of options with what is remembered wherever the command line says nothing."""
    names = {field.name for field in fields(group)} & told.keys() - OF_THE_MACHINE
    names -= OF_THE_MODEL if said(context, "model") else set()
    left = [name for name in names if not said(context, name) and not said(context, INSTEAD.get(name, name))]
    return replace(group, **{name: as_option(told[name]) for name in left})


def of_the_first(group: Any, context: typer.Context, stages: int | None, skipped: int = 0) -> Any:
    """A group of options whose remembered numbers and guiders are those of the first stages alone, where fewer run than then.

    Args:
        group, context: the options, and what the command line says of them.
        stages: the last one that runs, counted from the first that ran then; None for all of them.
        skipped: those before the first one that runs.
    """
    lists = {name: getattr(group, name) for name in PER_STAGE if not said(context, name)}
    cut = {name: first_numbers(value, stages, skipped) for name, value in lists.items()}
    if cut.get("guider") == [WITHOUT]:  # which is for one stage of several
        cut |= {"guider": None, "guidance_scale": "1"}
    return replace(group, **cut)


def first_numbers(value: Any, stages: int | None, skipped: int = 0) -> Any:
    """Of numbers, or guiders, of several stages, as an option has them, those of the first; what is none, or one for all, as it is."""
    if isinstance(value, list):
        return value[skipped:stages] if len(value) > 1 else value
    values = value.split(",") if isinstance(value, str) else []
    return ",".join(values[skipped:stages]) if len(values) > 1 else value


def check_sides(context: typer.Context, source: Path, told: dict[str, Any], stop_at: int | None) -> None:
    """See that a remembered height or width, which is of the last stage's image, is not taken for that of another stage's.

    Raises:
        ValueError: where it would be.
    """
    taken = [f"--{name}" for name in ("height", "width") if told.get(name) is not None and not said(context, name)]
    if taken and stop_at != told.get("stop_at"):
        sides = " and ".join(taken)
        raise ValueError(f"{source} was made with {sides}, of its own last stage's image; give {sides} of what is made now, too")


def say_which_of_several(context: typer.Context, told: dict[str, Any]) -> None:
    """Of a grid, whose file remembers the seeds of all its images, the first is made again unless --seed names another."""
    seeds = told.get("seeds")
    if isinstance(seeds, list) and len(seeds) > 1 and not said(context, "seed"):
        typer.secho(f"Of {len(seeds)} seeds the first, {seeds[0]}; --seed {seeds[1]} for another.", fg="yellow", err=True)


def said(context: typer.Context, name: str) -> bool:
    """Whether the command line gives this option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def as_option(value: Any) -> Any:
    """A remembered value as an option has it: numbers of several stages are separated by commas."""
    if isinstance(value, list) and all(isinstance(one, int | float) for one in value):
        return ",".join(map(str, value))
    return value
