"""What the commands that make images share: read the options, load, sample, write."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

import imagen_diffusers

from .loading import prepare
from .options import PipelineOptions, SamplingOptions, image_paths, numbers

MAX_SEED = 2**32
MARKS = str.maketrans(',.;:!?"()', " " * 9)  # which stand beside words and are no part of them


def sample(
    prompt: str | None,
    pipeline: PipelineOptions,
    sampling: SamplingOptions,
    *,
    task: str = "ImagenCascadePipeline",
    draw: Callable[..., Any] | None = None,
    told: dict[str, Any] | None = None,
    **call: Any,
) -> None:
    """Write images of `prompt`; everything that can be seen to be wrong is, before anything is loaded.

    Args:
        prompt: of all of them, if the task has one.
        pipeline, sampling: the options that all commands have.
        task: the pipeline's class.
        draw: what makes one image, given the pipeline and its call's arguments; the call by default.
        told: what the files' metadata say besides.
        call: other arguments of the pipeline's call; those that are None are left out.

    Raises:
        ValueError: for values that do not fit.
        OSError: for files that are missing, damaged, or cannot be written.
    """
    given = {name: getattr(sampling, name) for name in ("num_inference_steps", "guidance_scale", "noise_level")}
    settings = {name: numbers(name, value, whole=name == "num_inference_steps") for name, value in given.items() if value is not None}
    call = {name: value for name, value in call.items() if value is not None}
    paths = image_paths(sampling.output, sampling.num_images_per_prompt)
    pipe = prepare(pipeline, task)
    if prompt is None:
        pass
    elif any(network.text_dim is not None for network in pipe.networks.values()):
        call["prompt"] = prompt
        _warn_of_unknown_words(pipe, [prompt, call.get("negative_prompt", "")])
    else:
        typer.secho("The networks of this model take no text: the prompt only names the images.", fg="yellow", err=True)
    seed = _fresh_seed() if sampling.seed is None else sampling.seed
    seeds = range(seed, seed + sampling.num_images_per_prompt)
    images = _images(draw or _draw, pipe, seeds, {**settings, **call})
    said = {k: v for k, v in call.items() if k not in ("image", "mask_image")}
    made_by = {"task": task, "version": imagen_diffusers.__version__}
    _save(images, paths, seeds, {**made_by, **asdict(pipeline), **settings, **said, **(told or {}), "prompt": prompt})


def _draw(pipe: Any, **arguments: Any) -> Any:
    return pipe(**arguments).images[0]


def _images(draw: Callable[..., Any], pipe: Any, seeds: Sequence[int], arguments: dict[str, Any]) -> list:
    """One image a seed, one after the other: memory does not grow with their number."""
    import torch

    return [draw(pipe, generator=torch.Generator().manual_seed(s), **arguments) for s in seeds]


def _save(images: list, paths: list[Path], seeds: Sequence[int], told: dict[str, Any]) -> None:
    from imagen_diffusers.images import labelled_grid, save_png

    for image, path, seed in zip(images, paths, seeds, strict=False):  # a path more, of the grid, if there are several
        save_png(image, path, {**told, "seed": seed})
        typer.echo(f"{path} ({image.width}x{image.height}, seed {seed})")
    if len(images) > 1:
        save_png(labelled_grid(images, [f"seed {seed}" for seed in seeds]), paths[-1], {**told, "seed": seeds[0]})
        typer.echo(f"{paths[-1]}")


def _warn_of_unknown_words(pipe: Any, prompts: list[str]) -> None:
    from imagen_diffusers.text.t5 import known_words, unknown_words

    if pipe.tokenizer is None:
        return  # the call says whether it needs one
    unknown = [w for prompt in prompts for w in unknown_words(prompt.translate(MARKS), pipe.tokenizer)]
    if unknown:
        words = f"The text encoder never saw: {', '.join(unknown)}. It knows: {' '.join(known_words(pipe.tokenizer))}"
        typer.secho(words, fg="yellow", err=True)


def _fresh_seed() -> int:
    import secrets

    return secrets.randbelow(MAX_SEED)
