"""Keeping the predicted clean picture in range under strong guidance (Imagen, section 2.3).

Pure functions of x0. Both act on each example by itself, over all its values.
"""

import math

import torch
from torch import Tensor

PAPER_RATIO = 0.995  # figure A.10


def static_threshold(x0: Tensor) -> Tensor:
    """Clip to [-1, 1]."""
    return x0.clamp(-1, 1)


def dynamic_threshold(x0: Tensor, ratio: float = PAPER_RATIO, max_value: float | None = None) -> Tensor:
    """Clip to [-s, s] and divide by s, where s is the `ratio` quantile of |x0|, at least 1.

    Args:
        x0: (B, ...) in roughly [-1, 1].
        ratio: the quantile, in (0, 1); the paper's is 0.995.
        max_value: an upper limit on s. The paper has none; 1.0 makes this `static_threshold`.
    """
    s = quantile(x0.abs().flatten(1), ratio).clamp(min=1, max=max_value)
    s = s.view(-1, *[1] * (x0.ndim - 1)).to(x0.dtype)
    return x0.clamp(-s, s) / s


def quantile(values: Tensor, q: float) -> Tensor:
    """`torch.quantile` along the last dimension of (B, N), by selection instead of sorting, and for any N."""
    place = q * (values.shape[-1] - 1)
    rank = math.floor(place)
    values = values.float()
    below = values.kthvalue(rank + 1, dim=-1).values
    above = values.kthvalue(min(rank + 2, values.shape[-1]), dim=-1).values
    return torch.lerp(below, above, place - rank)
