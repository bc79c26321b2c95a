"""Windows around what masks mark: cut out of images, to be painted at the stages' size, and pasted back in their own."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor

from imagen_diffusers.sampling.inpainting import Inpainting
from imagen_diffusers.schedulers.noise import resize

from .fitting import fitted, unfilled
from .masks import feathered, resize_mask


class Window(NamedTuple):
    """Pixels of an image from `left` and `top` to `right` and `bottom`, these two not among them."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, images: Tensor) -> Tensor:
        """That part of images, or masks (..., H, W); it shares their memory."""
        return images[..., self.top : self.bottom, self.left : self.right]

    def cut(self, image: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, float]:
        """What the stages are given: the window of an image and its mask, filled at the edges, and how many times larger a pixel is there.

        Args:
            image: (1, C, H, W) in [0, 1]; the window is in [-1, 1].
            mask: (1, 1, H, W).
            size: (height, width) at which the window is painted.
        """
        image, mask = self.of(image) * 2 - 1, self.of(mask)
        scale = min(one / own for one, own in zip(size, image.shape[-2:], strict=True))
        return fitted(image, size, "fill", resize), fitted(mask, size, "fill", resize_mask), scale

    def paste(self, painted: Tensor, image: Tensor, mask: Tensor, feather: float, seamless: bool) -> Tensor:
        """The image (1, C, H, W) in [0, 1] with the painting in it; what the mask and its feather do not reach is as it was, bit for bit.

        Args:
            painted: the window as the stages left it (1, C, h, w) in [-1, 1].
            image, mask: as in `cut`.
            feather: pixels of the image over which the painting fades.
            seamless: as in `Inpainting`.
        """
        whole = image.to(painted, copy=True)
        known, marked = self.of(whole), self.of(mask)
        size = (known.shape[-2], known.shape[-1])
        blend = feathered(marked, feather) if feather else None
        blending = Inpainting(known * 2 - 1, marked, blend=blend, seamless=seamless)
        finished = blending.finished(resize(unfilled(painted, size), size)).clamp(-1, 1)
        known.copy_(torch.where(marked if blend is None else blend.to(known) > 0, finished / 2 + 0.5, known))
        return whole


def windows_around(masks: Tensor, size: tuple[int, int], padding: int) -> list[Window]:
    """The least window of each mask (M, 1, H, W) that holds what it marks, with a margin and of the shape of what is painted.

    As diffusers' `padding_mask_crop` has it: at an image's border a window is moved, and where the image is too small it is cut off.

    Args:
        size: (height, width) at which the windows are painted.
        padding: pixels of the margin.
    """
    black_and_white = (Image.fromarray(mask[0].cpu().numpy().astype(np.uint8) * 255) for mask in masks)
    return [Window(*VaeImageProcessor.get_crop_region(mask, size[1], size[0], padding)) for mask in black_and_white]


def of_row(row: int, rows: int, *given: Sequence) -> list:
    """Of each of several lists what belongs to one of so many rows; a list holds one for all of them, or for equal parts in turn."""
    return [one[row * len(one) // rows] for one in given]
