"""Scorers judge images beside what their prompts ask for: CLIP by its folder or Hub id, or any function of one's own, as module:name."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

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
    from .clip import load_clip

    return load_clip(place)


def own_scorer(place: str) -> Scorer:
    """What `own` finds, which judges when it is called.

    Raises:
        ImportError, ValueError: as `own`, and for a class, of which only an object could judge.
    """
    found = own(place)
    if isinstance(found, type):
        raise ValueError(f"{place} is a class; give module:name of a function, or of an object of that class")
    return found


def is_own(place: str) -> bool:
    """Whether a name has the form module:name."""
    module, colon, name = place.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


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


def own(place: str) -> Any:
    """What a module calls by this name; modules of the folder that a program runs in are found, too.

    Raises:
        ImportError: for a module that is not there.
        ValueError: for a module without the name, and for what cannot be called.
    """
    module, _, name = place.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as python -m has it
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # of what the module itself imports
        raise ModuleNotFoundError(
            f"{place} is not there: no module {error.name} in the folder that this runs in, nor installed", name=error.name
        ) from None
    if not name:
        raise ValueError(f"{place} is a module's name alone; give module:name of a function in it")
    if not callable(found):
        raise ValueError(f"{module} holds no function {name}; give module:name of one that is there")
    return found
