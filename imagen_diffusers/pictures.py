"""Images from and for people: files of any kind as RGB, labelled grids, and PNG files that remember how they were made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

METADATA_KEY = "imagen_diffusers"
LABEL_HEIGHT = 28
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # Pillow opens 16-bit grey files as one of these


def read_image(path: Path) -> Image.Image:
    """An image file as 8-bit RGB, upright as its camera says: grey, palette and CMYK images, 16 bits, the first of several frames.

    Transparent parts show white, as on a page.

    Raises:
        ValueError: for a file that is no image, is damaged, or holds numbers that are no 8- or 16-bit colours.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image that can be read; give a PNG, JPEG, WebP or TIFF file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from None
    if image.mode in SIXTEEN_BITS:
        return _from_16_bits(image, path)
    if image.mode == "F":
        raise ValueError(f"{path} holds floating-point numbers, whose brightness is not known; save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image).convert("RGB")
    return image.convert("RGB")


def labelled_grid(pictures: list[Image.Image], labels: list[str], columns: int | None = None) -> Image.Image:
    """Pictures of one size in rows, each with its label above it.

    Args:
        pictures: at least one.
        labels: as many.
        columns: pictures a row; by default as square a grid as there is.
    """
    columns = columns or round(len(pictures) ** 0.5 + 0.49)
    rows = -(-len(pictures) // columns)
    width, height = pictures[0].size
    grid = Image.new("RGB", (columns * width, rows * (height + LABEL_HEIGHT)), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(size=16)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = i % columns * width, i // columns * (height + LABEL_HEIGHT)
        draw.text((x + 6, y + 5), label, fill="black", font=font)
        grid.paste(picture, (x, y + LABEL_HEIGHT))
    return grid


def save_png(picture: Image.Image, path: Path, settings: dict[str, Any]) -> None:
    """Write a PNG with the settings as JSON in its text metadata, under `METADATA_KEY`."""
    info = PngInfo()
    info.add_text(METADATA_KEY, json.dumps(settings))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="PNG", pnginfo=info)


def _from_16_bits(image: Image.Image, path: Path) -> Image.Image:
    """To 8 bits by dividing; Pillow's `convert` cuts all above 255 off, and the image is nearly white."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"{path} holds values from {values.min()} to {values.max()}; save it with 8 or 16 bits a channel")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def read_settings(path: Path) -> dict[str, Any]:
    """What `save_png` wrote."""
    with Image.open(path) as picture:
        return json.loads(picture.text[METADATA_KEY])  # type: ignore[attr-defined]
