"""A request that was read: what each stage is to do, in the order of the stages."""

from dataclasses import dataclass

import torch
from torch import Tensor

from imagen_diffusers.sampling.path import Path
from imagen_diffusers.sampling.stage import Stage

from .edits import ReadEdit
from .texts import Texts


@dataclass(frozen=True)
class StageRun:
    """One stage's part.

    Args:
        number: the stage's, from 1.
        stage: the network with its settings.
        path: its way through the scheduler's steps.
        size: height and width of its images.
        generators: one for each image.
        noise: what it starts from (B, C, height, width), where the caller gave it.
    """

    number: int
    stage: Stage
    path: Path
    size: tuple[int, int]
    generators: list[torch.Generator]
    noise: Tensor | None


@dataclass(frozen=True)
class Plan:
    """The whole of a call.

    Args:
        runs: the stages' parts.
        texts: to follow and to steer away from.
        low_res: what the first stage enlarges (B, C, h, w) in [-1, 1]; None at a base.
        cond_images: what networks are conditioned on beside it (B, c, h, w) in [0, 1].
        edit: an image to start from, and what of it is painted anew.
    """

    runs: list[StageRun]
    texts: Texts
    low_res: Tensor | None
    cond_images: Tensor | None
    edit: ReadEdit | None

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(len(run.path.steps) for run in self.runs)
