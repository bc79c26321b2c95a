"""A folder's lists of its images, metadata.jsonl and metadata.csv: whether `datasets`, which names neither file nor line, can read them."""

import json
from collections.abc import Iterator
from pathlib import Path

from .damaged import unreadable
from .shards import is_hidden

CHUNK = 10_000  # lines at a time


def check_lists(folder: Path) -> None:
    """Refuse one that cannot be read by its name and line, before the first image is read.

    Raises:
        ValueError: also for a metadata.csv whose first lines have more fields than its header names: pandas, which `datasets` reads it by,
            takes the first of them for numbers of lines, and each other one for its neighbour.
    """
    for name, check in (("metadata.jsonl", _check_jsonl), ("metadata.csv", _check_csv)):
        for path in sorted(folder.rglob(name)):
            if not is_hidden(path.relative_to(folder)):
                check(path)


def _check_jsonl(path: Path) -> None:
    for number, line in _lines(path):
        try:
            row = json.loads(line.strip() or "{}")
        except ValueError as error:
            raise unreadable(f"line {number} of {path}", error) from None
        if not isinstance(row, dict):
            raise unreadable(f"line {number} of {path}", ValueError('it is no object, such as {"file_name": "0.png", "text": "a cube"}'))


def _check_csv(path: Path) -> None:
    import pandas

    for _ in _lines(path):
        pass
    try:
        for rows in pandas.read_csv(path, iterator=True, dtype=str, chunksize=CHUNK):
            if not isinstance(rows.index, pandas.RangeIndex):
                columns = ", ".join(rows.columns)
                raise ValueError(f"lines have more fields than {columns}, which the first one names; put texts with commas in quotes")
    except ValueError as error:  # pandas' own are of this kind, and name the line
        raise unreadable(str(path), error) from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise unreadable(f"line {number} of {path}", error) from None
