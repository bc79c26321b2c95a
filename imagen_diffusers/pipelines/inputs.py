"""The checks of a call, and the sizes it implies. Every error says what was given, what is allowed and what to do."""

from collections.abc import Sequence
from typing import Any

import torch
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


def plan_sizes(
    stages: list[Stage], start_size: int, height: int | None, width: int | None, pictures: Tensor | None
) -> list[tuple[int, int]]:
    """(height, width) of each stage, in the ratios the stages were trained at.

    Args:
        stages: those that run.
        start_size: the trained size of what the first one starts from.
        height, width: of the last stage's pictures; None for the trained size, or to follow `pictures`.
        pictures: what a super-resolution stage starts from (B, C, h, w).
    """
    last = stages[-1].sample_size
    if pictures is not None:
        scale = last / start_size
        height, width = height or round(pictures.shape[-2] * scale), width or round(pictures.shape[-1] * scale)
    final = (height or last, width or last)
    sizes = []
    for stage in stages:
        exact = [side * stage.sample_size / last for side in final]
        if any(side != int(side) or side < 1 or side % stage.unet.stride for side in exact):
            every = max(s.unet.stride * last // s.sample_size for s in stages)
            raise ValueError(
                f"height={final[0]}, width={final[1]} would make stage {stage.name} {exact[1]:g}x{exact[0]:g}, which is not a multiple of "
                f"its stride {stage.unet.stride}; with these stages both must be multiples of {every}"
            )
        sizes.append((int(exact[0]), int(exact[1])))
    return sizes


def check_text_fits(stages: list[Stage], text: TextEmbedding) -> None:
    """Every stage takes embeddings of this width."""
    width = text.embeds.shape[-1]
    for stage in stages:
        if stage.unet.text_dim not in (None, width):
            raise ValueError(
                f"the prompt's embeddings are {width} wide but stage {stage.name} takes {stage.unet.text_dim}; "
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
