"""An image that a call starts from, and the mask of what is painted anew: as the caller gave them, and as each stage takes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from imagen_diffusers.sampling.init_image import InitImage
from imagen_diffusers.sampling.inpainting import Inpainting
from imagen_diffusers.sampling.membrane import membrane
from imagen_diffusers.schedulers.noise import resize

from .arguments import check_count, one_each, one_per_prompt, whole_per_stage
from .fitting import check_resize_mode, fitted
from .image_inputs import images_to_tensor
from .masks import feathered, mask_to_tensor, resize_mask


@dataclass(frozen=True)
class Edit:
    """What a call says of the image it starts from; the arguments are explained where the tasks' pipelines take them.

    Args:
        image: in any form that `images_to_tensor` takes.
        strength: one value, or one for each stage that runs, in [0, 1].
        mask_image: white or True where it is painted anew; None for the whole image.
        mask_feather: pixels of the finished image over which the painting fades into what is known.
        jump_length, jump_n_sample: as in `Inpainting`; the second one value, or one for each stage that runs.
        seamless: as in `Inpainting`.
        resize_mode: how it comes to the size of the result, one of `fitting.RESIZE_MODES`.
    """

    image: Any
    strength: float | Sequence[float]
    mask_image: Any = None
    mask_feather: float = 0.0
    jump_length: int = 1
    jump_n_sample: int | Sequence[int] | None = 1
    seamless: bool = False
    resize_mode: str = "default"

    def read(self, numbers: Sequence[int], channels: int, device: torch.device) -> "ReadEdit":
        """Checked, as tensors on `device`.

        Args:
            numbers: the stages that run, counted from 1.
            channels: of their images.

        Raises:
            ValueError: for images, masks and values that do not fit; the message says which and what would.
        """
        if self.image is None:
            raise ValueError("image is missing; give the image to start from")
        strengths = _strengths(self.strength, numbers)
        check_resize_mode(self.resize_mode)
        image = images_to_tensor("image", self.image, channels).to(device) * 2 - 1
        if self.mask_image is None:
            return ReadEdit(image, strengths, self.resize_mode)
        check_count("jump_length", self.jump_length)
        if not _is_number(self.mask_feather) or not 0 <= float(self.mask_feather) < math.inf:
            raise ValueError(f"mask_feather is {self.mask_feather!r}; give a number of pixels, 0 for a hard edge")
        mask = mask_to_tensor(self.mask_image, (image.shape[-2], image.shape[-1])).to(device)
        samples = whole_per_stage("jump_n_sample", 1 if self.jump_n_sample is None else self.jump_n_sample, {}, numbers)
        if not isinstance(self.seamless, bool):
            raise ValueError(f"seamless is {self.seamless!r}; give True or False")
        if self.seamless and self.mask_feather:
            raise ValueError("mask_feather fades an edge that a seamless painting does not have; give one of them, with seamless=False")
        return ReadEdit(image, strengths, self.resize_mode, mask, float(self.mask_feather), self.jump_length, samples, self.seamless)


@dataclass(frozen=True)
class ReadEdit:
    """The same, checked.

    Args:
        image: (N, C, h, w) in [-1, 1].
        strengths: one for each stage that runs.
        mask: (M, 1, h, w), True where it is painted anew.
        samples: how often each run of `jump_length` steps is made, for each stage that runs.
    """

    image: Tensor
    strengths: list[float]
    resize_mode: str
    mask: Tensor | None = None
    feather: float = 0.0
    jump_length: int = 1
    samples: Sequence[int] = ()
    seamless: bool = False

    @property
    def rows(self) -> int:
        """Images or masks, whichever are more: results, where there are no prompts to count."""
        return max(len(self.image), 1 if self.mask is None else len(self.mask))

    def for_stages(
        self, sizes: Sequence[tuple[int, int]], prompts: int, images_per_prompt: int
    ) -> list[tuple[InitImage | None, Inpainting | None]]:
        """What each stage starts from, and what it paints; both None where it starts from noise and paints everything.

        Args:
            sizes: (height, width) of each stage that runs.
            prompts, images_per_prompt: as in `one_per_prompt`.

        Raises:
            ValueError: for a feather wider than the finished image, a mask of what is cropped alone, and as `one_per_prompt`.
        """
        height, width = sizes[-1]
        if self.feather > min(height, width):
            raise ValueError(f"mask_feather is {self.feather:g} and the image {width}x{height}; give at most its smaller side, in pixels")
        each = (prompts, images_per_prompt)
        finished = one_per_prompt("image", fitted(self.image, sizes[-1], self.resize_mode, resize), *each)  # repeated once they are small
        mask = None if self.mask is None else one_per_prompt("mask_image", self._fitted_mask(self.mask, sizes[-1]), *each)
        # What is hidden would reach what is known beside it when both are made smaller: where nothing of it is to be left, it is filled in.
        without_hidden = finished
        if mask is not None and 1 in self.strengths:
            without_hidden = torch.where(mask, membrane(finished, ~mask), finished)
        tasks: list[tuple[InitImage | None, Inpainting | None]] = []
        for i, (size, strength) in enumerate(zip(sizes, self.strengths, strict=True)):
            image = resize(finished if strength < 1 else without_hidden, size)
            start = InitImage(image, strength) if strength < 1 else None  # at 1 the start is noise alone
            if mask is None:
                tasks.append((start, None))
                continue
            painted = resize_mask(mask, size)
            blend = feathered(painted, self.feather * size[0] / height) if self.feather else None
            tasks.append((start, Inpainting(image, painted, self.jump_length, self.samples[i], blend, self.seamless)))
        return tasks

    def _fitted_mask(self, mask: Tensor, size: tuple[int, int]) -> Tensor:
        fitting = fitted(mask, size, self.resize_mode, resize_mask)
        if not fitting.flatten(1).any(1).all():
            raise ValueError(
                f'mask_image marks no pixel of what resize_mode "{self.resize_mode}" leaves of the image; give another height and width, '
                "or another resize_mode"
            )
        return fitting


def _strengths(given: Any, numbers: Sequence[int]) -> list[float]:
    values = one_each("strength", given, {"strength": [None] * max(numbers)}, numbers)
    for value in values:
        if not _is_number(value) or not 0 <= float(value) <= 1:
            raise ValueError(f"strength is {value!r}; give a number from 0, which keeps the image, to 1, which starts from noise alone")
    return [float(value) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
