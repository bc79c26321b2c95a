"""One image at the sizes a stage trains on: decoded, checked, cropped to shape and resized once, then cut into windows.

Knows images; no captions, no files, no networks. Sizes are (height, width) in pixels.
"""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MOST_UNUSABLE = 1000  # images of a stream in a row that are passed over


class UnusableError(ValueError):
    """An image that must not be trained on; the message says why."""


def none_usable(of: str, told: list[str]) -> UnusableError:
    """What to raise where no image of so many can be used, with the first of the reasons."""
    return UnusableError(f"none of {of} can be used: {'; '.join(told[:3])}{', ...' * (len(told) > 3)}")


@dataclass(frozen=True)
class CropSettings:
    """What the user of a script says of images. Field names are its flags."""

    resolution: int | None = field(default=None, metadata={"help": "Side of the images in pixels; the stage's own by default."})
    center_crop: bool = field(
        default=False,
        metadata={
            "help": "Of the windows of crop_size or sr_crop_size take the middle one instead of a random one. Whole images are cropped "
            "to shape around their middle either way."
        },
    )
    random_flip: bool = field(
        default=False, metadata={"help": "Mirror half of the images. Off by default: captions may say left and right."}
    )
    aspect_buckets: bool = field(
        default=False,
        metadata={
            "help": "Keep images' shapes: each is cropped to the nearest of several with about the same area. Each step holds one shape, "
            "and the last one of a shape in a pass is filled up with its images once more."
        },
    )


@dataclass(frozen=True)
class WindowSettings(CropSettings):
    """The same for one stage, which may train on windows of its images."""

    crop_size: int | None = field(default=None, metadata={"help": "Train on windows of this side, the same in both sizes of an image."})


@dataclass(frozen=True)
class ImageSettings:
    """What images are made into for one stage.

    Args:
        resolution: side of the stage's images.
        low_res_scale: how many times smaller the condition of a super-resolution stage is; None for a base stage.
        crop_size, center_crop, random_flip, aspect_buckets: as in `WindowSettings`.
        stride: sides of images are multiples of this.
        channels: 3 for RGB, 1 for gray.
    """

    resolution: int
    low_res_scale: int | None = None
    crop_size: int | None = None
    center_crop: bool = False
    random_flip: bool = False
    aspect_buckets: bool = False
    stride: int = 8
    channels: int = 3

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(
                f"the network makes images of {self.channels} channels, and image files are read with 1 (gray) or 3 (RGB); train it on a "
                "dataset of your own, of training/examples.py: Example"
            )
        window = self.resolution if self.crop_size is None else self.crop_size
        for name, value in (("resolution", self.resolution), ("crop_size", window)):
            if value < 1 or value % self.stride or value % self.scale:
                raise ValueError(
                    f"{name} is {value}; it must be a positive multiple of the stage's stride {self.stride} and scale {self.scale}"
                )
        if self.crop_size and self.crop_size > self.shortest_side:
            of_shapes = f"the shortest side of the shapes of aspect_buckets is {self.shortest_side}; use at most that, or leave one out"
            told = of_shapes if self.aspect_buckets else f"resolution={self.resolution}; use at most that"
            raise ValueError(f"crop_size={self.crop_size} is larger than the images: {told}")

    @property
    def scale(self) -> int:
        return self.low_res_scale or 1

    @property
    def has_buckets(self) -> bool:
        """Whether examples differ in shape."""
        return self.aspect_buckets and not self.crop_size

    @property
    def shortest_side(self) -> int:
        """Of all shapes, and so the largest window that fits into each of them."""
        return min(min(shape) for shape in self.shapes)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The shapes images may have, square alone or from 1:2 to 2:1 with about as many pixels."""
        if not self.aspect_buckets:
            return [(self.resolution, self.resolution)]
        # Not diffusers' `generate_aspect_ratio_buckets`: its eleven ratios crop more away than all there are (27 at 256px).
        unit, area, shapes = math.lcm(self.stride, self.scale), self.resolution**2, []
        for height in range(unit, 2 * self.resolution, unit):
            width = max(round(area / height / unit), 1) * unit
            if 0.5 <= height / width <= 2:
                shapes += [(height, width), (width, height)]
        return sorted({*shapes, (self.resolution, self.resolution)})


def nearest_shape(size: tuple[int, int], shapes: list[tuple[int, int]]) -> int:
    """Which of the shapes loses least of an image of `size` when it is cropped to it."""
    ratio = np.log(size[0] / size[1])
    return int(np.argmin([abs(np.log(h / w) - ratio) for h, w in shapes]))


def check_size(size: tuple[int, int], least: tuple[int, int]) -> None:
    """Raise `UnusableError` for an image, of (height, width), that is smaller than it will be."""
    if size[0] < least[0] or size[1] < least[1]:
        raise UnusableError(f"it is {size[1]}x{size[0]}, smaller than the stage's {least[1]}x{least[0]}")


def size_of(data: bytes) -> tuple[int, int]:
    """(height, width) of a file's image, turned as its EXIF says, from its header alone.

    Raises:
        UnusableError: for what is no image.
    """
    with _as_unusable():
        image = Image.open(io.BytesIO(data))
        exif = Image.Image.getexif(image)  # PNG's own method decodes the image, since EXIF may come last
        turned = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = image.size
        return (width, height) if turned else (height, width)


def decode(data: bytes) -> Image.Image:
    """A file's bytes as an RGB image, turned as its EXIF says, transparency on white, 16 bits a channel brought to 8.

    Raises:
        UnusableError: for what is no image, is cut short, or has values of no known range.
    """
    with _as_unusable(), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = _eight_bits(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")


@contextmanager
def _as_unusable() -> Iterator[None]:
    try:
        yield
    except UnusableError:
        raise
    except UnidentifiedImageError:  # whose message names an object in memory, another one each time
        raise UnusableError("it cannot be read (it is no image of a kind that Pillow knows)") from None
    except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, ValueError, struct.error, ...
        raise UnusableError(f"it cannot be read ({type(error).__name__}: {error})") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey images of 16 bits to 8, with alpha where one gray is transparent, and a transparent colour of 16 bits; others as they are.

    Pillow's own conversion cuts off everything above 255, and overlooks that gray; of colours Pillow reads the upper 8 bits, and looks for
    the lower ones of the transparent one among them.
    """
    clear = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if not image.mode.startswith("I") and image.mode != "F":
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise UnusableError(f"its values are {values.dtype}, whose range is not known; save it with 8 or 16 bits a channel")
    gray = (values / 257).round().astype(np.uint8)
    if "transparency" not in image.info:
        return Image.fromarray(gray)
    alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack((gray, alpha), -1))


def build_pyramid(image: Image.Image, settings: ImageSettings, shape: tuple[int, int] | None = None) -> list[Tensor]:
    """The image at the stage's size and, for super-resolution, `low_res_scale` times smaller: uint8 (C, H, W) each.

    Antialiased, and each level is resized from the image itself.

    Args:
        image: RGB, of any size.
        settings: of the stage.
        shape: (height, width), one of `settings.shapes`; the nearest one by default.

    Raises:
        UnusableError: for an image smaller than the stage's, or of a single colour.
    """
    shapes = settings.shapes
    height, width = shape or shapes[nearest_shape((image.height, image.width), shapes)]
    check_size((image.height, image.width), (height, width))
    image = image.convert("L") if settings.channels == 1 else image
    extrema: Any = [image.getextrema()] if settings.channels == 1 else image.getextrema()
    if all(low == high for low, high in extrema):
        raise UnusableError("every pixel has the same colour")
    levels = [1, settings.scale] if settings.low_res_scale else [1]
    return [cropped(image, (height, width), smaller=s) for s in levels]


def cropped(image: Image.Image, shape: tuple[int, int], *, smaller: int = 1) -> Tensor:
    """The middle of an image, of this shape (height, width), resized to it or to that many times smaller: uint8 (C, H, W)."""
    height, width = shape
    scale = min(image.height / height, image.width / width)
    # Rounding may pass the image's own side, where Pillow reads nothing.
    crop_width, crop_height = min(width * scale, image.width), min(height * scale, image.height)
    left, top = (image.width - crop_width) / 2, (image.height - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    resized = image.resize((width // smaller, height // smaller), Image.Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.array(resized)).reshape(height // smaller, width // smaller, -1).permute(2, 0, 1).contiguous()


def cut(levels: list[Tensor], settings: ImageSettings, rng: np.random.Generator) -> list[Tensor]:
    """The same window of every level, mirrored or not; levels are as large as the first, or `settings.scale` times smaller."""
    if settings.crop_size:
        side, scale = settings.crop_size, settings.scale
        room = [(length - side) // scale for length in levels[0].shape[-2:]]
        top, left = (r // 2 if settings.center_crop else int(rng.integers(r + 1)) for r in room)  # in pixels of the smaller level
        levels = [
            level[:, top * scale // s : (top * scale + side) // s, left * scale // s : (left * scale + side) // s]
            for level, s in ((level, levels[0].shape[-1] // level.shape[-1]) for level in levels)
        ]
    if settings.random_flip and rng.random() < 0.5:
        levels = [level.flip(-1) for level in levels]
    return [level.contiguous() for level in levels]
