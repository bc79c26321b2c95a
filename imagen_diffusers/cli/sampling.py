"""What `generate` and `upscale` share: read the options, load, sample, write."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from .loading import prepare
from .options import image_paths, numbers

MAX_SEED = 2**32


def sample(
    prompt: str, ready: dict[str, Any], output: Path, seed: int | None, num_images: int, settings: dict[str, Any], call: dict[str, Any]
) -> None:
    """Write images of `prompt`.

    Args:
        prompt: of all of them.
        ready: what `prepare` takes.
        output: of the images; all of it is looked at before anything is loaded.
        seed: of the first one.
        num_images: how many.
        settings: of the call, as text, one number or one a stage.
        call: its other arguments.

    Raises:
        ValueError: for values that do not fit.
        OSError: for files that are missing, damaged, or cannot be written.
    """
    settings = {k: numbers(k, v, whole=k == "num_inference_steps") for k, v in settings.items() if v is not None}
    paths = image_paths(output, num_images)
    pipe = prepare(**ready)
    _warn_of_unknown_words(pipe, [prompt, call.get("negative_prompt") or ""])
    seed = _fresh_seed() if seed is None else seed
    seeds = range(seed, seed + num_images)
    images = _images(pipe, prompt, seeds, {**settings, **call})
    told = {"prompt": prompt, **ready, **settings, **{k: v for k, v in call.items() if k != "image" and v is not None}}
    _save(images, paths, seeds, told)


def _images(pipe: Any, prompt: str, seeds: Sequence[int], arguments: dict[str, Any]) -> list:
    """One image a seed, one after the other: memory does not grow with their number."""
    import torch

    return [pipe(prompt, generator=torch.Generator().manual_seed(s), **arguments).images[0] for s in seeds]


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
    unknown = [w for prompt in prompts for w in unknown_words(prompt, pipe.tokenizer)]
    if unknown:
        words = f"The text encoder never saw: {', '.join(unknown)}. It knows: {' '.join(known_words(pipe.tokenizer))}"
        typer.secho(words, fg="yellow", err=True)


def _fresh_seed() -> int:
    import secrets

    return secrets.randbelow(MAX_SEED)
