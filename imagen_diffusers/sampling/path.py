"""The way of one stage through a scheduler's steps: from noise or from an image, straight on or back and forth."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from imagen_diffusers.schedulers.kinds import ENDS_IN_NOISE, is_of
from imagen_diffusers.schedulers.precision import standard_normal
from imagen_diffusers.schedulers.protocol import Scheduler
from imagen_diffusers.schedulers.rewinding import begin_at, begun_at, check_can_begin_late, check_can_go_back, noised_again

from .init_image import InitImage
from .inpainting import Inpainting
from .seeds import seed_own_noise


@dataclass
class Path:
    """Where the denoising loop goes; what a task changes about its steps is changed here.

    Args:
        prepared: the scheduler, that made no step since `set_timesteps`.
        start: an image to start from; noise by default.
        painting: what of the image is known; nothing by default.

    Attributes:
        steps: those that are made, in order, as places in `timesteps`.
        scheduler: as it stands before the next step.
    """

    prepared: Scheduler
    start: InitImage | None = None
    painting: Inpainting | None = None
    steps: list[int] = field(init=False)
    scheduler: Scheduler = field(init=False)
    _place: int = field(init=False)  # of the step that the latents stand before

    def __post_init__(self) -> None:
        """Lay the steps out.

        Raises:
            ValueError: for a scheduler that cannot begin late, or go back, where that is asked of it.
        """
        self._place = first = 0 if self.start is None else self.start.first_step(self.prepared)
        if first > 0:
            check_can_begin_late(self.prepared)
        # A plain way, which never begins anew, needs no copy.
        self.scheduler = begin_at(self.prepared, 0) if self.start is None and self.painting is None else begun_at(self.prepared, first)
        if self.painting is None:
            self.steps = list(range(first, self.count))
            return
        if self.painting.jump_n_sample > 1:
            check_can_go_back(self.prepared)
        self.steps = self.painting.steps(first, self.count)

    @property
    def count(self) -> int:
        """Of all the scheduler's steps."""
        return len(self.prepared.timesteps)

    def begin(self, noise: Tensor, generators: list[torch.Generator]) -> Tensor:
        """The latents (B, C, H, W) to start from.

        Args:
            noise: standard normal (B, C, H, W).
            generators: one for each image, for schedulers that make noise from seeds.
        """
        seed_own_noise(self.scheduler, generators)
        return noise * self.scheduler.init_noise_sigma if self.start is None else self.start.noised(self.scheduler, noise)

    def enter(self, step: int, latents: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Latents as step `step` takes them: noised again where it lies behind, and with what is known in its place."""
        if step < self._place:
            noise = standard_normal(latents.shape, generators, latents.device, latents.dtype)
            latents = noised_again(self.prepared, latents, self._place, step, noise)
            self.scheduler = begun_at(self.prepared, step)
            seed_own_noise(self.scheduler, generators)
        self._place = step + 1
        if self.painting is None:
            return latents
        return self.painting.with_known(self.scheduler, latents, self.prepared.timesteps[step], generators)

    def leave(self, latents: Tensor, x0: Tensor) -> Tensor:
        """Latents after a step whose clean image was `x0`; after the last one without noise, and what is known in its place for good."""
        if self._place == self.count and is_of(self.prepared, ENDS_IN_NOISE):
            latents = x0.to(latents.dtype)
        return self.painting.finished(latents) if self.painting is not None and self._place == self.count else latents
