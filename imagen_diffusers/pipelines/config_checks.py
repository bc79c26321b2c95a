"""The values of a cascade's configuration, checked where they are given, so that no call ends in them."""

from typing import Any

from imagen_diffusers.text.prompts import TextRules

from .arguments import interval_per_stage, is_one, listed, per_stage, whole_per_stage
from .slots import SLOTS

RANGES: dict[str, dict[str, float]] = {"guidance_scale": {"least": 0}, "noise_level": {"least": 0, "below": 1000}}
OF_STAGES = ("num_inference_steps", "guidance_interval", *RANGES)


def checked_config(given: dict[str, Any]) -> dict[str, Any]:
    """Values of a configuration as it keeps them; those of stages as lists, one value alone being for each of them.

    Raises:
        ValueError: for a value that no call could use.
    """
    rules = TextRules.of({**TextRules()._asdict(), **given})._asdict()
    return {name: _checked(name, value) if name in OF_STAGES else rules.get(name, value) for name, value in given.items()}


def _checked(name: str, value: Any) -> list[Any]:
    """One value a stage, in range."""
    value = listed(value)
    values: list[Any] = [value] * len(SLOTS) if is_one(name, value) else list(value)
    numbers = range(1, len(values) + 1)
    if not values:
        return values
    if name == "num_inference_steps":
        return whole_per_stage(name, values, {}, numbers)
    if name == "guidance_interval":
        return [list(ends) for ends in interval_per_stage(values, {}, numbers)]
    return [x if isinstance(x, int | float) else float(x) for x in per_stage(name, values, {}, numbers, **RANGES[name])]
