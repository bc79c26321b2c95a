"""Files of prompts: a prompt a line, or a table with a column of them, such as an image folder's metadata.jsonl or DrawBench.csv."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

COLUMNS = ("prompt", "Prompts", "text", "caption")


def read_prompts(path: Path, column: str | None = None) -> list[dict[str, Any]]:
    """The rows of a file, first to last, each with its "prompt" and whatever else stands in it.

    Args:
        path: of a .jsonl or .csv table; any other file holds a prompt a line, and empty lines are passed over.
        column: of a table, where its prompts are; by default the first there of `COLUMNS`.

    Raises:
        ValueError: for a file without prompts, without the column, or that cannot be read as what its name says.
        OSError: for a file that is not there.
    """
    kind = path.suffix.lower()
    try:
        rows = {".jsonl": _json_lines, ".csv": _table}.get(kind, _lines)(path)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8; give a file of prompts, a .jsonl or a .csv") from None
    if not rows:
        raise ValueError(f"{path} holds no prompt; give a prompt a line, or a .jsonl or .csv with a column of them")
    name = _column(path, rows[0], column)
    told = [row.get(name) for row in rows]
    for number, prompt in enumerate(told, start=1):
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f'row {number} of {path} has {prompt!r} as its "{name}"; every row needs a prompt')
    return [{**row, "prompt": prompt} for row, prompt in zip(rows, told, strict=True)]


def digest(rows: list[dict[str, Any]]) -> str:
    """What changes with any of the rows."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _column(path: Path, first: dict[str, Any], column: str | None) -> str:
    names = [name for name in (COLUMNS if column is None else (column,)) if name in first]
    if not names:
        wanted = f'no column "{column}"' if column is not None else f"none of the columns {', '.join(COLUMNS)}"
        raise ValueError(f"{path} has {wanted}; it has {', '.join(first)}: name the one that holds the prompts by --column")
    return names[0]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [{"prompt": line.strip()} for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _table(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} of {path} is no JSON: {error}") from None
        if not isinstance(rows[-1], dict):
            raise ValueError(f'line {number} of {path} is no object; each line is one, such as {{"prompt": "a red cube"}}')
    return rows
