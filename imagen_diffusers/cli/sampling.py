"""What the commands that make images share: read the options, load, sample, write."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import typer

from imagen_diffusers.hub.versions import version_of

from .best import Best
from .conditions import digests, read_conditions
from .guiders import read_guiders
from .loading import prepare
from .options import TEXT_TO_IMAGE, PipelineOptions, SamplingOptions, TextOptions, check_kept, image_paths, numbers
from .texts import text_arguments, texts_to_encode

MAX_SEED = 2**32
SMALL_TILE = 64  # pixels; whoever asks for less may mean a number of tiles


def sample(
    prompt: str | None,
    text: TextOptions,
    pipeline: PipelineOptions,
    sampling: SamplingOptions,
    *,
    task: str = TEXT_TO_IMAGE,
    draw: Callable[..., Any] | None = None,
    of_pipe: Callable[[Any], dict[str, Any]] | None = None,
    told: dict[str, Any] | None = None,
    sources: dict[Path, Path] | None = None,
    kept: Sequence[Path] = (),
    best: Best | None = None,
    **call: Any,
) -> None:
    """Write images of `prompt`; everything that can be seen to be wrong is, before anything is loaded.

    Args:
        prompt: of all of them, if the task has one.
        text: what else is said, and how it is read.
        pipeline, sampling: the options that all commands have.
        task: the pipeline's class.
        draw: what makes one image, given the pipeline and its call's arguments; the call by default.
        of_pipe: the arguments of the call that depend on the pipeline, given it.
        told: what the files' metadata say besides.
        sources: image files for the call's `image`, by where each one's result goes, which may be other places than `sampling.output`.
        kept: image files that are read besides, and that no result may replace.
        best: which images are kept, where more are generated.
        call: other arguments of the pipeline's call; those that are None are left out.

    Raises:
        ValueError: for values that do not fit.
        OSError: for files that are missing, damaged, or cannot be written.
    """
    from imagen_diffusers.images import read_image

    settings, _ = stage_settings(sampling)
    call = {name: value for name, value in call.items() if value is not None}
    texts = [] if prompt is None else texts_to_encode(prompt, text)
    places: dict[Path, Path | None] = {sampling.output: None} if sources is None else {**sources}
    paths = {output: image_paths(output, sampling.num_images_per_prompt) for output in places}
    check_kept(chain(*paths.values()), [*kept, *(sources or {}).values(), *(sampling.cond_image or [])])
    count = sampling.num_images_per_prompt
    choose, made = (None, count) if best is None else (best.chooser(texts[0] if texts else None, count), best.of)
    pipe = prepare(pipeline, task)
    call |= of_pipe(pipe) if of_pipe is not None else {}
    arguments = {**settings, **call}
    warn(pipe, texts, text, pipeline.tile, call.get("stop_at"))
    _as_it_begins(pipe, lambda: say_written_over(paths.get(sampling.output, [])))
    if prompt is not None and pipe.takes_text:
        arguments |= text_arguments(pipe, prompt, text)
    seed = fresh_seed() if sampling.seed is None else sampling.seed
    seeds = range(seed, seed + made)
    for output, source in places.items():
        given = {} if source is None else {"image": read_image(source)}
        settings = told_of(prompt, text, pipeline, sampling, task, source, **call) | (told or {})
        with _named(None if output == sampling.output else source):
            images = _images(draw or _draw, pipe, seeds, {**arguments, **given})
            kept_images, kept_seeds = (images, seeds) if choose is None else choose(images, seeds)
            _save(kept_images, paths[output], kept_seeds, settings)


def told_of(
    prompt: str | None, text: TextOptions, pipeline: PipelineOptions, sampling: SamplingOptions, task: str, source: Path | None, **call: Any
) -> dict[str, Any]:
    """What the metadata of a file say, but for its seed; of the file that it was made from, a digest."""
    told = {name: value for name, value in call.items() if value is not None and name not in ("image", "mask_image", "low_res")}
    if source is not None:
        from imagen_diffusers.evaluation.digests import file_digest

        told["source"] = file_digest(str(source))
    return {**made_by(task, pipeline, text), **stage_settings(sampling)[1], **told, "prompt": prompt}


def made_by(task: str, pipeline: PipelineOptions, text: TextOptions) -> dict[str, Any]:
    """What files' metadata say of how their images were made, before what was set."""
    return {"task": task, "version": version_of("imagen_diffusers"), **asdict(pipeline), **asdict(text)}


def stage_settings(sampling: SamplingOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the stages, and their conditions, that are given: as a call takes them, and as the files' metadata have them."""
    given = {name: getattr(sampling, name) for name in ("num_inference_steps", "guidance_scale", "noise_level")}
    found: dict[str, Any] = {n: numbers(n, value, whole=n == "num_inference_steps") for n, value in given.items() if value is not None}
    told = dict(found)
    if sampling.guider and "guidance_scale" in found:
        raise ValueError("--guider takes the place of --guidance-scale; leave out one of them: a guider has settings of its own")
    if sampling.guider:
        found["guider"], told["guider"] = read_guiders(sampling.guider), sampling.guider
    if sampling.cond_image:
        found["cond_images"], told["cond_digests"] = read_conditions(sampling.cond_image), digests(sampling.cond_image)
    return found, told


@contextmanager
def _named(source: Path | None) -> Iterator[None]:
    """What is wrong with one image of several names its file, if it is given."""
    try:
        yield
    except ValueError as error:
        raise (ValueError(f"{source}: {error}") if source is not None else error) from None


def _draw(pipe: Any, **arguments: Any) -> Any:
    return pipe(**arguments).images[0]


def _images(draw: Callable[..., Any], pipe: Any, seeds: Sequence[int], arguments: dict[str, Any]) -> Iterator[Any]:
    """One image a seed, one after the other: the networks' memory does not grow with their number."""
    import torch

    for s in seeds:
        yield draw(pipe, generator=torch.Generator().manual_seed(s), **arguments)


def _save(images: Iterable[Any], paths: list[Path], seeds: Sequence[int], told: dict[str, Any]) -> None:
    """Each image when it is there, so that those made before an error are kept, and then their grid."""
    from imagen_diffusers.images import labelled_grid

    shown = []
    each = of_seeds(told, seeds)
    for image, path, of_it in zip(images, paths, each, strict=False):  # a path more, of the grid, if there are several
        _write(image, path, of_it)
        typer.echo(f"{path} ({image.width}x{image.height}, seed {of_it['seed']})")
        shown.append(image)
    if len(shown) > 1:
        _write(labelled_grid(shown, [f"seed {seed}" for seed in seeds]), paths[-1], each[-1])
        typer.echo(f"{paths[-1]}")


def of_seeds(told: dict[str, Any], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """What the metadata of each image say, and, if there are several, of their grid."""
    each = [{**told, "seed": seed} for seed in seeds]
    return each if len(each) == 1 else [*each, {**told, "seed": seeds[0], "seeds": list(seeds)}]


def _write(image: Any, path: Path, told: dict[str, Any]) -> None:
    """In whole, or not at all: a run that goes on takes what is there."""
    from imagen_diffusers.images import save_png
    from imagen_diffusers.training.folders import in_one_rename

    with in_one_rename(path) as part:
        save_png(image, part, told)


def warn(pipe: Any, texts: Sequence[str], text: TextOptions, tile: int | None, stop_at: int | None) -> None:
    """Say what options and texts, of which the first is a prompt, do not do here."""
    if tile is not None and not any(network.has_low_res for n, network in pipe.networks.items() if n <= (stop_at or n)):
        typer.secho("--tile changes nothing here: it is of super-resolution stages, and none of them runs.", fg="yellow", err=True)
    elif tile is not None and tile < SMALL_TILE:
        said = f"--tile is the side of each tile in pixels: of {tile} they are many, take long and show the network little; 512 is usual."
        typer.secho(said, fg="yellow", err=True)
    if texts and not pipe.takes_text:
        typer.secho("The networks of this model take no text: prompts only name the images.", fg="yellow", err=True)
    elif texts and not texts[0].strip():
        typer.secho("The prompt is empty, and says nothing of what images show; put words between its quotes.", fg="yellow", err=True)
    if pipe.takes_text and text.blend_with is not None and not text.blend_with.strip():
        typer.secho("--blend-with is empty, and --blend goes towards nothing; put words between its quotes.", fg="yellow", err=True)


def _as_it_begins(pipe: Any, say: Callable[[], None]) -> None:
    """Say something when the next call of the pipeline has found nothing to refuse: then its progress bar begins."""
    begin = pipe.progress_bar

    def begin_and_say(*args: Any, **kwargs: Any) -> Any:
        pipe.progress_bar = begin
        say()
        return begin(*args, **kwargs)

    pipe.progress_bar = begin_and_say


def say_written_over(paths: Sequence[Path]) -> None:
    """Say so of files that are there, while a run can still be ended; one image goes where it is told to, as in every other program."""
    from tqdm import tqdm

    there = [path for path in paths if path.exists()]
    if there:
        which = f"{there[0]} is" if len(there) == 1 else f"{there[0]} and {len(there) - 1} more are"
        with tqdm.external_write_mode(file=sys.stderr):  # on a line of its own, where extending has a bar already
            typer.secho(f"{which} there, and will be written over.", fg="yellow", err=True)


def fresh_seed() -> int:
    """Any one."""
    import secrets

    return secrets.randbelow(MAX_SEED)
