"""Images from and for people: files, labelled grids, and PNG files that remember how they were made."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

METADATA_KEY = "imagen_diffusers"
NOT_ALONE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # kinds that Pillow knows and does not read, or by other programs alone
LABEL_HEIGHT = 28
CELL_WIDTH = 128  # at least, so that "seed 4294967295" fits


def read_image(path: Path, formats: tuple[str, ...] | None = None, most_pixels: int | None = None) -> Image.Image:
    """An image file, or the first frame of several, upright as its camera says; of any mode, since a pipeline takes them all.

    Args:
        formats, most_pixels: as in `open_image`.

    Raises:
        ValueError: for a file that is no image, or is damaged, and for an image of more pixels.
    """
    with open_image(path, formats, most_pixels) as opened:
        opened.load()
        return ImageOps.exif_transpose(opened)


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Those of the paths that are images by their names, of kinds that Pillow reads by itself, sorted.

    Hidden files are no images of anyone's: macOS leaves a "._0.png" beside "0.png" on other systems' disks.
    """
    return sorted(path for path in paths if has_image_name(path) and path.is_file())


def has_image_name(path: Path) -> bool:
    kind = Image.registered_extensions().get(path.suffix.lower())
    return kind in Image.OPEN and kind not in NOT_ALONE and not path.name.startswith(".")


@contextmanager
def open_image(path: Path, formats: tuple[str, ...] | None = None, most_pixels: int | None = None) -> Iterator[Image.Image]:
    """An image file whose head alone is read, until the block asks for more.

    Args:
        formats: that are read, as Pillow names them; all that it knows by default.
        most_pixels: of an image that is taken.

    Raises:
        ValueError: as `read_image`, also for what the block reads.
    """
    try:
        with Image.open(path, formats=formats) as opened:
            if most_pixels is not None and opened.width * opened.height > most_pixels:
                raise ValueError(f"it is {opened.width}x{opened.height}, and at most {most_pixels} pixels are read")
            yield opened
    except UnidentifiedImageError:
        kinds = ", ".join(formats or ("PNG", "JPEG", "WebP", "TIFF"))
        raise ValueError(f"{path} is not an image that can be read; give a file of one of these kinds: {kinds}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from None


def labelled_grid(images: list[Image.Image], labels: list[str], columns: int | None = None) -> Image.Image:
    """Images of one size in rows, each with its label above it; small ones are enlarged by a whole number, pixel by pixel.

    Args:
        images: at least one.
        labels: as many.
        columns: images a row; by default as square a grid as there is.
    """
    columns = columns or round(len(images) ** 0.5 + 0.49)
    rows = -(-len(images) // columns)
    times = -(-CELL_WIDTH // images[0].width)
    width, height = images[0].width * times, images[0].height * times
    grid = Image.new("RGB", (columns * width, rows * (height + LABEL_HEIGHT)), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(size=16)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = i % columns * width, i // columns * (height + LABEL_HEIGHT)
        draw.text((x + 6, y + 5), label, fill="black", font=font)
        grid.paste(image.resize((width, height), Image.Resampling.NEAREST), (x, y + LABEL_HEIGHT))
    return grid


def save_png(image: Image.Image, path: Path, settings: dict[str, Any]) -> None:
    """Write a PNG with the settings as JSON in its text metadata, under `METADATA_KEY`."""
    info = PngInfo()
    info.add_text(METADATA_KEY, json.dumps(settings))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG", pnginfo=info)


def read_settings(path: Path) -> dict[str, Any]:
    """What `save_png` wrote.

    Raises:
        ValueError: for a file without it, or with something else in its place, and for one that is no image.
    """
    with open_image(path) as image:
        told = image.info.get(METADATA_KEY)
        if told is None:  # another program may have put it behind the image, which is then decoded
            told = getattr(image, "text", {}).get(METADATA_KEY)
    if told is None:
        raise ValueError(f"{path} does not say how it was made; give a PNG that imagen-diffusers wrote, and no program changed since")
    try:
        settings = json.loads(told)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} says {told[:40]} in place of settings; give a PNG that imagen-diffusers wrote")
    return settings
