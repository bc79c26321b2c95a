"""A row of a data set to an example: its image at the stage's sizes, and its caption."""

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from .damaged import Told
from .examples import Example
from .pyramid import ImageSettings, UnusableError, build_pyramid, check_size, cropped, cut, decode, nearest_shape, size_of

Numbered = tuple[int, dict[str, Any]]  # a row of a stream, and which one it is of those that its reader reads in the pass


@dataclass(frozen=True)
class Columns:
    """Where the image and its caption are in a row; `caption` is None where captions are not wanted.

    `cond` is where the conditioning image is, read with `cond_channels`, 1 (gray) or 3; None for none. `others` are where rows without an
    image at `image` may have it. `files` is a digest of the shards that rows are of, where they are of shards, and `told` gets what is
    wrong with these as they are read.
    """

    image: str
    caption: str | None
    cond: str | None = None
    cond_channels: int = 0
    others: tuple[str, ...] = ()
    files: str | None = None
    told: Told = field(default_factory=Told, compare=False)

    @property
    def images(self) -> list[str]:
        """All that hold images, once each."""
        return list(dict.fromkeys([self.image, *self.others, *([] if self.cond is None else [self.cond])]))

    @property
    def read(self) -> list[str]:
        """All that are read, once each."""
        return list(dict.fromkeys([*self.images, *([] if self.caption is None else [self.caption])]))

    def image_of(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The first of its images; None where it has none."""
        return next((row[column] for column in (self.image, *self.others) if row[column] is not None), None)


@dataclass(frozen=True)
class Pyramid:
    """An image at the stage's sizes, its captions, and its conditioning image at the first of these sizes."""

    levels: list[Tensor]
    captions: tuple[str, ...]
    cond: Tensor | None = None

    @property
    def whole(self) -> list[Tensor]:
        """All that windows are cut from, the conditioning image last."""
        return self.levels if self.cond is None else [*self.levels, self.cond]

    @property
    def size(self) -> int:
        return sum(level.numel() for level in self.whole)


@dataclass(frozen=True)
class RowReader:
    """Rows of a data set to examples."""

    columns: Columns
    settings: ImageSettings
    embed: Callable[[str], Tensor] | None
    prompt: str | None = None

    def pyramid(self, row: dict[str, Any], name: str, shape: int | None = None) -> Pyramid:
        """Cut to the `shape`-th of `settings.shapes`, by default the nearest.

        Raises `UnusableError`, which tells of the row by its image's path, or by `name` where there is none.
        """
        name = (self.columns.image_of(row) or {}).get("path") or name
        try:
            captions = self._captions(row)
            image = decode(file_of(self.columns.image_of(row)))
            levels = build_pyramid(image, self.settings, None if shape is None else self.settings.shapes[shape])
            return Pyramid(levels, captions, self._cond(row, image, levels[0]))
        except UnusableError as error:
            raise UnusableError(f"{name}: {error}") from None

    def bucket(self, row: dict[str, Any], name: str) -> int:
        """Which of `settings.shapes` is the nearest to the row's image, by its file's header.

        Raises `UnusableError`, as `pyramid`, where the header or the caption says that the row cannot be used.
        """
        name = (self.columns.image_of(row) or {}).get("path") or name
        try:
            self._captions(row)
            size = size_of(file_of(self.columns.image_of(row)))
            number = nearest_shape(size, self.settings.shapes)
            check_size(size, self.settings.shapes[number])
            return number
        except UnusableError as error:
            raise UnusableError(f"{name}: {error}") from None

    def example(self, pyramid: Pyramid, rng: np.random.Generator, skipped: list[str]) -> Example:
        """A window of it, and one of its captions where there are several; `rng` draws the window first."""
        levels = cut(pyramid.whole, self.settings, rng)
        example = Example(pixel_values=levels[0], skipped=skipped)
        if pyramid.cond is not None:
            example["cond_images"] = levels.pop()
        if len(levels) > 1:
            example["low_res"] = levels[1]
        count = len(pyramid.captions)
        caption = pyramid.captions[int(rng.integers(count)) if count > 1 else 0] if count else None
        if caption is not None and self.embed is not None:
            example["prompt_embeds"] = self.embed(caption)
        elif caption is not None:
            example["prompt"] = caption
        return example

    def _captions(self, row: dict[str, Any]) -> tuple[str, ...]:
        """Those of a row, or the one prompt for all rows; none where none are wanted."""
        if self.columns.caption is None:
            return () if self.prompt is None else (self.prompt,)
        captions = captions_in(row[self.columns.caption])
        if not captions:
            raise UnusableError(f"it has no caption ({self.columns.caption} is {row[self.columns.caption]!r})")
        lacking = [caption for caption in captions if isinstance(self.embed, Container) and caption not in self.embed]
        if lacking:
            raise UnusableError(f'the text cache lacks "{lacking[0]}"; `imagen-diffusers encode-text` adds what is new')
        return captions

    def _cond(self, row: dict[str, Any], image: Image.Image, level: Tensor) -> Tensor | None:
        """The conditioning image of a row, cropped and resized as its image was to `level`; None where no column is for it."""
        if self.columns.cond is None:
            return None
        try:
            cond = decode(file_of(row[self.columns.cond]))
            if cond.width * image.height != cond.height * image.width:
                raise UnusableError(f"it is {cond.width}x{cond.height}, of another shape than the image, {image.width}x{image.height}")
        except UnusableError as error:
            raise UnusableError(f"of its conditioning image: {error}") from None
        cond = cond.convert("L") if self.columns.cond_channels == 1 else cond
        return cropped(cond, (level.shape[-2], level.shape[-1]))


def captions_in(value: Any) -> tuple[str, ...]:
    """The texts of a row's caption column, which holds one, or a list, in which places may be empty; empty where it holds none."""
    texts = value if isinstance(value, list | tuple) else (value,)
    return tuple(text for text in texts if isinstance(text, str) and text.strip())


def as_next(buckets: list[int | None]) -> list[int]:
    """Every None replaced by the next number, the first one following the last."""
    known, filled = next((bucket for bucket in buckets if bucket is not None), 0), []
    for bucket in reversed(buckets):
        known = known if bucket is None else bucket
        filled.append(known)
    return filled[::-1]


def file_of(image: dict[str, Any] | None) -> bytes:
    """Of the image's file. Raises `UnusableError` where there is none."""
    if image is None or (image.get("bytes") is None and not image.get("path")):
        raise UnusableError("it has no image")
    if image.get("bytes") is not None:
        return image["bytes"]
    try:
        return Path(image["path"]).read_bytes()
    except OSError as error:
        raise UnusableError(f"its file cannot be read ({error.strerror or error})") from None
