"""Images brought to a size of another shape, in the ways of diffusers' `VaeImageProcessor`: stretched, cropped, or filled at the edges."""

from collections.abc import Callable

import torch
from torch import Tensor

RESIZE_MODES = ("default", "crop", "fill")


def check_resize_mode(mode: str) -> None:
    """See that it is one of `RESIZE_MODES`.

    Raises:
        ValueError: for anything else.
    """
    if mode not in RESIZE_MODES:
        raise ValueError(f"resize_mode is {mode!r}; give default, which stretches images, crop, or fill, which repeats their edges")


def fitted(images: Tensor, size: tuple[int, int], mode: str, resize: Callable[[Tensor, tuple[int, int]], Tensor]) -> Tensor:
    """Images (N, C, h, w), or masks, at `size`.

    Args:
        size: (height, width).
        mode: "default" stretches them. The others keep their shape and put their middle in the middle: "crop" makes them cover the size
            and leaves out what is beyond, "fill" makes them fit in, and repeats the pixels at their edges.
        resize: to any size.
    """
    if mode == "default":
        return resize(images, size)
    images = resize(images, _kept_in_shape((images.shape[-2], images.shape[-1]), size, mode))
    for dim, wanted in ((-2, size[0]), (-1, size[1])):
        there = images.shape[dim]
        places = torch.arange(wanted, device=images.device) - (wanted // 2 - there // 2)
        images = images.index_select(dim, places.clamp(0, there - 1))
    return images


def unfilled(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of images (N, C, h, w) that `fitted` filled at the edges: what was there before, resized.

    Args:
        size: (height, width) that they had.
    """
    for dim, there in zip((-2, -1), _kept_in_shape(size, (images.shape[-2], images.shape[-1]), "fill"), strict=True):
        images = images.narrow(dim, images.shape[dim] // 2 - there // 2, there)
    return images


def _kept_in_shape(given: tuple[int, int], size: tuple[int, int], mode: str) -> tuple[int, int]:
    """(height, width) of an image that covers `size` ("crop") or fits in ("fill"), in its own shape."""
    height, width = given
    by_width = (size[1] * height > size[0] * width) == (mode == "crop")
    return (max(size[1] * height // width, 1), size[1]) if by_width else (size[0], max(size[0] * width // height, 1))
