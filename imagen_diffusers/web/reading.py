"""The page's values, read and found within limits before the cascade is called."""

import secrets
from collections.abc import Mapping
from typing import Any

from .asked import MAX_GUIDANCE, MAX_SCALE, MAX_SEED, MAX_WEIGHT, OWN_PRESET, PRESETS, Asked
from .gallery import Gallery
from .limits import Limits, read_choice, read_number, read_text, read_whole
from .models import Models


def read_asked(task: str, given: Mapping[str, Any], models: Models, gallery: Gallery, limits: Limits) -> Asked:
    """The request of a task with these values, by the names of `Asked`; those that are left out, or None, are chosen here.

    Raises:
        ValueError: for a value that is not within limits; the message says what was given and what is allowed.
    """
    prompt = read_text("the prompt", given.get("prompt"), limits.prompt_characters)
    if task == "generate" and not prompt:
        raise ValueError("the prompt is empty; say what to generate")
    model = read_choice("the model", given.get("model", models.names[0]), models.names)
    preset = read_choice("the preset", given.get("preset", OWN_PRESET), PRESETS)
    count = read_whole("the number of images", given.get("count", 1), 1, limits.images)
    weights = given.get("weights") or {}
    numbers = {
        name: read_number(f"the {name}", given[name], least, most)
        for name, least, most in (("guidance", 0.0, MAX_GUIDANCE), ("strength", 0.0, 1.0), ("scale", 1.0, MAX_SCALE))
        if given.get(name) is not None
    }
    return Asked(
        task=task,
        model=model,
        prompt=prompt,
        preset=None if preset == OWN_PRESET else preset,
        seed=_read_seed(given.get("seed"), MAX_SEED - count + 1),
        count=count,
        weights={name: read_number(f"the weight of {name}", weights.get(name, 0.0), -MAX_WEIGHT, MAX_WEIGHT) for name in models.adapters},
        image=None if task == "generate" else gallery.uploaded("the image", given.get("image")),
        mask=None if given.get("mask") is None else gallery.uploaded("the mask", given["mask"]),
        **numbers,
    )


def _read_seed(value: Any, most: int) -> int:
    """A seed as a number or in digits; any where nothing is given."""
    value = value.strip() if isinstance(value, str) else value
    if value is None or value == "":
        return secrets.randbelow(most + 1)
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    return read_whole("the seed", int(value) if digits else value, 0, most)
