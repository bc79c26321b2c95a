"""An image that a call starts from, and the mask of what is painted anew: as the caller gave them, and as each stage takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from imagen_diffusers.sampling.init_image import InitImage
from imagen_diffusers.sampling.inpainting import Inpainting
from imagen_diffusers.sampling.membrane import membrane
from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.schedulers.noise import resize

from .arguments import check_count, check_one_per_prompt, one_per_prompt, whole_per_stage
from .edit_checks import check_edge, strength_per_stage
from .fitting import check_resize_mode, fitted
from .image_inputs import images_to_tensor
from .masks import feathered, mask_to_tensor, resize_mask
from .sizes import size_like
from .windows import of_row, windows_around


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
        padding_mask_crop: pixels of the margin of a window around what is painted, which alone is brought to the stages' size and pasted
            back; None for the whole image.
    """

    image: Any
    strength: float | Sequence[float]
    mask_image: Any = None
    mask_feather: float = 0.0
    jump_length: int = 1
    jump_n_sample: int | Sequence[int] | None = 1
    seamless: bool = False
    resize_mode: str = "default"
    padding_mask_crop: int | None = None

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
        strengths = strength_per_stage(self.strength, numbers)
        check_resize_mode(self.resize_mode)
        image = images_to_tensor("image", self.image, channels).to(device)
        if self.mask_image is None:
            return ReadEdit(image, strengths, self.resize_mode)
        check_count("jump_length", self.jump_length)
        check_edge(self.mask_feather, self.seamless, self.padding_mask_crop, self.resize_mode)
        mask = mask_to_tensor(self.mask_image, image)
        samples = whole_per_stage("jump_n_sample", 1 if self.jump_n_sample is None else self.jump_n_sample, {}, numbers)
        painting = (mask, float(self.mask_feather), self.jump_length, samples, self.seamless, self.padding_mask_crop)
        return ReadEdit(image, strengths, self.resize_mode, *painting)


@dataclass(frozen=True)
class ReadEdit:
    """The same, checked.

    Args:
        image: (N, C, h, w) in [0, 1].
        strengths: one for each stage that runs.
        mask: (M, 1, h, w), True where it is painted anew.
        samples: how often each run of `jump_length` steps is made, for each stage that runs.
        padding: the margin of windows that are painted in place of whole images; None for these.
    """

    image: Tensor
    strengths: list[float]
    resize_mode: str
    mask: Tensor | None = None
    feather: float = 0.0
    jump_length: int = 1
    samples: Sequence[int] = ()
    seamless: bool = False
    padding: int | None = None

    @property
    def rows(self) -> int:
        """Images or masks, whichever are more: results, where there are no prompts to count."""
        return max(len(self.image), 1 if self.mask is None else len(self.mask))

    def sides(self, networks: Sequence[StageNetwork], height: int | None, width: int | None) -> tuple[int | None, int | None]:
        """(height, width) of the last stage's images: as the caller says, or of the image's shape; a window leaves it to the stages.

        Args:
            networks: of the stages that run.
        """
        if self.padding is not None:
            return height, width
        return size_like(networks, (self.image.shape[-2], self.image.shape[-1]), height, width)

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
        height, width = sizes[-1] if self.padding is None else self.image.shape[-2:]
        if self.feather > min(height, width):
            raise ValueError(f"mask_feather is {self.feather:g} and the image {width}x{height}; give at most its smaller side, in pixels")
        for name, given in (("image", self.image), ("mask_image", self.mask)):
            if given is not None:
                check_one_per_prompt(name, given, prompts)
        each = (prompts, images_per_prompt)
        image, mask, feathers = self._fitted(sizes[-1])
        finished = one_per_prompt("image", image, *each)  # repeated once they are small
        mask = None if mask is None else one_per_prompt("mask_image", mask, *each)
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
            fades = [feather * size[0] / sizes[-1][0] for feather in feathers for _ in range(len(painted) // len(feathers))]
            blend = torch.cat(list(map(feathered, painted.split(1), fades))) if self.feather else None
            if blend is not None and self.padding is not None and i == len(sizes) - 1:
                blend = (blend > 0).float()  # it fades where the window is pasted, in the image's own pixels
            tasks.append((start, Inpainting(image, painted, self.jump_length, self.samples[i], blend, self.seamless)))
        return tasks

    def pasted(self, painted: Tensor) -> Tensor:
        """The images, in their own size and in [0, 1], with windows in them as the stages left these (B, C, h, w) in [-1, 1]."""
        assert self.mask is not None and self.padding is not None, "windows are around masks"
        windows = windows_around(self.mask, (painted.shape[-2], painted.shape[-1]), self.padding)
        wholes = []
        for row, one in enumerate(painted.split(1)):
            image, mask, window = of_row(row, len(painted), self.image.split(1), self.mask.split(1), windows)
            wholes.append(window.paste(one, image, mask, self.feather, self.seamless))
        return torch.cat(wholes)

    def _fitted(self, size: tuple[int, int]) -> tuple[Tensor, Tensor | None, list[float]]:
        """Images, or windows of them, and masks at the size of the last stage, and the pixels there over which paintings fade."""
        if self.mask is None or self.padding is None:
            mask = None if self.mask is None else self._fitted_mask(self.mask, size)
            return fitted(self.image * 2 - 1, size, self.resize_mode, resize), mask, [self.feather]
        windows = windows_around(self.mask, size, self.padding)
        rows = (of_row(row, self.rows, windows, self.image.split(1), self.mask.split(1)) for row in range(self.rows))
        images, masks, scales = zip(*(window.cut(image, mask, size) for window, image, mask in rows), strict=True)
        return torch.cat(images), torch.cat(masks), [self.feather * scale for scale in scales]

    def _fitted_mask(self, mask: Tensor, size: tuple[int, int]) -> Tensor:
        fitting = fitted(mask, size, self.resize_mode, resize_mask)
        if not fitting.flatten(1).any(1).all():
            raise ValueError(
                f'mask_image marks no pixel of what resize_mode "{self.resize_mode}" leaves of the image; give another height and width, '
                "or another resize_mode"
            )
        return fitting
