"""An image of a thing on a plain background: where it stands, how large, and on what colour. Knows pixels and no captions.

Emoji are made to be laid over pages by browsers, which mix colours as they are stored, and soft shadows and edges were chosen so; mixed
in linear light they would look lighter than anyone knows them. So they are mixed as stored.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SIZE = 256  # of a composition, where nothing else is said, and of the 3D images
LARGEST = 1024
LEAST = 0.75  # of the side that a thing takes
BACKGROUNDS = {
    "white": (250, 250, 250),
    "black": (12, 12, 12),
    "gray": (128, 128, 128),
    "red": (205, 45, 45),
    "orange": (240, 140, 40),
    "yellow": (245, 215, 65),
    "green": (60, 160, 70),
    "blue": (50, 100, 210),
    "light blue": (150, 205, 245),
    "purple": (130, 70, 180),
    "pink": (245, 160, 195),
    "brown": (125, 80, 50),
}
JITTER = 14  # of a channel, to both sides


@dataclass(frozen=True)
class Place:
    """A thing's box in a composition, in pixels of it, and whether it is mirrored."""

    left: int
    top: int
    width: int
    height: int
    mirrored: bool

    def box(self, corner: tuple[int, int], side: int, scale: int = 1) -> np.ndarray:
        """One inside the box and zero elsewhere, of the window of `side` at `corner` (top, left): (side / scale, side / scale)."""
        inside = np.zeros((side // scale, side // scale), np.float32)
        top, left = self.top - corner[0], self.left - corner[1]
        rows, columns = (
            (max(start, 0) // scale, -(-max(start + length, 0) // scale)) for start, length in ((top, self.height), (left, self.width))
        )
        inside[slice(*rows), slice(*columns)] = 1
        return inside


def open_thing(path: Path) -> Image.Image:
    """A rendering cut to what can be seen of it, upright as its camera says, its colours multiplied by its alpha.

    Raises:
        OSError: for a file that cannot be read to its end, and for one in which nothing can be seen.
    """
    try:
        with Image.open(path) as image:
            shown = ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, SyntaxError) as error:  # Pillow's of a broken PNG
        raise OSError(f"{path} cannot be read ({error}); save it anew, or take its line out of the list") from None
    box = shown.getchannel("A").getbbox()
    if box is None:
        raise OSError(f"{path} is transparent all over; save it anew, or take its line out of the list")
    return shown.crop(box).convert("RGBa")


def place(thing: Image.Image, rng: np.random.Generator, *, may_mirror: bool, least: float = LEAST, size: int = SIZE) -> Place:
    """Anywhere inside a composition of `size`, the longer side `least` to all of its side."""
    scale = size * rng.uniform(least, 1) / max(thing.size)
    width, height = (max(round(length * scale), 1) for length in thing.size)
    left, top = (int(rng.integers(0, size - length + 1)) for length in (width, height))
    return Place(left, top, width, height, bool(may_mirror and rng.random() < 0.5))


def paint(name: str, rng: np.random.Generator) -> np.ndarray:
    """A colour (3,) in [0, 255] around a name's."""
    return np.clip(np.array(BACKGROUNDS[name]) + rng.uniform(-JITTER, JITTER, 3), 0, 255).astype(np.float32)


def layer(thing: Image.Image, at: Place, size: int = SIZE) -> Image.Image:
    """The thing in its place in a composition of `size`, on nothing: RGBa."""
    small = thing.resize((at.width, at.height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBa", (size, size))
    canvas.paste(small.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if at.mirrored else small, (at.left, at.top))
    return canvas


def compose(over: Image.Image, background: np.ndarray) -> np.ndarray:
    """A layer over a colour: (3, H, W) uint8."""
    values = np.asarray(over, np.float32)
    mixed = values[..., :3] + background * (1 - values[..., 3:] / 255)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8).transpose(2, 0, 1)
