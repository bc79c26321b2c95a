"""Functions of one's own, by module:name: what judges images, or makes features of them."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from imagen_diffusers.hub.places import is_hub_id


def is_own(place: str) -> bool:
    """Whether a name has the form module:name."""
    module, colon, name = place.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def check_model(place: str) -> None:
    """See that a name without the form module:name may be a model's, where functions of one's own are taken, too.

    Raises:
        ValueError: for a name of neither.
    """
    if not Path(place).exists() and not is_hub_id(place):
        raise ValueError(
            f'"{place}" is not there: it is no path, no Hub id, which has the form "user/name", '
            "and no function, which has the form module:name"
        )


def own_scorer(place: str) -> Any:
    """What `own` finds, which judges when it is called.

    Raises:
        ImportError, ValueError: as `own`, and for a class, of which only an object could judge.
    """
    found = own(place)
    if isinstance(found, type):
        raise ValueError(f"{place} is a class; give module:name of a function, or of an object of that class")
    return found


def own(place: str) -> Any:
    """What a module calls by this name; modules of the folder that a program runs in are found, too.

    Raises:
        ImportError: for a module that is not there.
        ValueError: for a place of another form, a module without the name, and what cannot be called.
    """
    if not is_own(place):
        raise ValueError(
            f'"{place}" does not have the form module:name; give a module and the name of a function in it, with a colon between'
        )
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
    if not callable(found):
        raise ValueError(f"{module} holds no function {name}; give module:name of one that is there")
    return found
