"""The stages of a cascade: which there are, of which components, with which settings."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagen_diffusers.hub.places import find
from imagen_diffusers.models.fastest_dtype import warn_if_emulated
from imagen_diffusers.sampling.guidance import EVERYWHERE
from imagen_diffusers.sampling.guiders import check_guider, scale_of
from imagen_diffusers.sampling.network import StageNetwork, adapt
from imagen_diffusers.sampling.stage import Stage
from imagen_diffusers.schedulers.driving import preconditions

from .arguments import check_finite, guider_per_stage, interval_per_stage, per_stage, times_per_stage, whole_per_stage
from .compiling import compile_stages
from .sampling_presets import SamplingPreset, apply_preset
from .slots import SLOTS, UNETS
from .tiling import TilingMixin

logger = logging.getLogger(__name__)


class StagesMixin(TilingMixin):
    """What can be asked of a pipeline's stages, and set for all of them."""

    config: Any  # of the pipeline
    _execution_device: Any

    @property
    def stage_numbers(self) -> list[int]:
        """The stages that are there, counted from 1."""
        return [n for n, unet in enumerate(UNETS, start=1) if getattr(self, unet) is not None]

    @property
    def networks(self) -> dict[int, StageNetwork]:
        """The stages' networks as the denoising loop sees them, by number."""
        return {n: adapt(self.unet_of(n)) for n in self.stage_numbers}

    @property
    def takes_text(self) -> bool:
        """Whether one of the networks does; without, calls are given no prompt."""
        return any(network.text_dim is not None for network in self.networks.values())

    @staticmethod
    def slots(number: int) -> tuple[str, str]:
        """Names of a stage's components: stage 2 is ("unet_2", "scheduler_2")."""
        return SLOTS[number - 1]

    def stages(
        self,
        numbers: list[int],
        num_inference_steps: Sequence[int] | int | None = None,
        guidance_scale: Sequence[float] | float | None = None,
        noise_level: Sequence[float] | float | None = None,
        guidance_interval: Sequence[Any] | None = None,
        guidance_parallel: float = 1.0,
        guider: Any = None,
        timesteps: Sequence[Any] | None = None,
        sigmas: Sequence[Any] | None = None,
    ) -> list[Stage]:
        """These stages with their settings, built afresh, so that a swapped component is seen at once.

        Args:
            numbers: stages counted from 1.
            num_inference_steps, guidance_scale, noise_level, guidance_interval, guidance_parallel, guider, timesteps, sigmas: as in
                `__call__`.
        """
        guiders = guider_per_stage(guider, numbers, guidance_scale, guidance_interval, guidance_parallel)
        if guider is not None:
            guidance_scale, guidance_interval = 1.0, EVERYWHERE
        steps = whole_per_stage("num_inference_steps", num_inference_steps, self.config, numbers)
        scales = per_stage("guidance_scale", guidance_scale, self.config, numbers, least=0)
        if min(scales) < 1:
            logger.warning(f"guidance_scale is {min(scales):g}: 1 is no guidance, and below it prompts are followed less, at 0 not at all")
        levels = per_stage("noise_level", noise_level, self.config, numbers, least=0, below=1000)
        intervals = interval_per_stage(guidance_interval, self.config, numbers)
        times = times_per_stage(timesteps, sigmas, numbers)
        check_finite("guidance_parallel", guidance_parallel)
        stages = []
        each = zip(numbers, steps, scales, levels, intervals, times, guiders, strict=True)
        for number, count, scale, level, interval, given, own_guider in each:
            name, network = self.slots(number)[0], adapt(self.unet_of(number))
            warn_if_emulated(network.dtype, self._execution_device.type)
            if own_guider is not None:
                check_guider(own_guider, name, network)
                scale = scale_of(own_guider)
            stages.append(
                Stage(
                    name,
                    network,
                    self.scheduler_of(number),
                    num_inference_steps=count,
                    guidance_scale=float(scale),
                    noise_level=float(level),
                    guidance_interval=interval,
                    guidance_parallel=guidance_parallel,
                    pieces=self.pieces(network),
                    times=given,
                    guider=own_guider,
                )
            )
        return stages

    def compile(self, **options: Any) -> None:
        """Compile the network of every stage, as whole graphs for fixed shapes.

        Text is then padded to `max_sequence_length`, and masked there, so that all prompts run the same graphs. Each stage has
        one graph for a size and a number of images without guidance and one with it; the first call that needs one compiles it.
        Beyond `recompile_limit` of them, 64, other shapes run uncompiled, with a warning.
        `pipe.unet = torch.compile(pipe.unet)` works, too.

        Args:
            options: of `torch.compile`, in place of `fullgraph=True, dynamic=False`; `mode="reduce-overhead"` records CUDA graphs.
        """
        compile_stages(self, **options)

    def use_preset(self, preset: str | Path | SamplingPreset) -> None:
        """Sample by this preset from now on; `save_pretrained` keeps it. Guidance scales and noise levels stay the checkpoint's.

        Args:
            preset: a bundled one's name ("fast", "balanced", "quality"), a folder or Hub id with a `sampling_preset.json`, or a
                `SamplingPreset`.

        Raises:
            ValueError: for a preset with fewer stages than the pipeline, or without steps or a scheduler for one; nothing is changed then.
        """
        apply_preset(self, find(preset, ("presets",)) if isinstance(preset, str) else preset)

    def unet_of(self, number: int) -> Any:
        """The network of a stage counted from 1, as the pipeline holds it; None where there is none."""
        return getattr(self, UNETS[number - 1])

    def scheduler_of(self, number: int) -> Any:
        """The scheduler of a stage counted from 1.

        Raises:
            ValueError: where there is none.
        """
        name = SLOTS[number - 1][1]
        scheduler = getattr(self, name)
        if scheduler is None:
            raise ValueError(f"a stage has a network but no scheduler; assign pipe.{name}")
        return scheduler


def check_swapped(name: str, before: Any, after: Any) -> None:
    """Warn where a scheduler takes the network's output for something else than the one it replaces did: it would make noise of it.

    Args:
        name: of the slot.
        before, after: the schedulers; either may be None.

    Raises:
        ValueError: for a class.
    """
    if isinstance(after, type):
        kind = after.__name__
        raise ValueError(f"{name} is the class {kind}; give an object of it, {kind}.from_config(pipe.{name}.config)")
    if before is None or after is None or preconditions(before) or preconditions(after):
        return
    said, says = (getattr(scheduler, "config", {}).get("prediction_type") for scheduler in (before, after))
    if said is not None and says is not None and says != said:
        kind = type(after).__name__
        logger.warning(
            f'{name} had prediction_type="{said}" and has "{says}" now, for which the network may not be trained: images would be noise. '
            f"Make the scheduler by {kind}.from_config(pipe.{name}.config), which keeps what belongs to the network"
        )
