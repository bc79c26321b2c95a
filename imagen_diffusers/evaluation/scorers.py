"""Scorers judge images beside what their prompts ask for: CLIP by its folder or Hub id, or any function of one's own, as module:name."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from .own_functions import check_model, is_own, own_scorer

# True or false, several of these, a number, or None where there is nothing to judge.
Judgement = bool | float | None | Sequence[bool]
# Images (B, 3, H, W) in [0, 1] and the rows of their prompts to judgements by name, one an image.
Scorer = Callable[[Tensor, Sequence[dict[str, Any]]], Mapping[str, Sequence[Judgement]]]


def load_scorer(place: str) -> Scorer:
    """A scorer by name: the folder or Hub id of a CLIP, or module:name.

    Raises:
        ValueError: for a name that is neither.
        ImportError: for a module that is not there.
    """
    if is_own(place):
        return own_scorer(place)
    check_model(place)
    from .clip import load_clip

    return load_clip(place)


def check_judged(judged: Any, scorer: str = "the scorer") -> None:
    """See that a scorer, which may be anybody's function, returned judgements by name.

    Raises:
        ValueError: naming it, and what it returned instead.
    """
    each = "a value for each image: true or false, several of these, a number, or None"
    if not isinstance(judged, Mapping):
        raise ValueError(f'{scorer} returned a {type(judged).__name__}; it must return a dictionary, {{"name": values}}, with {each}')
    for name, values in judged.items():
        if isinstance(values, str) or not hasattr(values, "__len__"):
            raise ValueError(f'{scorer} gave a {type(values).__name__} as "{name}"; give a list with {each}')
        wrong = [one for one in values if not _is_judgement(one)]
        if wrong:
            raise ValueError(f'{scorer} gave {wrong[0]!r} as "{name}" of an image; give {each}')


def _is_judgement(one: Any) -> bool:
    several = isinstance(one, Sequence) and not isinstance(one, str)
    return one is None or several or isinstance(one, (Real, np.bool_)) or isinstance(one, Tensor) and one.numel() == 1
