"""Masks a caller gives: which pixels are painted anew."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .image_inputs import from_pil, images_to_tensor, is_gray

GIVE = "give a gray image, white where it is to be painted anew and black where it stays"
COLOURED = 32  # levels of 255 between a pixel's channels; compression and scanners leave fewer in what is gray


def mask_to_tensor(given: Any, image: Tensor) -> Tensor:
    """Masks as (N, 1, H, W), True where it is painted anew: where a gray value is at least half of white, and not transparent.

    Args:
        given: what `images_to_tensor` takes, also of bool; arrays and tensors (N, H, W), too, and tensors (H, W); one or a list.
        image: the images they are of (N, c, height, width), in [0, 1]; masks come to their device.

    Raises:
        ValueError: for masks of another size, coloured ones, one without a pixel to paint, and for a gray photo that is its own mask.
    """
    listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    gray = images_to_tensor("mask_image", [_as_gray(one) for one in listed], 1, behind="black", may_be_signed=False).to(image.device)
    if gray.shape[-2:] != image.shape[-2:]:
        given_size, size = (f"{one.shape[-1]}x{one.shape[-2]}" for one in (gray, image))
        raise ValueError(f"mask_image is {given_size} and image {size}; give a mask of the image's own size")
    if any(_is_its_photo(one, photo) for one in gray for photo in image):
        raise ValueError(f"mask_image is the image itself, with its grays; {GIVE}")
    mask = gray >= 0.5
    empty = [i for i, one in enumerate(mask) if not one.any()]
    if empty:
        which = "" if len(mask) == 1 else f" {empty[0]} of {len(mask)}"
        brightest = gray[empty[0]].max().item() * 255
        none = f", since none is brighter than {brightest:.0f} of 255" if brightest > 0 else ""
        raise ValueError(f"mask_image{which} marks no pixel{none}; make white what is to be painted anew, and black what stays")
    return mask


def _read_pil(one: Image.Image) -> Image.Image | np.ndarray:
    """One that cannot be coloured as it is, to be read later; others as gray (H, W, 1), uint8.

    Raises:
        ValueError: for a coloured one, whose brightness says nothing of what is to be painted.
    """
    if is_gray(one):
        return one
    levels = from_pil("mask_image", one, 3, "black")
    spread = int((levels.max(-1) - levels.min(-1)).max(initial=0))
    if spread > COLOURED:
        marked = '; where transparency marks it, give ImageOps.invert(mask_image.getchannel("A"))' if "A" in one.getbands() else ""
        raise ValueError(f"mask_image is coloured, as photos are: its channels differ by up to {spread} levels of 255; {GIVE}{marked}")
    return np.array(Image.fromarray(levels).convert("L"))[..., None]


def _is_its_photo(gray: Tensor, image: Tensor) -> bool:
    """Whether a mask (1, H, W) is the image (C, H, W) once more; one in black and white alone marks what is white in it."""
    return bool(((gray > 0.1) & (gray < 0.9)).any()) and bool(torch.allclose(gray.expand_as(image), image, rtol=0, atol=1 / 255))


def _as_gray(one: Any) -> Any:
    """Bools as 0 and 255, arrays and tensors with a channel, and PIL images that may be coloured read; all else as it is."""
    if isinstance(one, Image.Image):
        return _read_pil(one)
    if isinstance(one, np.ndarray):
        one = one.astype(np.uint8) * 255 if one.dtype == bool else one
        return one[..., None] if one.ndim == 3 and one.shape[-1] not in (1, 3) else one  # (N, H, W), as diffusers reads it
    if isinstance(one, Tensor):
        one = one.to(torch.uint8) * 255 if one.dtype == torch.bool else one
        return one[None, None] if one.ndim == 2 else one[:, None] if one.ndim == 3 else one
    return one


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 1, H, W) to another size; a pixel is painted if any part of it is."""
    return mask if mask.shape[-2:] == size else F.adaptive_max_pool2d(mask.float(), size) > 0


def feathered(mask: Tensor, feather: float) -> Tensor:
    """How much of the painting each pixel takes (N, 1, H, W): 1 where the mask is, falling to 0 over `feather` pixels around it."""
    reach = max(math.ceil(feather), 1)
    at = torch.arange(-reach, reach + 1, device=mask.device)
    bell = torch.exp(-0.5 * (at / max(feather / 2, 1e-3)) ** 2)  # a hard edge long before the division overflows
    bell = bell / bell.sum()
    spread = F.pad(mask.float(), (reach,) * 4, mode="replicate")
    # One at a time: a convolution may add in another order for another batch.
    spread = torch.cat([F.conv2d(F.conv2d(one, bell[None, None, None]), bell[None, None, :, None]) for one in spread.split(1)])
    return torch.where(mask, torch.ones_like(spread), (2 * spread).clamp(max=1))
