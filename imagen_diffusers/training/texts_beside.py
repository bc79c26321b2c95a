"""A folder of images whose captions are in .txt files beside them, `0.png` and `0.txt`, as many tools write them: its rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .damaged import unreadable
from .library import library

TEXTS = "images with .txt files"  # a kind of data beside those that `datasets` has
FILES = 64  # a stream of such rows has as many parts, which processes and workers divide among themselves


def has_texts(images: Sequence[Path]) -> bool:
    """Whether any of these images has its caption beside it."""
    return any(image.with_suffix(".txt").is_file() for image in images)


def rows_with_texts(images: Sequence[Path], *, streaming: bool) -> Any:
    """The images, their files unread, and their captions, in the order of their names; None for an image that has none.

    Raises:
        ValueError: for a caption that is no text in UTF-8.
    """
    datasets = library()
    paths = sorted(images)
    columns = {"image": [str(path.absolute()) for path in paths], "text": [_text(path.with_suffix(".txt")) for path in paths]}
    features = datasets.Features({"image": datasets.Image(decode=False), "text": datasets.Value("string")})
    rows = datasets.Dataset.from_dict(columns, features=features)
    rows.info.builder_name = "imagefolder"  # rows are paths, which another process passes over quickly
    return rows.to_iterable_dataset(num_shards=min(FILES, len(paths))) if streaming else rows


def _text(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise unreadable(str(path), error) from None
