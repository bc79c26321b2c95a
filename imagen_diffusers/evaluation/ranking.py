"""The best of several images of one prompt first, as a scorer finds them: CLIP, or what reads images for oneself."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from imagen_diffusers.pipelines.image_inputs import images_to_tensor

from .scorers import Judgement, Scorer, check_judged

Judgements = Mapping[str, Sequence[Judgement]]


def rank(images: Sequence[Image.Image] | Tensor, prompt: str | Mapping[str, Any], scorer: Scorer) -> list[int]:
    """Numbers of the images, the best first; images that are as good as one another stay in their order.

    Args:
        images: of one size; as a tensor (B, 3, H, W) in [0, 1].
        prompt: of all of them, or a row that holds it as "prompt" beside what else the scorer reads.
        scorer: judges the images; the first of its judgements counts, and the next where that leaves them equal.

    Raises:
        ValueError: for no images, for a scorer that does not judge each of them, and for one that finds nothing to judge in any.
    """
    return best_first(judge(images, prompt, scorer))


def judge(images: Sequence[Image.Image] | Tensor, prompt: str | Mapping[str, Any], scorer: Scorer) -> Judgements:
    """What `rank` goes by: the scorer's judgements by name, one of each image.

    Raises:
        ValueError: as `rank`.
    """
    judged = judge_each(images, prompt, scorer)
    if all(goodness(one) == -math.inf for values in judged.values() for one in values):
        raise ValueError("the scorer judged none of the images, of which none is then the best; ask one that reads this prompt")
    return judged


def judge_each(images: Sequence[Image.Image] | Tensor, prompt: str | Mapping[str, Any], scorer: Scorer) -> Judgements:
    """As `judge`, of images in which there may be nothing to judge.

    Raises:
        ValueError: for no images, and for a scorer that does not judge each of them.
    """
    given = images_to_tensor("images", images)
    row = {"prompt": prompt} if isinstance(prompt, str) else dict(prompt)
    with torch.no_grad():
        judged = scorer(given, [row] * len(given))
    check_judged(judged)
    counts = [len(values) for values in judged.values()]
    if any(count != len(given) for count in counts) or not counts:
        raise ValueError(f"the scorer judged {counts} of {len(given)} images; it must judge each of them")
    return judged


def best_first(judged: Judgements) -> list[int]:
    """Numbers of images that were judged, as `rank` has them."""
    columns = [[goodness(one) for one in values] for values in judged.values()]
    return sorted(range(len(columns[0])), key=lambda i: tuple(-column[i] for column in columns))


def goodness(judgement: Judgement) -> float:
    """A number that is larger for better images; of several judgements how many are right, and of none, or of no number, the least."""
    if judgement is None:
        return -math.inf
    value = float(sum(judgement)) if isinstance(judgement, Sequence) else float(judgement)
    return -math.inf if math.isnan(value) else value
