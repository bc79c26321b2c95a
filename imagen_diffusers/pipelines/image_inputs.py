"""Images a caller gives, in any of the forms diffusers takes, as one tensor."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

Images = Image.Image | np.ndarray | Tensor | Sequence[Image.Image] | Sequence[np.ndarray] | Sequence[Tensor]
FORMS = "PIL images, arrays (N, H, W, C) or tensors (N, C, H, W), one or a list"
ROUNDING = 1e-3  # by which floats may be out of range
WIDE = ("I;16", "I;16B", "I;16L", "I;16N")  # PIL's modes of 16 bits


def images_to_tensor(name: str, given: Any, channels: int = 3, *, behind: str = "white", may_be_signed: bool = True) -> Tensor:
    """Images as (N, channels, H, W), float32 in [0, 1].

    PIL images are turned upright and become RGB, or gray for one channel, transparent ones over `behind`, and 16 bits a channel keep their
    brightness. Integers of arrays and tensors are 0 to 255; floats are in [0, 1], or in [-1, 1] where any of all these images is
    negative, by more than rounding, as diffusers has it. Gray images get three channels.

    Args:
        name: of the argument, for errors.
        given: PIL images, arrays (H, W), (H, W, C) or (N, H, W, C), or tensors (C, H, W) or (N, C, H, W); one or a list.
        channels: that the network takes.
        behind: the colour that shows where a PIL image is transparent.
        may_be_signed: False where negative floats are 0, as in masks.

    Raises:
        ValueError: for anything else, other channels, values out of range, and images of several sizes.
    """
    listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not listed:
        raise ValueError(f"{name} is an empty list; give at least one image")
    parts = [_batch(name, one, channels, behind) for one in listed]
    signed = may_be_signed and any(part.is_floating_point() and part.min() < -ROUNDING for part in parts)
    parts = [_in_unit_range(part, signed) for part in parts]
    sizes = sorted({(part.shape[-1], part.shape[-2]) for part in parts})
    if len(sizes) > 1:
        raise ValueError(f"{name} holds images of {', '.join(f'{w}x{h}' for w, h in sizes)}; give images of one size")
    return torch.cat([_with_channels(name, part, channels) for part in parts])


def _batch(name: str, one: Any, channels: int, behind: str) -> Tensor:
    """(N, C, H, W), integers of 8 or, from PIL alone, 16 bits, or float32 in [-1, 1]."""
    size = one.size if isinstance(one, Image.Image) else tuple(one.shape) if isinstance(one, np.ndarray | Tensor) else ()
    if 0 in size:
        raise ValueError(f"{name} is of the shape {size}; give at least one image of at least one pixel")
    if isinstance(one, Image.Image):
        return torch.from_numpy(from_pil(name, one, channels, behind)).permute(2, 0, 1)[None]
    if isinstance(one, np.ndarray):
        if one.ndim not in (2, 3, 4):
            raise ValueError(f"{name} is an array of shape {one.shape}; give (H, W), (H, W, C) or (N, H, W, C)")
        array = one[..., None] if one.ndim == 2 else one
        owned = np.require(array[None] if array.ndim == 3 else array, requirements=("C", "W"))  # torch warns of what cannot be written
        return _checked(name, torch.from_numpy(owned).permute(0, 3, 1, 2))
    if isinstance(one, Tensor):
        if one.ndim not in (3, 4):
            raise ValueError(f"{name} is a tensor of shape {tuple(one.shape)}; give (C, H, W) or (N, C, H, W)")
        return _checked(name, one[None] if one.ndim == 3 else one)
    raise ValueError(f"{name} is a {type(one).__name__}; give {FORMS}")


def is_gray(image: Image.Image) -> bool:
    """Whether a PIL image has one channel by its mode, beside transparency."""
    bands = {*image.getbands()} - {"A", "a"}
    return len(bands) == 1 and "P" not in bands


def from_pil(name: str, image: Image.Image, channels: int, behind: str) -> np.ndarray:
    """(H, W, 3) or, where one channel is asked for, (H, W, 1), uint8; of 16 bits without transparency (H, W, 1), uint16."""
    image = with_alpha(ImageOps.exif_transpose(image))  # a camera's note of how it was held
    if image.mode in WIDE:
        return np.asarray(image).astype(np.uint16)[..., None]
    if image.mode in ("I", "F"):
        raise ValueError(f'{name} is a PIL image of mode "{image.mode}", whose range is not known; convert it to "RGB" or "L"')
    if image.mode == "LAB":  # which Pillow makes gray by way of RGB alone
        image = image.convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, behind), image)
    return np.array(image.convert("L"))[..., None] if channels == 1 else np.array(image.convert("RGB"))


def with_alpha(image: Image.Image) -> Image.Image:
    """A PIL image of 16 bits of which one gray or colour is transparent, as PNG files may say, in 8 bits; any other as it is.

    Pillow's own conversions overlook that gray, and cut off everything above 255; of colours Pillow reads the upper 8 bits, and looks for
    the lower ones of the transparent one among them.
    """
    clear = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.mode not in WIDE or "transparency" not in image.info:
        return image
    gray = np.asarray(image).astype(np.uint16)
    alpha = np.where(gray == image.info["transparency"], 0, 255)
    return Image.fromarray(np.stack(((gray / 257).round(), alpha), -1).astype(np.uint8))


def _checked(name: str, values: Tensor) -> Tensor:
    """The values of an array or a tensor, if they are in range."""
    if values.dtype == torch.uint8:
        return values
    if not values.is_floating_point():
        raise ValueError(f"{name} is of {values.dtype}; give uint8 from 0 to 255, or floats in [0, 1]")
    values = values.float()
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite values")
    low, high = values.min().item(), values.max().item()
    if low < -1 - ROUNDING or high > 1 + ROUNDING:
        raise ValueError(f"{name} has floats from {low:g} to {high:g}; give them in [0, 1] (or in [-1, 1]), or uint8 from 0 to 255")
    return values


def _in_unit_range(values: Tensor, signed: bool) -> Tensor:
    """Float32 in [0, 1]; `signed` says that floats are in [-1, 1]."""
    if not values.is_floating_point():
        return values.float() / torch.iinfo(values.dtype).max
    return ((values + 1) / 2 if signed else values).clamp(0, 1)


def _with_channels(name: str, images: Tensor, channels: int) -> Tensor:
    if images.shape[1] == 1 and channels == 3:
        return images.expand(-1, channels, -1, -1)
    if images.shape[1] != channels:
        raise ValueError(f"{name} has {images.shape[1]} channels; give {channels}{', or one for gray' if channels == 3 else ''}")
    return images
