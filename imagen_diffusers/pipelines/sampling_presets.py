"""Named ways to sample a cascade, from careful to quick: each stage's solver, its steps, and which of them are guided.

A preset says nothing of noise curve, prediction type and thresholding, which a checkpoint was trained with; those stay.
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from imagen_diffusers.hub.classes import class_named
from imagen_diffusers.sampling.guidance import EVERYWHERE
from imagen_diffusers.sampling.stage import Stage

from .arguments import interval_per_stage, whole_per_stage

SAID = ("scheduler", "num_inference_steps", "guidance_interval")  # of each stage


class SamplingPreset(ConfigMixin):
    """What `pipe.use_preset` takes; saved and loaded like a scheduler.

    Args:
        stages: one entry per stage, first to last: `scheduler` (its class as `_class_name`, and options), `num_inference_steps`,
            and `guidance_interval`, (start, end) as fractions of the steps; all of them are guided where it is left out.

    Raises:
        ValueError: for stages that are no such list.
    """

    config_name = "sampling_preset.json"

    @register_to_config
    def __init__(self, stages: list[dict[str, Any]] | None = None):
        if not isinstance(stages, list | tuple) or not all(isinstance(stage, Mapping) for stage in stages):
            raise ValueError(
                f"a preset's stages are {stages}; give a list with one entry for each stage, of scheduler, num_inference_steps and, if "
                "need be, guidance_interval"
            )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "SamplingPreset":
        """From a folder or a Hub id.

        Raises:
            ValueError: for a file that is no preset.
        """
        config = cls.load_config(str(pretrained_model_name_or_path), **kwargs)
        if not isinstance(config, Mapping):
            raise ValueError(f"{cls.config_name} of {pretrained_model_name_or_path} holds no object; a preset is one, with its stages")
        return cls.from_config(config)  # pyright: ignore

    def scheduler(self, number: int, current: Any) -> Any:
        """Stage `number`'s scheduler, on the noise curve of its current one.

        Raises:
            ValueError: for a class that is not known or no scheduler, and one that cannot follow that curve.
        """
        said = self.config["stages"][number - 1]["scheduler"]
        if not isinstance(said, Mapping) or not isinstance(said.get("_class_name"), str):
            raise ValueError(f"the preset's scheduler for stage {number} is {said}; give its class and options, beginning with _class_name")
        options = dict(said)
        name = options.pop("_class_name")
        try:
            kind = class_named(name)
        except AttributeError:
            kind = getattr(diffusers, name, None)
        if kind is None:
            raise ValueError(f'the preset\'s scheduler "{name}" is in neither imagen_diffusers nor diffusers; correct its _class_name')
        if not isinstance(kind, type) or not issubclass(kind, SchedulerMixin):
            raise ValueError(f'the preset\'s scheduler "{name}" is none, or lacks a package; correct its _class_name, or install that')
        return kind.from_config(current.config, **options)  # pyright: ignore[reportAttributeAccessIssue]


def apply_preset(pipe: Any, preset: str | Path | SamplingPreset) -> None:
    """Give each stage of a pipeline the preset's scheduler, steps and guidance interval: all of them, or on an error none.

    Raises:
        ValueError: for a preset with fewer stages than the pipeline, without steps or a scheduler for one, with steps or intervals that are
            none, or with a scheduler that cannot drive its stage.
    """
    preset = preset if isinstance(preset, SamplingPreset) else SamplingPreset.from_pretrained(preset)
    stages = preset.config["stages"]
    if max(pipe.stage_numbers, default=0) > len(stages):
        raise ValueError(f"the preset is for {len(stages)} stages; this pipeline has stages {pipe.stage_numbers}")
    for (n, stage), key in product(enumerate(stages, start=1), ("scheduler", "num_inference_steps")):
        if key not in stage:
            raise ValueError(f"the preset says no {key} for stage {n}; add it, or take another preset")
    for n, stage in enumerate(stages, start=1):
        strange = sorted(stage.keys() - set(SAID))
        if strange:
            raise ValueError(f"the preset says {', '.join(strange)} for stage {n}; it can say {', '.join(SAID)}")
    every = range(1, len(stages) + 1)
    steps = whole_per_stage("num_inference_steps", [stage["num_inference_steps"] for stage in stages], {}, every)
    intervals = interval_per_stage([stage.get("guidance_interval", EVERYWHERE) for stage in stages], {}, every)
    schedulers = {pipe.slots(n)[1]: preset.scheduler(n, pipe.scheduler_of(n)) for n in pipe.stage_numbers}
    for (n, network), scheduler in zip(pipe.networks.items(), schedulers.values(), strict=True):
        name = pipe.slots(n)[0]
        Stage(name, network, scheduler, steps[n - 1], guidance_scale=1.0, noise_level=0.0).prepared_scheduler(torch.device("cpu"))
    for slot, scheduler in schedulers.items():
        setattr(pipe, slot, scheduler)
    pipe.register_to_config(
        num_inference_steps=steps,
        guidance_interval=[list(interval) for interval in intervals],
    )
