"""The checks of a call that starts from an image. Every error says what was given, what is allowed and what to do."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from .arguments import one_each


def strength_per_stage(given: Any, numbers: Sequence[int]) -> list[float]:
    """How much is changed, in [0, 1]: one value, or one for each stage that runs, to one for each."""
    values = one_each("strength", given, {"strength": [None] * max(numbers)}, numbers)
    for value in values:
        if not _is_number(value) or not 0 <= float(value) <= 1:
            raise ValueError(f"strength is {value!r}; give a number from 0, which keeps the image, to 1, which starts from noise alone")
    return [float(value) for value in values]


def check_edge(feather: Any, seamless: Any, padding: Any, resize_mode: str) -> None:
    """How a painting ends, and how much of the image around it is cut out with it.

    Args:
        feather, seamless, padding, resize_mode: `mask_feather`, `seamless`, `padding_mask_crop` and `resize_mode` of a call.
    """
    if not _is_number(feather) or not 0 <= float(feather) < math.inf:
        raise ValueError(f"mask_feather is {feather!r}; give a number of pixels, 0 for a hard edge")
    if not isinstance(seamless, bool):
        raise ValueError(f"seamless is {seamless!r}; give True or False")
    if seamless and feather:
        raise ValueError("mask_feather fades an edge that a seamless painting does not have; give one of them, with seamless=False")
    if padding is None:
        return
    if not isinstance(padding, Integral) or isinstance(padding, bool) or padding < 0:
        raise ValueError(
            f"padding_mask_crop is {padding!r}; give a whole number of pixels around what the mask marks, or None for the whole image"
        )
    if feather > padding:
        raise ValueError(
            f"mask_feather is {feather:g} and padding_mask_crop {padding}, but a painting fades inside its window; give a larger "
            "padding_mask_crop, or a smaller mask_feather"
        )
    if resize_mode != "default":
        raise ValueError(
            f'resize_mode is "{resize_mode}", which is of whole images that change their shape; with padding_mask_crop they keep it: leave '
            "out one of them"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
