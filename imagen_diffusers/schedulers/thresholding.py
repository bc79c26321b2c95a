"""Keeping the predicted clean image in range under strong guidance (Imagen, section 2.3).

Pure functions of x0. They act on each example by itself, over all its values.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .precision import at_least_float32

PAPER_RATIO = 0.995  # figure A.10


def threshold(x0: Tensor, config: Mapping[str, Any]) -> Tensor:
    """x0 (B, ...) as a scheduler's configuration asks for it, in diffusers' words and order.

    `thresholding` is dynamic, and goes before `clip_sample`, which is static; where neither is set, x0 stays as it is.
    """
    if config.get("thresholding"):
        return dynamic_threshold(x0, config.get("dynamic_thresholding_ratio", PAPER_RATIO), config.get("sample_max_value"))
    return static_threshold(x0, config.get("clip_sample_range", 1.0)) if config.get("clip_sample") else x0


def static_threshold(x0: Tensor, limit: float = 1.0) -> Tensor:
    """Clip to [-limit, limit]."""
    return x0.clamp(-limit, limit)


def dynamic_threshold(x0: Tensor, ratio: float = PAPER_RATIO, max_value: float | None = None) -> Tensor:
    """Clip to [-s, s] and divide by s, where s is the `ratio` quantile of |x0|, at least 1.

    Args:
        x0: (B, ...) in roughly [-1, 1].
        ratio: the quantile, in (0, 1]; the paper's is 0.995.
        max_value: an upper limit on s. The paper has none; 1.0 makes this `static_threshold`.
    """
    s = quantile(x0.abs().flatten(1), ratio).clamp(min=1, max=max_value)
    s = s.view(-1, *[1] * (x0.ndim - 1)).to(x0.dtype)
    return x0.clamp(-s, s) / s


def check_ratio(ratio: Any) -> None:
    """See that a `dynamic_thresholding_ratio` is one.

    Raises:
        ValueError: for what is no share, a percentile among it.
    """
    if not isinstance(ratio, int | float) or not 0 < ratio <= 1:
        raise ValueError(f"dynamic_thresholding_ratio is {ratio!r}; it is a share in (0, 1], 0.995 in the paper")


def quantile(values: Tensor, q: float) -> Tensor:
    """`torch.quantile` along the last dimension of (B, N), by selection instead of sorting, and for any N."""
    place = q * (values.shape[-1] - 1)
    rank = math.floor(place)
    values = at_least_float32(values)
    if torch.are_deterministic_algorithms_enabled():  # which earlier releases of torch refuse to select by on a GPU
        ordered = values.sort(dim=-1).values
        return torch.lerp(ordered[..., rank], ordered[..., min(rank + 1, values.shape[-1] - 1)], place - rank)
    below = values.kthvalue(rank + 1, dim=-1).values
    above = values.kthvalue(min(rank + 2, values.shape[-1]), dim=-1).values
    return torch.lerp(below, above, place - rank)
