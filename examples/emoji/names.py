"""The two packages as things: which emoji there are, in which words, and which of them may be mirrored."""

import json
import re
from dataclasses import replace
from pathlib import Path

from .things import FLAGS, SYMBOLS, Thing

TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
COMPONENTS = "component"
UNWRITTEN = ("fe0f", "e007f")  # code points that ask for colour and that close a flag: some files' names lack them

# What has a left and a right, or letters, digits or the hands of a clock on it, or is another thing in a mirror.
ONE_WAY = re.compile(
    r"\b(left|right|waxing|waning|first quarter|last quarter|chart increasing|chart decreasing|globe|map\b"
    r"|clock|o’clock|watch|stopwatch|hourglass|calendar|abacus|newspaper|hundred points|keycap|zzz|sleeping face|face with symbols"
    r"|1st|2nd|3rd|bank|money|convenience store|slot machine|red envelope|e-mail|pager|musical)|-thirty$"
)
# Things are shown in one size, so that these words would tell apart what looks the same.
SIZE = re.compile(r"\b(large|medium-small|medium|small) (?=(orange |blue )?(square|diamond)\b)")
ONE_IMAGE = {"cat face": "grinning cat"}  # labels of one image, which have the second as their name and the first as a tag
THE = re.compile(
    r"(United|European Union|Bahamas|Comoros|Gambia|Isle of Man|Maldives|Netherlands|Philippines|Seychelles)|(?!South Georgia).*"
    r"( Republic| Islands| Territory| Territories)$"
)
# Tags that no one sees: what is said in a chat, and colours and sizes, which a background has or which do not show.
NOT_SEEN = re.compile(
    r"\.\.\.|abcd|adorbs|again|alces|awk|awww|bae|bff|brb|bro|bruh|cmon|cya|deja|fml|fosho|g2g|gbeng|gbsct|gbwls|gotta|gtg|homie|huh|"
    r"i’m|idk|ily|jel|know|later|let’s|litaf|lmao|lol|meh|mwah|nope|not|off|omg|omw|on!|out|outtie|over|rofl|roflmao|smh|sure|this|"
    r"thx|tmi|totally|ttfn|ttyl|ugh|uhh|up!|way|well|what|whatever|where|who|why|wtv|xoxo|yep|yes|yolo|you|yup|black|blue|brown|cyan|"
    r"gray|green|grey|indigo|orange|pink|purple|red|teal|white|yellow|big|heavy|large|little|medium|medium-small|outlined|small"
)


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
    known, groups = (json.loads(path.read_text("utf-8")) for path in lists)
    things = [_thing(entry, groups["groups"], files) for entry in known if code(entry["hexcode"]) in files]
    things = [thing for thing in things if thing.group not in ("", COMPONENTS)]
    if not things:
        raise OSError(f"none of the {len(files)} images of {emoji} has a name in {names}")
    taken = {thing.name.lower() for thing in things}
    return [replace(thing, tags=tuple(tag for tag in thing.tags if tag.lower() not in taken)) for thing in things]


def code(name: str) -> str:
    """Code points as names of files and of emojibase alike."""
    points = (point.lstrip("0") for point in re.split("[-_]", name.lower()))
    return "-".join(point for point in points if point not in UNWRITTEN)


def _thing(entry: dict, groups: dict[str, str], files: dict[str, str]) -> Thing:
    group = groups.get(str(entry.get("group")), "")
    skins = [skin for skin in entry.get("skins", ()) if isinstance(skin["tone"], int) and code(skin["hexcode"]) in files]
    return Thing(
        name=_in_words(entry["label"]),
        file=files[code(entry["hexcode"])],
        tags=tuple(tag for tag in (*entry.get("tags", ()), *ONE_IMAGE.keys() & {entry["label"]}) if _says_something(tag)),
        group=group,
        mirrors=group not in (FLAGS, SYMBOLS) and not ONE_WAY.search(entry["label"].lower()),
        tones=tuple((TONES[skin["tone"] - 1], files[code(skin["hexcode"])]) for skin in skins),
    )


def _says_something(tag: str) -> bool:
    return len(tag) > 2 and not tag.isdigit() and not NOT_SEEN.fullmatch(tag.lower())


def _in_words(label: str) -> str:
    """ "flag: Japan" is the flag of Japan, "man: blond hair" a man with blond hair, "man: bald" a bald man, and "keycap: 1" keycap 1."""
    head, colon, rest = SIZE.sub("", ONE_IMAGE.get(label, label)).partition(": ")
    if not colon:
        return head
    if head == "flag":
        return f"flag of the {rest}" if THE.match(rest) else f"flag of {rest}"
    if rest == "bald":
        return f"bald {head}"
    return head + (" " if head == "keycap" or rest.startswith("facing") else " with ") + rest
