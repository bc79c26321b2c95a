"""What a browser may ask for, and how its values are read: anybody may send anything in place of the page."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

SHOWN = 40  # characters of a value in a message


# What joins or parts the letters beside it, as in Persian, or stands within an emoji, and nothing that turns the order of text around.
JOINERS = frozenset(map(chr, (0x200C, 0x200D, *range(0xE0020, 0xE0080))))


@dataclass(frozen=True)
class Limits:
    """Of one server.

    Args:
        prompt_characters: of a prompt.
        images: of one request.
        file_bytes: of an image file that is dropped in.
        image_pixels: of such an image; more are not decoded.
        result_side: pixels of an enlarged image's longer side, so that one of 10000x1 is not worked on as 10000x128.
        waiting: requests in line behind the one at work; more are refused.
        stored_bytes, stored_files: of all that browsers sent and were sent, on the server's disk; the oldest files go first.
    """

    prompt_characters: int = 500
    images: int = 8
    file_bytes: int = 20 * 2**20
    image_pixels: int = 4096 * 4096
    result_side: int = 2048
    waiting: int = 20
    stored_bytes: int = 2 * 2**30
    stored_files: int = 2000


def read_text(name: str, value: Any, longest: int) -> str:
    """A text of at most `longest` characters, without blanks around it; None is an empty one.

    Raises:
        ValueError: for anything else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {shown(value)}; give a text")
    if len(value) > longest:
        raise ValueError(f"{name} has {len(value)} characters; give at most {longest}")
    if not value.isprintable() and any(not _is_text(c) for c in value):
        raise ValueError(f"{name} holds characters that cannot be shown; give plain text")
    return value.strip()


def _is_text(character: str) -> bool:
    return character.isprintable() or character.isspace() or character in JOINERS


def read_number(name: str, value: Any, least: float, most: float) -> float:
    """A number from `least` to `most`.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{name} is {shown(value)}; give a number from {least:g} to {most:g}")
    return float(value)


def read_whole(name: str, value: Any, least: int, most: int) -> int:
    """A whole number from `least` to `most`.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most or math.floor(value) != value:
        raise ValueError(f"{name} is {shown(value)}; give a whole number from {least} to {most}")
    return int(value)


def read_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """One of `choices`.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {shown(value)}; choose {' or '.join(choices)}")
    return value


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
