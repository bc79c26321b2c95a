"""The checks of a call. Every error says what was given, what is allowed and what to do."""

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
