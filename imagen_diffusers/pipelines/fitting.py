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
    height, width = images.shape[-2:]
    by_width = (size[1] * height > size[0] * width) == (mode == "crop")
    whole = (max(size[1] * height // width, 1), size[1]) if by_width else (size[0], max(size[0] * width // height, 1))
    images = resize(images, whole)
    for dim, wanted in ((-2, size[0]), (-1, size[1])):
        there = images.shape[dim]
        places = torch.arange(wanted, device=images.device) - (wanted // 2 - there // 2)
        images = images.index_select(dim, places.clamp(0, there - 1))
    return images
