"""Folders of images that a run is to make: which are there already, of the same run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .options import OF_THE_MACHINE
from .sampling import fresh_seed


def first_seed(images: Iterable[tuple[int, Path]]) -> int:
    """That of the run whose images these are, as any of them tells that is there, or any one.

    Args:
        images: how far each one's seed is from the first one, and its file.
    """
    from imagen_diffusers.images import read_settings

    for number, path in images:
        try:
            seed = read_settings(path).get("seed")
        except (OSError, ValueError):
            continue
        if isinstance(seed, int) and seed >= number:
            return seed - number
    return fresh_seed()


def is_there(path: Path, settings: dict[str, Any]) -> bool:
    """Whether a file holds the image of these settings.

    Raises:
        ValueError: for a file that holds anything else.
    """
    if not path.exists():
        return False
    from imagen_diffusers.evaluation.statistics import differences
    from imagen_diffusers.images import open_image, read_settings

    try:
        with open_image(path, ("PNG",)) as image:
            image.verify()  # one that a full disk cut short has its settings, too
        there = read_settings(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is in the way of an image ({error}); give another --output, or delete it") from None
    differing = differences(*({name: one[name] for name in one.keys() - OF_THE_MACHINE} for one in (there, settings)))
    if differing:
        raise ValueError(f"{path} is an image of another run ({differing}); give another --output, or the same options")
    return True
