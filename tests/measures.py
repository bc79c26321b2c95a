"""An extractor and scorers that need no weights, for evaluations of the tiny cascade; the command imports them by name."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Means:
    """Means of red, green and blue in the four quarters of an image: (B, 12), in float64 until the end."""

    name, width = "means", 12
    fingerprint = {"extractor": "means of quarters"}

    def __call__(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.double(), 2).flatten(1).float()


means = Means()


def bright(images: Tensor, rows: Sequence[dict[str, Any]]) -> dict[str, list]:
    """Whether more is light than dark, how light it is, and which channels are, of images of prompts with "red" alone."""
    light = images.double().mean((1, 2, 3)).tolist()
    channels = (images.double().mean((2, 3)) > 0.5).tolist()
    red = ["red" in row["prompt"] for row in rows]
    return {
        "light": [value > 0.5 for value in light],
        "lightness": light,
        "channels of red ones": [one if named else None for one, named in zip(channels, red, strict=True)],
    }


def darkest(images: Tensor, rows: Sequence[dict[str, Any]]) -> dict[str, list]:
    """How dark an image is."""
    return {"darkness": (-images.double().mean((1, 2, 3))).tolist()}
