"""Starting from an image in place of noise (SDEdit, Meng et al. 2022): the first steps are left out, the image is noised to the next."""

from dataclasses import dataclass

from torch import Tensor

from imagen_diffusers.schedulers.protocol import Scheduler
from imagen_diffusers.schedulers.rewinding import noised_to


@dataclass(frozen=True)
class InitImage:
    """What a stage starts from.

    Args:
        image: (B, C, H, W) in [-1, 1], of the stage's size.
        strength: the share of the steps that are made, in [0, 1): 0 leaves the image as it is.
    """

    image: Tensor
    strength: float

    def first_step(self, scheduler: Scheduler) -> int:
        """The place in `timesteps` of the first step that is made: int(steps x strength) of them are, as diffusers counts."""
        order = getattr(scheduler, "order", 1)  # times a step, but for the last one
        steps = -(-len(scheduler.timesteps) // order)
        return min((steps - int(steps * self.strength)) * order, len(scheduler.timesteps))

    def noised(self, scheduler: Scheduler, noise: Tensor) -> Tensor:
        """The image as noisy as it is before that step, (B, C, H, W); `scheduler` is begun there."""
        place = self.first_step(scheduler)
        if place == len(scheduler.timesteps):
            return self.image.to(noise)
        return noised_to(scheduler, self.image.to(noise), noise, scheduler.timesteps[place])
