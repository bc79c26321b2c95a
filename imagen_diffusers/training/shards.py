"""Shards in a folder: which there are, and how `datasets` is to read them."""

import glob
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

KINDS = {".tar": "webdataset", ".parquet": "parquet"}  # and which builder of `datasets` reads them
LOOKED_AT = 100  # rows of the first tar shard, whose fields are read from all shards


def has_shards(folder: Path) -> bool:
    """Whether there are any."""
    return any(_files(folder, suffix) for suffix in KINDS)


def shards_in(folder: Path, image_columns: Iterable[str]) -> tuple[str, dict[str, Any]] | None:
    """The arguments of `datasets.load_dataset` for the shards in a folder, of one kind; None where there are none.

    Args:
        folder: that holds them.
        image_columns: of tar shards, where any row may have an image under any of these names.
    """
    for suffix, kind in KINDS.items():
        files = _files(folder, suffix)
        if files:
            arguments: dict[str, Any] = {"data_files": {"train": [glob.escape(str(path)) for path in files]}}
            return kind, arguments | ({"features": _features(files[0], image_columns)} if kind == "webdataset" else {})
    return None


def _files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.glob(f"*{suffix}"))


def _features(shard: Path, image_columns: Iterable[str]) -> Any:
    """The images and texts of tar shards, by their endings.

    Left to itself, `datasets` goes by the first rows: it drops what only later ones have, images of another ending, too, and ends at
    a row whose metadata are of another type.
    """
    import datasets
    from datasets import packaged_modules as modules

    found = {}
    kinds = {*modules.imagefolder.ImageFolder.EXTENSIONS}
    rows = modules.webdataset.WebDataset._get_pipeline_from_tar(str(shard), datasets.DownloadManager().iter_archive(str(shard)))
    for name, value in (item for row in islice(rows, LOOKED_AT) for item in row.items()):
        if isinstance(value, bytes) and f".{name.rsplit('.', 1)[-1].lower()}" in kinds:
            found[name] = datasets.Image(decode=False)
        elif isinstance(value, str) and not name.startswith("__"):
            found[name] = datasets.Value("string")
        elif isinstance(value, list) and value and all(isinstance(text, str) for text in value):
            found[name] = datasets.List(datasets.Value("string"))
    if any(name in found for name in image_columns):
        found |= dict.fromkeys(image_columns, datasets.Image(decode=False))
    return datasets.Features(found)
