"""Painting a part of an image anew (RePaint, Lugmayr et al. 2022): before each step what is known is put in place, noised as the rest is.

What is painted must fit what is known, which the network sees for one step at a time. Going back to noisier images and painting again
(their section 4.2) lets the two come together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from imagen_diffusers.schedulers.precision import standard_normal
from imagen_diffusers.schedulers.protocol import Scheduler
from imagen_diffusers.schedulers.rewinding import noised_to

from .membrane import membrane


@dataclass(frozen=True)
class Inpainting:
    """What of a stage's image is known.

    Args:
        known: the image (B, C, H, W) in [-1, 1], of the stage's size.
        mask: (B, 1, H, W), True where it is painted anew.
        jump_length: steps of a run that is made several times.
        jump_n_sample: how often each run is made; 1 never goes back.
        blend: how much of the painting a pixel of the finished image takes (B, 1, H, W), in [0, 1]; the mask by default.
        seamless: whether the finished painting's level is moved to that of what is known beside it, by a `membrane` of the differences
            between what is known and what the network made of it.
    """

    known: Tensor
    mask: Tensor
    jump_length: int = 1
    jump_n_sample: int = 1
    blend: Tensor | None = None
    seamless: bool = False

    def steps(self, first: int, count: int) -> list[int]:
        """The steps `first` to `count`, in order, as places in `timesteps`; each run of `jump_length` of them `jump_n_sample` times."""
        runs = [range(start, min(start + self.jump_length, count)) for start in range(first, count, self.jump_length)]
        return [place for run in runs for _ in range(self.jump_n_sample) for place in run]

    def with_known(self, scheduler: Scheduler, latents: Tensor, timestep: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Latents (B, C, H, W) before a step, with what is known in its place; of new noise each time."""
        noise = standard_normal(latents.shape, generators, latents.device, latents.dtype)
        known = noised_to(scheduler, self.known.to(latents), noise, timestep)
        return torch.where(self.mask.to(latents.device), latents, known)

    def finished(self, image: Tensor) -> Tensor:
        """The image with what is known in its place, pixel for pixel."""
        known = self.known.to(image)
        if self.seamless:
            image = image + membrane(known - image, ~self.mask.to(image.device))
        if self.blend is None:
            return torch.where(self.mask.to(image.device), image, known)
        blend = self.blend.to(image)
        return torch.where(blend == 0, known, torch.lerp(known, image, blend))
