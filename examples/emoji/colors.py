"""Which colour a thing in an image has: the hue that most of its vivid pixels are nearest to. Knows pixels and no things."""

from collections.abc import Mapping

import numpy as np
from PIL import Image
from torch import Tensor

HUES = {"red": 0, "orange": 28, "yellow": 52, "green": 120, "blue": 215, "purple": 275, "pink": 325}  # degrees
OFF = 24  # levels of a channel from the background's: what is farther is the thing
VIVID = 0.25  # least saturation and lightness, of 1
SOME = 0.2  # least share of a thing's pixels that make its colour; without so many it has none


def color_shares(image: Tensor) -> dict[str, float]:
    """Of a thing's pixels the share of each hue's vivid ones; (3, H, W) in [0, 1], on a plain background."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    off = np.abs(pixels.astype(np.int16) - background(pixels)).max(2) > OFF
    hue, saturation, lightness = np.asarray(Image.fromarray(pixels).convert("HSV"), np.float32)[off].T / 255
    away = np.abs(hue[:, None] * 360 - np.array(list(HUES.values())))
    nearest = np.minimum(away, 360 - away).argmin(1)[(saturation >= VIVID) & (lightness >= VIVID)]
    counts = np.bincount(nearest, minlength=len(HUES))
    return dict(zip(HUES, (counts / max(int(off.sum()), 1)).tolist(), strict=True))


def main_color(shares: Mapping[str, float]) -> str | None:
    """The hue with the largest share; None of what is gray, white or black."""
    name = max(shares, key=lambda name: shares[name])
    return name if shares[name] >= SOME else None


def background(pixels: np.ndarray) -> np.ndarray:
    """Of an image (H, W, 3) with one plain background: the median of its border, (3,)."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    return np.median(border, axis=0)
