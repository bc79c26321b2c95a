"""What there is to generate: emoji by name, each with its image and those in skin tones. Knows no pixels and no captions.

A folder of things holds `things.jsonl`, a line for each, and the images that it names in `images/`. A line needs the fields `name` and
`file`, {"name": "red apple", "file": "apple.png"}; others are those of `Thing`. So icons of one's own are trained on in the same way.
"""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from imagen_diffusers.training.folders import in_one_rename

LINES, IMAGES = "things.jsonl", "images"
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
VARIATION = "fe0f"  # a code point that asks for colour, which some files' names hold and others do not
FLAGS, SYMBOLS, COMPONENTS = "flags", "symbols", "component"
# What has a left and a right, or letters, clocks and numbers on it.
ONE_WAY = re.compile(r"\b(left|right|clock|watch|o’clock|hourglass|calendar|newspaper|hundred points|zzz|keycap|globe|map\b|abacus)")


@dataclass(frozen=True)
class Thing:
    """One emoji.

    Args:
        name: in words, "red apple".
        file: of its image, in the folder's `images`.
        tags: other words for it.
        group: "animals-nature", "food-drink", ...
        mirrors: whether its mirror image is an image of the same.
        tones: of a person or a hand, the skin tones of which there are images, and their files.
    """

    name: str
    file: str
    tags: tuple[str, ...] = ()
    group: str = ""
    mirrors: bool = True
    tones: tuple[tuple[str, str], ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        return self.file, *(file for _, file in self.tones)


def read_things(folder: Path) -> list[Thing]:
    """Those of a folder that `write_things` wrote.

    Raises:
        OSError: where the folder holds none, a line is none, or an image is not there.
    """
    path = folder / LINES
    if not path.exists():
        raise OSError(f"{path} is not there; `python -m examples.emoji.data --folder {folder}` makes it")
    return [_from_line(number, line, folder) for number, line in enumerate(path.read_text().splitlines(), start=1)]


def _from_line(number: int, line: str, folder: Path) -> Thing:
    try:
        fields = json.loads(line)
        fields |= {"tags": tuple(fields.get("tags", ())), "tones": tuple(map(tuple, fields.get("tones", ())))}
        thing = Thing(**fields)
    except (ValueError, TypeError, AttributeError) as error:
        raise OSError(f"line {number} of {folder / LINES} is no thing ({error}); it needs a name and a file") from None
    for file in thing.files:
        if not (folder / IMAGES / file).is_file():
            raise OSError(f"line {number} of {folder / LINES} names {file}, which is not in {folder / IMAGES}")
    return thing


def write_things(folder: Path, things: Sequence[Thing], images: Path) -> None:
    """Write the lines last, so that a folder that has them is whole."""
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    for thing in things:
        for file in thing.files:
            shutil.copyfile(images / file, folder / IMAGES / file)
    with in_one_rename(folder / LINES) as part:
        part.write_text("".join(json.dumps(asdict(thing)) + "\n" for thing in things))


def named_things(emoji: Path, names: Path) -> list[Thing]:
    """Emoji of which there are an image and a name.

    Args:
        emoji: folder of the package with the images, named by code points.
        names: folder of emojibase-data.

    Raises:
        OSError: where one of them holds no images or no names, or not of the same emoji.
    """
    files = {code(path.stem): path.name for path in sorted((emoji / "assets").glob("*.webp"))}
    if not files:
        raise OSError(f"{emoji} holds no assets/*.webp; give the folder of the package of images as --emoji")
    lists = [names / part for part in ("en/data.json", "meta/groups.json")]
    if not all(path.exists() for path in lists):
        raise OSError(f"{names} holds no names (en/data.json and meta/groups.json); give the folder of emojibase-data as --names")
    known, groups = (json.loads(path.read_text()) for path in lists)
    things = [_thing(entry, groups["groups"], files) for entry in known if code(entry["hexcode"]) in files]
    things = [thing for thing in things if thing.group not in ("", COMPONENTS)]
    if not things:
        raise OSError(f"none of the {len(files)} images of {emoji} has a name in {names}")
    return things


def code(name: str) -> str:
    """Code points as names of files and of emojibase alike."""
    points = (point.lstrip("0") for point in re.split("[-_]", name.lower()))
    return "-".join(point for point in points if point != VARIATION)


def _thing(entry: dict, groups: dict[str, str], files: dict[str, str]) -> Thing:
    group = groups.get(str(entry.get("group")), "")
    skins = [skin for skin in entry.get("skins", ()) if isinstance(skin["tone"], int) and code(skin["hexcode"]) in files]
    return Thing(
        name=_in_words(entry["label"]),
        file=files[code(entry["hexcode"])],
        tags=tuple(tag for tag in entry.get("tags", ()) if len(tag) > 2),
        group=group,
        mirrors=group not in (FLAGS, SYMBOLS) and not ONE_WAY.search(entry["label"].lower()),
        tones=tuple((TONES[skin["tone"] - 1], files[code(skin["hexcode"])]) for skin in skins),
    )


def _in_words(label: str) -> str:
    """ "flag: Japan" is the flag of Japan, "man: blond hair" a man with blond hair, and "keycap: 1" keycap 1."""
    head, colon, rest = label.partition(": ")
    if not colon:
        return label
    return head + {"flag": " of ", "keycap": " "}.get(head, " " if rest.startswith("facing") else " with ") + rest
