"""Shards, in a folder or by name: which there are, and how `datasets` is to read them."""

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .damaged import is_damage, unreadable
from .tar_rows import decoded, undecoded

KINDS = {".tar": "webdataset", ".parquet": "parquet"}  # and which builder of `datasets` reads them
LOOKED_AT = 100  # rows of the first tar shard, whose fields are read from all shards
NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")  # as shells write them, and WebDataset: {000..099}


def shards_in(folder: Path) -> list[Path]:
    """Those in a folder, of one kind, but for what is hidden."""
    return _of_one_kind(path for path in folder.glob("*") if not is_hidden(path.relative_to(folder)))


def shards_below(folder: Path) -> list[Path]:
    """Those in a folder and in folders in it, of one kind, but for what is hidden."""
    return _of_one_kind(path for path in folder.rglob("*") if not is_hidden(path.relative_to(folder)))


def is_hidden(path: Path) -> bool:
    """As macOS leaves a "._0.png" beside "0.png" on other systems' disks; of folders also those named as Python's own are."""
    return path.name.startswith(".") or any(part.startswith((".", "__")) for part in path.parts[:-1])


def names_shards(name: str) -> bool:
    """Whether a name is that of shards, as a path, a pattern or a URL, and not that of a folder or of a data set on the Hub."""
    return "://" in name or glob.has_magic(name) or NUMBERS.search(name) is not None or Path(name).suffix in KINDS


def reading_of(names: Sequence[str], image_columns: Iterable[str], kind: str | None = None) -> tuple[str, dict[str, Any]]:
    """The arguments of `datasets.load_dataset` for shards.

    Args:
        names: paths, patterns, or URLs that fsspec reads, in each of which {000..099} stands for a hundred; a file that is there by
            this very name is meant before what a pattern matches.
        image_columns: of tar shards, where any row may have an image under any of these names.
        kind: the builder of `datasets`, a value of `KINDS`; by default as the names of the files end.

    Raises:
        ValueError: where no file has one of the names, and for files of two kinds or of another one.
    """
    files = found(names)
    kind = kind or _kind_of(files)
    return kind, {"data_files": {"train": files}} | ({"features": _features(files[0], image_columns)} if kind == "webdataset" else {})


def found(names: Sequence[str]) -> Any:
    """The files of these names, as a `DataFilesList`, which `datasets` does not look for again.

    Raises:
        ValueError: naming what is not there.
    """
    from datasets.data_files import DataFilesList

    files = DataFilesList([], [])
    for name in (single for given in names for single in _patterns(given)):
        try:
            there = DataFilesList.from_patterns([name])
        except FileNotFoundError:
            there = DataFilesList([], [])
        if not there:
            raise ValueError(f"data_files: no file matches {name}")
        files = files + there  # += would leave out the versions, by which `datasets` knows a file that was written anew
    return files


def digest_of(files: Any) -> str:
    """Of the names and sizes of a `DataFilesList`, unread; of files elsewhere of what their servers tell of a version, but for the Hub's,
    where each commit is one.
    """
    told = []
    for file, version in zip(files, files.origin_metadata, strict=True):
        name = file.partition("?")[0].rsplit("/", 1)[-1]
        told.append((name, os.path.getsize(file) if "://" not in file else version if not file.startswith("hf:") else None))
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()


def _patterns(name: str) -> list[str]:
    """For `datasets`: of what is there by this very name, whatever it contains, and otherwise of a pattern or a URL."""
    return [glob.escape(name)] if "://" not in name and os.path.exists(name) else _numbered(name)


def _numbered(name: str) -> list[str]:
    """One name for each of the numbers between braces, with as many digits as the first; without braces the name itself."""
    braces = NUMBERS.search(name)
    if braces is None:
        return [name]
    first, last = braces.groups()
    numbers = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    return [each for number in numbers for each in _numbered(name[: braces.start()] + number + name[braces.end() :])]


def _kind_of(files: Sequence[str]) -> str:
    endings = {Path(file.partition("?")[0] if "://" in file else file).suffix: file for file in files}
    kinds = {KINDS.get(ending) for ending in endings}
    if len(kinds) > 1 or None in kinds:
        raise ValueError(
            f"data_files are {', '.join(list(endings.values())[:2])}; give Parquet files (.parquet) or shards of WebDataset (.tar), all of "
            "one kind, or say with dataset_name which builder of `datasets` reads them (webdataset, parquet, ...)"
        )
    return KINDS[next(iter(endings))]


def _of_one_kind(paths: Iterable[Path]) -> list[Path]:
    there = sorted(path for path in paths if path.suffix in KINDS)
    kinds = [suffix for suffix in KINDS if any(path.suffix == suffix for path in there)]
    return [path for path in there if path.suffix == kinds[0]] if kinds else []


def _features(shard: str, image_columns: Iterable[str]) -> Any:
    """The images and texts of tar shards, by their endings.

    Left to itself, `datasets` goes by the first rows: it drops what only later ones have, images of another ending, too, and ends at
    a row whose metadata are of another type.
    """
    import datasets
    from datasets import packaged_modules as modules

    found = {}
    kinds = {*modules.imagefolder.ImageFolder.EXTENSIONS}
    for name, value in (item for row in _first_rows(shard) for item in row.items()):
        if isinstance(value, bytes) and f".{name.rsplit('.', 1)[-1].lower()}" in kinds:
            found[name] = datasets.Image(decode=False)
        elif isinstance(value, str) and not name.startswith("__"):
            found.setdefault(name, datasets.Value("string"))  # a list of one, where others are lists
        elif isinstance(value, list) and value and all(isinstance(text, str) for text in value):
            found[name] = datasets.List(datasets.Value("string"))
    if any(name in found for name in image_columns):
        found |= dict.fromkeys(image_columns, datasets.Image(decode=False))
    return datasets.Features(found)


def _first_rows(shard: str) -> list[dict[str, Any]]:
    """Of a tar shard, as far as it can be read."""
    import datasets

    archive, rows = datasets.StreamingDownloadManager().iter_archive(shard), []
    try:
        for row in islice(undecoded(shard, archive), LOOKED_AT):
            rows.append({name: decoded(value) for name, value in row.items()})
    except Exception as error:
        if not is_damage(error):
            raise
        if not rows:
            raise unreadable(shard, error) from None
    return rows
