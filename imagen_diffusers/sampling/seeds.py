"""Each image has its own generator, and each stage a child of it.

So a batch size never changes an image, and changing the base's steps leaves the upscaler's noise alone. Global random
state is neither read nor written.
"""

from collections.abc import Sequence
from typing import Any

import torch

MAX_SEED = 2**62


def stage_generators(generator: torch.Generator | Sequence[torch.Generator] | None, count: int, stages: int) -> list[list[torch.Generator]]:
    """For each stage, one generator per image.

    Args:
        generator: one per image; or one, from which the images take their seeds in order; or None for fresh entropy.
        count: images.
        stages: of the full cascade, run or not, so that a subset of stages has the same seeds.

    Raises:
        ValueError: for a list of another length, and for what is no generator.
    """
    given = generator if isinstance(generator, Sequence) else [] if generator is None else [generator]
    for one in given:
        if not isinstance(one, torch.Generator):
            raise ValueError(
                f"generator is {one!r}; give a torch.Generator, one or one per image, for example torch.Generator().manual_seed(1)"
            )
    if isinstance(generator, Sequence):
        if len(generator) != count:
            raise ValueError(f"{len(generator)} generators for {count} images; give one, or one per image")
        parents = generator
    else:
        parents = [generator or _fresh()] * count
    seeds = [_draw(parent, stages) for parent in parents]
    return [[torch.Generator().manual_seed(row[stage]) for row in seeds] for stage in range(stages)]


def seed_own_noise(scheduler: Any, generators: list[torch.Generator]) -> None:
    """Seed a scheduler whose `step` takes no generator and makes its noise from seeds (DPM-Solver SDE): one per image.

    Without them it would take one from torch's global state. A seed that its configuration sets stays, for all images together.
    """
    if hasattr(scheduler, "noise_sampler_seed") and scheduler.noise_sampler_seed is None:
        scheduler.noise_sampler_seed = [_draw(generator, 1)[0] for generator in generators]


def _fresh() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator


def _draw(parent: torch.Generator, stages: int) -> list[int]:
    return torch.randint(MAX_SEED, (stages,), generator=parent, device=parent.device).tolist()
