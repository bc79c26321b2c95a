"""The checks of a call. Every error says what was given, what is allowed and what to do."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from imagen_diffusers.text.t5 import TextEmbedding

from .stage import Stage

OUTPUT_TYPES = ("pil", "np", "pt")


def per_stage(
    name: str, given: Sequence[float] | float | None, recommended: dict[str, list], *, least: float, below: float = float("inf")
) -> list[Any]:
    """A scalar, a list or None to one value a stage, in range."""
    values = recommended[name] if given is None else list(given) if isinstance(given, Sequence) else [given] * len(recommended[name])
    if len(values) != len(recommended[name]):
        raise ValueError(f"{name} has {len(values)} values for {len(recommended[name])} stages; give one, or one for each stage that runs")
    for value in values:
        if not least <= value < below:
            top = "" if below == float("inf") else f" and less than {below:g}"
            raise ValueError(f"{name} is {value}; it must be at least {least:g}{top}")
    return values


def interval_per_stage(given: Sequence[Any] | None, recommended: list[Sequence[float]]) -> list[tuple[float, float]]:
    """A pair, pairs or None to one pair a stage."""
    if given is None:
        pairs = recommended
    else:
        pairs = list(given) if isinstance(given[0], Sequence) else [given] * len(recommended)
    if len(pairs) != len(recommended):
        raise ValueError(
            f"guidance_interval has {len(pairs)} pairs for {len(recommended)} stages; give one pair, or one for each stage that runs"
        )
    for pair in pairs:
        if len(pair) != 2 or not 0 <= pair[0] <= pair[1] <= 1:
            raise ValueError(f"guidance_interval is {tuple(pair)}; give (start, end) with 0 <= start <= end <= 1, fractions of the steps")
    return [(float(start), float(end)) for start, end in pairs]


def repeat_to(pictures: Tensor | None, count: int) -> Tensor | None:
    """Pictures given once, or once a prompt, to `count` rows."""
    if pictures is None:
        return None
    if count % len(pictures):
        raise ValueError(f"{len(pictures)} images do not divide {count} pictures; give one image, or one a prompt")
    return pictures.repeat_interleave(count // len(pictures), 0)


def prepare_cond_images(given: Any, stages: list[Stage], count: int, device: torch.device) -> Tensor | None:
    """Conditioning pictures (count, c, h, w) in [0, 1], where the stages take them.

    Raises:
        ValueError: where they are missing, or not taken, or have another number of channels than a stage takes.
    """
    needed = {stage.name: stage.network.cond_channels for stage in stages if stage.network.cond_channels}
    if given is None and not needed:
        return None
    if given is None or not needed:
        said = "was trained with conditioning pictures; give cond_images" if needed else "takes no cond_images; leave them out"
        raise ValueError(f"{', '.join(needed) or ', '.join(stage.name for stage in stages)} {said}")
    pictures = given if isinstance(given, Tensor) else VaeImageProcessor(vae_scale_factor=1, do_normalize=False).preprocess(given)
    for name, channels in needed.items():
        if pictures.ndim != 4 or pictures.shape[1] != channels:
            raise ValueError(f"cond_images are {tuple(pictures.shape)}; {name} takes (N, {channels}, height, width)")
    return repeat_to(check_image(pictures).to(device), count)


def check_text_fits(stages: list[Stage], text: TextEmbedding) -> None:
    """Every stage takes embeddings of this width."""
    width = text.embeds.shape[-1]
    for stage in stages:
        if stage.network.text_dim not in (None, width):
            raise ValueError(
                f"the prompt's embeddings are {width} wide but stage {stage.name} takes {stage.network.text_dim}; "
                "all stages of a cascade must have been trained with the pipeline's text encoder"
            )


def check_image(pictures: Tensor) -> Tensor:
    if not torch.isfinite(pictures).all():
        raise ValueError("image holds NaN or infinite values")
    return pictures


def check_output_type(output_type: str) -> None:
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f'output_type="{output_type}" is unknown; use one of {", ".join(OUTPUT_TYPES)}')


def check_callback_inputs(asked: Sequence[str], offered: list[str]) -> None:
    unknown = [name for name in asked if name not in offered]
    if unknown:
        raise ValueError(f"callback_on_step_end_tensor_inputs names {unknown}; a callback can see {offered}")
