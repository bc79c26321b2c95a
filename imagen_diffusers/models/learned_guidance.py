"""What guidance an adapter has learned: a network knows it by the adapter's name, and the adapter's file by the stage's."""

from collections.abc import Mapping
from typing import Any

from torch import nn

GUIDANCE = "guidance_scale"  # in metadata


def learned_guidance(unet: nn.Module) -> dict[str, float]:
    """The scales by the names of the adapters, to be read and written; 1, or none, of those that learned something else."""
    return unet.__dict__.setdefault("_learned_guidance", {})


def as_stored(told: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Metadata by stage as files hold it: of what stands under the name of a stage peft must know every word, with diffusers, too."""
    learned = {stage: said[GUIDANCE] for stage, said in told.items() if GUIDANCE in said}
    of_peft = {stage: {name: value for name, value in said.items() if name != GUIDANCE} for stage, said in told.items()}
    return {**of_peft, GUIDANCE: learned} if learned else of_peft


def learned_of(slot: str, metadata: Mapping[str, Any] | None) -> float:
    """What a file's metadata say of the adapter of a stage; 1 where they say nothing."""
    return (metadata or {}).get(f"{GUIDANCE}.{slot}", 1.0)
