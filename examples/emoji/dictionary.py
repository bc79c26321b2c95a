"""WordNet's nouns: which words mean the same, what that is, and which of their meanings a thing may have."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .things import Thing

# The kinds of nouns, as WordNet's lexicographer files number them, that things of a group are.
KINDS = {
    "animals-nature": (5, 17, 19, 20),
    "food-drink": (6, 13, 20),
    "objects": (6,),
    "travel-places": (6, 15, 17, 19),
    "activities": (4, 6),
    "people-body": (8, 18),
    "smileys-emotion": (5, 8, 18),
}


class Meaning(NamedTuple):
    """One of a noun's: its kind, all words that have it, and what it is."""

    kind: int
    words: tuple[str, ...]
    gloss: str


Nouns = dict[str, list[Meaning]]


def read_nouns(wordnet: Path) -> Nouns:
    """By noun all its meanings, the usual ones first, as its index has them; see the manual page wndb(5WN).

    Raises:
        OSError: where the folder holds no nouns of WordNet.
    """
    for file in ("data.noun", "index.noun"):
        if not (wordnet / file).exists():
            raise OSError(f"{wordnet} holds no {file}; give WordNet's dictionary, /usr/share/wordnet of Debian's package wordnet-base")
    meanings: dict[str, Meaning] = {}
    for line in _entries(wordnet / "data.noun"):
        fields, gloss = line.split("|", 1)
        place, kind, _, count, *rest = fields.split()
        words = tuple(word.replace("_", " ") for word in rest[: 2 * int(count, 16) : 2])
        meanings[place] = Meaning(int(kind), words, gloss.strip())
    nouns: Nouns = {}
    for line in _entries(wordnet / "index.noun"):
        word, _, count, *rest = line.split()
        nouns[word.replace("_", " ")] = [meanings[place] for place in rest[-int(count) :]]
    return nouns


def _entries(path: Path) -> Iterator[str]:
    return (line for line in path.read_text().splitlines() if not line.startswith("  "))  # these are the licence


def meanings_of(thing: Thing, nouns: Nouns) -> list[Meaning]:
    """Those of its name, of a kind that fits its group."""
    return [meaning for meaning in nouns.get(noun_of(thing), ()) if meaning.kind in KINDS.get(thing.group, ())]


def noun_of(thing: Thing) -> str:
    """Its name as a dictionary has it."""
    return thing.name.lower().removesuffix(" face")
