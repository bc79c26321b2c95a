"""diffusers' guiders as they are typed: NAME, or NAME:setting=value,setting=value.

A value is a number, true or false, or the place of a layer, mid_block.0; several are separated by commas. Which settings a guider takes,
and of which kind, is read off its constructor.
"""

import math
import re
from collections.abc import Callable
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

REFUSED = ("MagnitudeAwareGuidance", "SmoothedEnergyGuidance")  # which in diffusers 0.42 guide no images; docs/settings.md says why
OF_TRANSFORMERS = re.compile(r".*_layers|dropout")  # settings that name layers by numbers alone, which finds none in U-Nets
WITHOUT = "none"


class Setting(NamedTuple):
    """What a setting takes.

    Args:
        kind: of its values, a name in `READERS`.
        alone, listed: whether it takes one value, and whether it takes a list of them.
    """

    kind: str
    alone: bool
    listed: bool


def read_guiders(given: list[str]) -> Any:
    """The `guider` of a call: one for all stages, or one, or None, for each stage that runs.

    Raises:
        ValueError: for guiders that are unknown, settings that they do not take, and values that do not fit.
        ImportError: for a guider that needs a package which is not installed.
    """
    guiders = [None if text == WITHOUT else _guider(text) for text in given]
    if guiders == [None]:
        raise ValueError(f"--guider {WITHOUT} is for one stage of several; for images without guidance give --guidance-scale 1")
    return guiders[0] if len(guiders) == 1 else guiders


def guiders_that_run() -> dict[str, type]:
    """diffusers' guiders by name, without those that cannot guide images."""
    from diffusers import guiders
    from diffusers.guiders.guider_utils import BaseGuidance

    classes = {name: one for name, one in vars(guiders).items() if isinstance(one, type) and issubclass(one, BaseGuidance)}
    return {name: classes[name] for name in sorted(classes.keys() - {"BaseGuidance", *REFUSED})}


def settings_of(guider: type) -> dict[str, Setting]:
    """The settings of a guider that can be typed, by name."""
    found = {}
    for name, hint in get_type_hints(guider.__init__).items():
        hints = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        lists = [get_args(one)[0] for one in hints if get_origin(one) in (list, tuple)]
        alone, listed = ([one.__name__ for one in some if one.__name__ in READERS] for some in (hints, lists))
        if (alone or listed) and not OF_TRANSFORMERS.fullmatch(name):
            found[name] = Setting((alone + listed)[0], bool(alone), bool(listed))
    return found


def _guider(text: str) -> Any:
    name, _, rest = text.partition(":")
    guiders = guiders_that_run()
    if name not in guiders:
        raise ValueError(f'--guider "{name}" is unknown, or guides no images; use one of {", ".join(guiders)}, or {WITHOUT}')
    takes, settings = settings_of(guiders[name]), {}
    for piece in re.split(r",(?=[^,]*=)", rest) if rest else []:  # a comma before no name is one of a list
        setting, equals, value = (part.strip() for part in piece.partition("="))
        if not equals:
            raise ValueError(f'--guider "{text}" has "{piece}" where a setting should be; write {name}:{next(iter(takes))}=3')
        if setting not in takes:
            raise ValueError(f'{name} takes no "{setting}" on the command line; its settings there are {", ".join(takes)}')
        if setting in settings:
            raise ValueError(f'--guider "{text}" has {setting} twice; leave one out')
        settings[setting] = _read(setting, value, takes[setting])
    try:
        return _made(guiders[name], settings)
    except ValueError as error:
        raise ValueError(f'diffusers refuses --guider "{text}": {error}') from error


def _made(guider: type, settings: dict[str, Any]) -> Any:
    """The guider, without diffusers' warnings, which are for those who write programs with it."""
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return guider(**settings)
    finally:
        logging.set_verbosity(verbosity)


def _read(name: str, text: str, setting: Setting) -> Any:
    """The value of a setting; a `ValueError` for what it does not take."""
    read, wanted = READERS[setting.kind]
    try:
        values = [read(part.strip()) for part in text.split(",")]
    except ValueError:
        raise ValueError(f'{name} is "{text}"; give {wanted}{", or several with commas between" if setting.listed else ""}') from None
    if setting.alone and len(values) == 1:
        return values[0]
    if not setting.listed:
        raise ValueError(f'{name} is "{text}"; give one value')
    return values


def _true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


def _layer(text: str) -> Any:
    """ "mid_block.0" to the attention between pixels in that layer."""
    from diffusers.hooks.layer_skip import LayerSkipConfig

    place, _, index = text.rpartition(".")
    if not place:
        raise ValueError
    return LayerSkipConfig([int(index)], fqn=place, skip_ff=False)


# By the name of a kind, as a constructor has it: what reads a value, and what to type.
READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "bool": (_true_or_false, "true or false"),
    "int": (int, "a whole number"),
    "float": (_finite, "a finite number"),
    "str": (str, "a word"),
    "LayerSkipConfig": (_layer, "a layer with attention, as mid_block.0"),
}
