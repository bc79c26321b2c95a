"""What there is to generate: things by name, each with its images: in skin tones, and in another style. Knows no pixels and no captions.

A folder of things holds `things.jsonl`, a line for each, and the images that it names in `images/`; larger ones under the same names may be
in `large/`. A line needs the fields `name` and `file`, {"name": "red apple", "file": "apple.png"}; others are those of `Thing`. So icons of
one's own are trained on in the same way.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from imagen_diffusers.training.folders import in_one_rename

LINES, IMAGES = "things.jsonl", "images"
LARGE = "large"  # beside the images: of some of them larger ones, under the same names
FLAGS, SYMBOLS = "flags", "symbols"
SOLID, FLAT = "3d", "flat"  # styles: that of a thing's own image, and the other one
UNSEEN_EVERY = 10  # of the things in both styles one is never trained in the second
# Words by which emoji of one drawing differ, and what stands for them.
GENDERS = dict.fromkeys(("man", "woman", "person", "men", "women", "people", "boy", "girl"), "") | {
    "merman": "merperson",
    "mermaid": "merperson",
    "prince": "ruler",
    "princess": "ruler",
}


@dataclass(frozen=True)
class Thing:
    """One emoji.

    Args:
        name: in words, "red apple".
        file: of its image, in the folder's `images`.
        tags: other words for it.
        meaning: what a dictionary says that it is.
        group: "animals-nature", "food-drink", ...
        mirrors: whether its mirror image is an image of the same.
        tones: of a person or a hand, the skin tones of which there are images, and their files.
        styles: the file of its image in another style, {"flat": "apple-flat.png"}.
    """

    name: str
    file: str
    tags: tuple[str, ...] = ()
    group: str = ""
    mirrors: bool = True
    tones: tuple[tuple[str, str], ...] = ()
    meaning: str = ""
    styles: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """All but those in another style."""
        return self.file, *(file for _, file in self.tones)


ONE_LINE = '{"name": "red apple", "file": "apple.png"}'
FIELDS = {one.name for one in fields(Thing)}


def unseen_in_flat(things: Sequence[Thing]) -> set[int]:
    """Numbers of the things that are never trained in the flat style: every tenth of those that have it.

    A thing that shares its name with another, or but for `GENDERS`, is not among them, since the other would show what it is like.
    """
    kinds = [" ".join(filter(None, (GENDERS.get(word, word) for word in thing.name.split()))) for thing in things]
    named = Counter(kinds)
    there = [number for number, thing in enumerate(things) if FLAT in thing.styles and named[kinds[number]] == 1]
    return {*there[::UNSEEN_EVERY]}


def image_path(folder: Path, file: str, *, large: bool = False) -> Path:
    """Of a thing's file in a folder; `large`, the larger image of the same name where there is one."""
    larger = folder / LARGE / file
    return larger if large and larger.exists() else folder / IMAGES / file


def trained_files(things: Sequence[Thing]) -> Iterator[tuple[Thing, str]]:
    """Every image that a cascade is trained on, with its thing."""
    unseen = unseen_in_flat(things)
    for number, thing in enumerate(things):
        styled = () if number in unseen else thing.styles.values()
        yield from ((thing, file) for file in (*thing.files, *styled))


def read_things(folder: Path) -> list[Thing]:
    """Those of a folder that `write_things` wrote, or of icons of one's own.

    Raises:
        OSError: where the folder holds none, a line is none, or an image is not there or cannot be read.
    """
    path = folder / LINES
    if not path.exists():
        raise OSError(
            f"{path} is not there; write it for icons of your own, a line for each ({ONE_LINE}); emoji are fetched into an empty folder by "
            f"`python -m examples.emoji.data --folder {folder}`"
        )
    things = [_from_line(f"line {number} of {path}", line) for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)]
    if not things:
        raise OSError(f"{path} is empty; it needs a line for each thing, {ONE_LINE}")
    for number, thing in enumerate(things, start=1):
        for file in (*thing.files, *thing.styles.values()):
            _check_image(f"line {number} of {path}", folder / IMAGES, file)
    return things


def _from_line(where: str, line: str) -> Thing:
    try:
        given = json.loads(line)
    except ValueError as error:
        raise OSError(f"{where} is no JSON ({error}); it needs a name and a file") from None
    wrong = _wrong_in(given)
    if wrong is not None:
        raise OSError(f"{where} is no thing: {wrong}")
    return Thing(**given | {"tags": tuple(given.get("tags", ())), "tones": tuple(map(tuple, given.get("tones", ())))})


def _wrong_in(given: Any) -> str | None:
    """What keeps the values of a line from being a thing, as a sentence, and None where nothing does."""
    if not isinstance(given, dict) or not {"name", "file"} <= given.keys() <= FIELDS:
        return f"it has to be an object with a name and a file, and may have {', '.join(sorted(FIELDS - {'name', 'file'}))}"
    for key in ("name", "file"):
        if not _is_text(given[key]):
            return f"its {key} is {given[key]!r}; give words"
    tags, tones, mirrors = given.get("tags", []), given.get("tones", []), given.get("mirrors", True)
    if not isinstance(tags, list) or not all(map(_is_text, tags)):
        return f'its tags are {tags!r}; give a list of words, ["fruit"]'
    if not isinstance(tones, list) or not all(isinstance(tone, list) and len(tone) == 2 and all(map(_is_text, tone)) for tone in tones):
        return f'its tones are {tones!r}; give a list of tones and files, [["dark", "dark.png"]]'
    styles = given.get("styles", {})
    if not isinstance(styles, dict) or not styles.keys() <= {FLAT} or not all(map(_is_text, styles.values())):
        return f'its styles are {styles!r}; give a file for the style "{FLAT}", {{"{FLAT}": "apple-flat.png"}}, or leave it out'
    if not isinstance(mirrors, bool) or not all(isinstance(given.get(key, ""), str) for key in ("group", "meaning")):
        return "mirrors is true or false, group a word, and meaning words"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _check_image(where: str, images: Path, file: str) -> None:
    if not (images / file).is_file():
        raise OSError(f"{where} names {file}, which is not in {images}")
    try:
        with Image.open(images / file):
            pass
    except UnidentifiedImageError:
        raise OSError(f"{where} names {file}, which is no image; give a PNG or a WebP with alpha") from None


def write_things(folder: Path, things: Sequence[Thing], images: Path) -> None:
    """Copy the images, but for those in another style, which are made in the folder, and write the lines last: so it is whole then."""
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    for thing in things:
        for file in thing.files:
            shutil.copyfile(images / file, folder / IMAGES / file)
    with in_one_rename(folder / LINES) as part:
        part.write_text("".join(json.dumps(asdict(thing)) + "\n" for thing in things))


def copy_things(source: Path, folder: Path) -> None:
    """All of a folder of things into another one, the lines last."""
    shutil.copytree(source / IMAGES, folder / IMAGES, dirs_exist_ok=True)
    if (source / LARGE).exists():
        shutil.copytree(source / LARGE, folder / LARGE, dirs_exist_ok=True)
    with in_one_rename(folder / LINES) as part:
        shutil.copyfile(source / LINES, part)
