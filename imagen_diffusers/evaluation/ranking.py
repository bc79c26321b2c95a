"""The best of several images of one prompt first, as a scorer finds them: CLIP, or what reads images for oneself."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from imagen_diffusers.pipelines.image_inputs import images_to_tensor

from .scorers import Judgement, Scorer


def rank(images: Sequence[Image.Image] | Tensor, prompt: str | Mapping[str, Any], scorer: Scorer) -> list[int]:
    """Numbers of the images, the best first; images that are as good as one another stay in their order.

    Args:
        images: of one size; as a tensor (B, 3, H, W) in [0, 1].
        prompt: of all of them, or a row that holds it as "prompt" beside what else the scorer reads.
        scorer: judges the images; the first of its judgements counts, and the next where that leaves them equal.

    Raises:
        ValueError: for no images, and for a scorer that does not judge each of them.
    """
    given = images_to_tensor("images", images)
    row = {"prompt": prompt} if isinstance(prompt, str) else dict(prompt)
    with torch.no_grad():
        judged = scorer(given, [row] * len(given))
    columns = [[goodness(one) for one in values] for values in judged.values()]
    if not columns or any(len(column) != len(given) for column in columns):
        raise ValueError(f"the scorer judged {[len(column) for column in columns]} of {len(given)} images; it must judge each of them")
    return sorted(range(len(given)), key=lambda i: tuple(-column[i] for column in columns))


def goodness(judgement: Judgement) -> float:
    """A number that is larger for better images; of several judgements how many are right, and of none the least."""
    if judgement is None:
        return -math.inf
    return float(sum(judgement)) if isinstance(judgement, Sequence) else float(judgement)
