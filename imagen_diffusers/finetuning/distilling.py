"""Which guidance of a cascade is distilled, and that what has learned it is sampled without."""

from dataclasses import dataclass, field
from typing import Any

from imagen_diffusers.pipelines.arguments import per_stage
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

from .image_sets import network_of


@dataclass(frozen=True)
class GuidanceSettings:
    """What the adapters learn."""

    guidance_scale: list[float] | None = field(
        default=None, metadata={"help": "That of each stage, or one for all; by default the cascade's own, of the stages that have any."}
    )


def scales_to_distill(pipe: ImagenCascadePipeline, guidance: GuidanceSettings, stages: list[int] | None) -> dict[int, float]:
    """The guidance scale of each stage that is to learn one.

    Args:
        guidance: scales as they were given.
        stages: those that were chosen; None for those with text and a scale above 1.

    Raises:
        ValueError: for a stage that is not there, a number of scales that is not that of the stages, and where there is no guidance to
            learn.
    """
    numbers = pipe.stage_numbers if stages is None else stages
    networks = pipe.networks if stages is None else {n: network_of(pipe, n) for n in numbers}
    without_text = [n for n in numbers if networks[n].text_dim is None]
    if without_text and (stages is not None or without_text == numbers):
        told = ", ".join(map(str, without_text))
        raise ValueError(f"stage {told} takes no text, so it has no guidance to distill: leave it out of --stages")
    given: Any = guidance.guidance_scale
    scales = per_stage("guidance_scale", given[0] if given is not None and len(given) == 1 else given, pipe.config, numbers, least=0)
    found = {n: float(scale) for n, scale in zip(numbers, scales, strict=True) if scale > 1 and n not in without_text}
    if not found or (stages is not None and len(found) < len(stages)):
        without = ", ".join(str(n) for n in numbers if n not in found)
        raise ValueError(
            f"guidance_scale of stage {without} is 1 or less, which is no guidance to distill: leave the stage out of --stages, or give a "
            "--guidance_scale above 1"
        )
    return found


def sample_without_guidance(pipe: ImagenCascadePipeline, stage: int) -> None:
    """Recommend so for a stage whose adapter has learned it."""
    scales = list(pipe.config["guidance_scale"])
    scales += [1.0] * (stage - len(scales))  # where the configuration says less than the stages that there are
    scales[stage - 1] = 1.0
    pipe.register_to_config(guidance_scale=scales)
