"""Files of prompts: a prompt a line, or a table with a column of them, such as an image folder's metadata.jsonl or DrawBench.csv."""

import csv
import json
from pathlib import Path
from typing import Any

from .digests import text_digest

COLUMNS = ("prompt", "Prompts", "text", "caption")


def read_prompts(path: Path, column: str | None = None) -> list[dict[str, Any]]:
    """The rows of a file, first to last, each with its "prompt" and whatever else stands in it.

    Args:
        path: of a .jsonl, .csv or .tsv table; any other file but a .json holds a prompt a line, and empty lines are passed over.
        column: of a table, where its prompts are; by default the first there of `COLUMNS`.

    Raises:
        ValueError: for a file without prompts, without the column, or that cannot be read as what its name says.
        OSError: for a file that is not there.
    """
    kind = path.suffix.lower()
    if kind == ".json":
        raise ValueError(f"{path} is a .json, which is not read; give a prompt a line, a .jsonl with an object a line, a .csv or a .tsv")
    try:
        rows = {".jsonl": _json_lines, ".csv": _table, ".tsv": _table}.get(kind, _prompts)(path)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8; give a file of prompts, a .jsonl, a .csv or a .tsv") from None
    if not rows:
        raise ValueError(f"{path} holds no prompt; give a prompt a line, or a .jsonl or .csv with a column of them")
    name = _column(path, rows[0], column)
    told = [row.get(name) for row in rows]
    for number, prompt in enumerate(told, start=1):
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f'row {number} of {path} has {prompt!r} as its "{name}"; every row needs a prompt')
        if not prompt.isascii() and any("\ud800" <= character <= "\udfff" for character in prompt):
            raise ValueError(f"row {number} of {path} holds half a character ({prompt!r}); write it in UTF-8, or both halves of the escape")
    return [{**row, "prompt": prompt} for row, prompt in zip(rows, told, strict=True)]


def digest(rows: list[dict[str, Any]]) -> str:
    """What changes with any of the rows."""
    return text_digest(json.dumps(rows, sort_keys=True))


def _column(path: Path, first: dict[str, Any], column: str | None) -> str:
    names = [name for name in (COLUMNS if column is None else (column,)) if name in first]
    if not names:
        wanted = f'no column "{column}"' if column is not None else f"none of the columns {', '.join(COLUMNS)}"
        raise ValueError(f"{path} has {wanted}; it has {', '.join(first)}: name the one that holds the prompts by --column")
    return names[0]


def _lines(path: Path) -> list[str]:
    """By line feeds alone, as other separators of Unicode may stand within a prompt; a byte order mark is no part of the first."""
    return path.read_text(encoding="utf-8-sig").split("\n")


def _prompts(path: Path) -> list[dict[str, Any]]:
    return [{"prompt": line.strip()} for line in _lines(path) if line.strip()]


def _table(path: Path) -> list[dict[str, Any]]:
    is_csv = path.suffix.lower() == ".csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            rows = list(csv.DictReader(file, dialect="excel" if is_csv else "excel-tab"))
        except csv.Error as error:
            raise ValueError(f"{path} is no table that can be read ({error}); look for a quote that is not closed") from None
    for number, row in enumerate(rows, start=1):
        if None in row:  # under which csv puts what the header has no name for
            separator = "comma" if is_csv else "tab"
            raise ValueError(f"row {number} of {path} has more fields than the header; put a prompt that holds a {separator} in quotes")
    return rows


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} of {path} is no JSON: {error}") from None
        if not isinstance(rows[-1], dict):
            raise ValueError(f'line {number} of {path} is no object; each line is one, such as {{"prompt": "a red cube"}}')
    return rows
