"""Classifier-free guidance (Imagen, section 2.2): how far to go from no text towards the text, and in which steps."""

import torch
import torch.nn.functional as F
from torch import Tensor

EVERYWHERE = (0.0, 1.0)


def guide(with_text: Tensor, without: Tensor, scale: float, parallel: float = 1.0) -> Tensor:
    """Equation 2, in whatever the network predicts.

    Args:
        with_text, without: its outputs (B, C, H, W).
        scale: w; 1 gives `with_text`.
        parallel: how much is kept of the difference's part that is parallel to `with_text`, which raises contrast most
            (Sadat et al. 2024, adaptive projected guidance): 1 is equation 2, 0 what imagen-pytorch 2.1 does.
    """
    if parallel == 1:
        return without + scale * (with_text - without)
    wide = torch.float32 if with_text.device.type == "mps" else torch.float64  # which that device lacks
    difference = (with_text - without).to(wide).flatten(1)
    direction = F.normalize(with_text.to(wide).flatten(1), dim=1)
    along = (difference * direction).sum(1, keepdim=True) * direction
    return with_text + (scale - 1) * (difference - (1 - parallel) * along).view_as(with_text).to(with_text.dtype)


def is_guided(index: int, steps: int, interval: tuple[float, float]) -> bool:
    """Whether step `index` of `steps` lies in the interval, given as fractions of the steps, from noise (0) to image (1)."""
    return interval[0] <= index / steps < interval[1]
