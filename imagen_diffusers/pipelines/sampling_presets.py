"""Named ways to sample a cascade, from careful to quick: each stage's solver, its steps, and which of them are guided.

A preset says nothing of noise curve, prediction type and thresholding, which a checkpoint was trained with; those stay.
"""

from itertools import product
from pathlib import Path
from typing import Any

import diffusers
from diffusers.configuration_utils import ConfigMixin, register_to_config

from imagen_diffusers.hub.classes import class_named
from imagen_diffusers.sampling.guidance import EVERYWHERE


class SamplingPreset(ConfigMixin):
    """What `pipe.use_preset` takes; saved and loaded like a scheduler.

    Args:
        stages: one entry a stage, first to last: `scheduler` (its class as `_class_name`, and options), `num_inference_steps`,
            and `guidance_interval`, (start, end) as fractions of the steps; all of them are guided where it is left out.
    """

    config_name = "sampling_preset.json"

    @register_to_config
    def __init__(self, stages: list[dict[str, Any]]):
        pass

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "SamplingPreset":
        """From a folder or a Hub id."""
        return cls.from_config(cls.load_config(str(pretrained_model_name_or_path), **kwargs))  # pyright: ignore

    def scheduler(self, number: int, current: Any) -> Any:
        """Stage `number`'s scheduler, on the noise curve of its current one.

        Raises:
            ValueError: for a class that is not known, and one that cannot follow that curve.
        """
        options = dict(self.config["stages"][number - 1]["scheduler"])
        name = options.pop("_class_name")
        try:
            kind = class_named(name)
        except AttributeError:
            kind = getattr(diffusers, name, None)
        if kind is None:
            raise ValueError(f'the preset\'s scheduler "{name}" is in neither imagen_diffusers nor diffusers; correct its _class_name')
        return kind.from_config(current.config, **options)


def apply_preset(pipe: Any, preset: str | Path | SamplingPreset) -> None:
    """Give each stage of a pipeline the preset's scheduler, steps and guidance interval: all of them, or on an error none.

    Raises:
        ValueError: for a preset with fewer stages than the pipeline, or without steps or a scheduler for one.
    """
    preset = preset if isinstance(preset, SamplingPreset) else SamplingPreset.from_pretrained(preset)
    stages = preset.config["stages"]
    if max(pipe.stage_numbers, default=0) > len(stages):
        raise ValueError(f"the preset is for {len(stages)} stages; this pipeline has stages {pipe.stage_numbers}")
    for (n, stage), key in product(enumerate(stages, start=1), ("scheduler", "num_inference_steps")):
        if key not in stage:
            raise ValueError(f"the preset says no {key} for stage {n}; add it, or take another preset")
    schedulers = {pipe.slots(n)[1]: preset.scheduler(n, pipe.scheduler_of(n)) for n in pipe.stage_numbers}
    for slot, scheduler in schedulers.items():
        setattr(pipe, slot, scheduler)
    pipe.register_to_config(
        num_inference_steps=[stage["num_inference_steps"] for stage in stages],
        guidance_interval=[list(stage.get("guidance_interval", EVERYWHERE)) for stage in stages],
    )
