"""Shards in a folder: which there are, and how `datasets` is to read them."""

import glob
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

KINDS = {".tar": "webdataset", ".parquet": "parquet"}  # and which builder of `datasets` reads them
LOOKED_AT = 100  # rows of the first tar shard, whose fields are read from all shards


def shards_in(folder: Path) -> list[Path]:
    """Those in a folder, of one kind."""
    return _of_one_kind(folder.glob("*"))


def shards_below(folder: Path) -> list[Path]:
    """Those in a folder and in folders in it, of one kind, but for what is hidden."""
    return _of_one_kind(path for path in folder.rglob("*") if not is_hidden(path.relative_to(folder)))


def is_hidden(path: Path) -> bool:
    """As macOS leaves a "._0.png" beside "0.png" on other systems' disks; of folders also those named as Python's own are."""
    return path.name.startswith(".") or any(part.startswith((".", "__")) for part in path.parts[:-1])


def reading_of(shards: Sequence[Path], image_columns: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """The arguments of `datasets.load_dataset` for shards.

    Args:
        shards: of one kind.
        image_columns: of tar shards, where any row may have an image under any of these names.
    """
    kind, arguments = KINDS[shards[0].suffix], {"data_files": {"train": [glob.escape(str(path)) for path in shards]}}
    return kind, arguments | ({"features": _features(shards[0], image_columns)} if kind == "webdataset" else {})


def _of_one_kind(paths: Iterable[Path]) -> list[Path]:
    there = sorted(path for path in paths if path.suffix in KINDS)
    kinds = [suffix for suffix in KINDS if any(path.suffix == suffix for path in there)]
    return [path for path in there if path.suffix == kinds[0]] if kinds else []


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
