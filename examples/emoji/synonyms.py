"""Other words for emoji's names, from WordNet, of which no caption holds one: what a cascade knows of them, its text encoder told it.

    python -m examples.emoji.synonyms --folder runs/emoji --wordnet /usr/share/wordnet

prints what the nouns of WordNet (Debian's package wordnet-base) offer for each thing, with the gloss that it stands under.
`synonyms.json` holds what a reader of the glosses took of it before any image was generated: words for what the image shows, each with all
things that it names, and no vulgar ones.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import NamedTuple

from imagen_diffusers.finetuning.flags import run_script

from .dictionary import meanings_of, noun_of, read_nouns
from .things import Thing, read_things

CHOSEN = Path(__file__).with_name("synonyms.json")
ALIKE = 0.75  # of difflib: from here on two words are spellings of one


class Candidate(NamedTuple):
    """Words that WordNet has for a thing, and what it says they mean."""

    name: str
    words: tuple[str, ...]
    gloss: str


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def caption_words(things: Sequence[Thing]) -> set[str]:
    """Every word that a caption may have for what is shown."""
    return {word for thing in things for text in (thing.name, *thing.tags, thing.meaning) for word in words_of(text)}


def unseen(text: str, known: set[str]) -> bool:
    """Whether none of its words is known, in singular or plural."""
    return not any(form in known for word in words_of(text) for form in forms(word))


def forms(word: str) -> Iterator[str]:
    """It, and what it may be in singular or plural."""
    yield from (word, word + "s", word + "es", word.removesuffix("s"), word.removesuffix("es"))
    yield from (re.sub("y$", "ies", word), re.sub("ies$", "y", word))


@cache
def chosen() -> dict[str, dict[str, list[str]]]:
    """Words of both kinds, "synonym" and "scientific name", each with the names of all things that it stands for."""
    return json.loads(CHOSEN.read_text())


def synonyms(kind: str, things: Sequence[Thing]) -> dict[str, list[Thing]]:
    """The words of a kind for these things; those that their captions hold are left out."""
    known, named = caption_words(things), {thing.name: thing for thing in things}
    there = {word: [named[name] for name in names if name in named] for word, names in chosen()[kind].items()}
    return {word: shown for word, shown in there.items() if shown and unseen(word, known)}


def candidates(things: Sequence[Thing], wordnet: Path) -> Iterator[Candidate]:
    """What WordNet offers for them: every set of synonyms, of a kind that fits the thing's group, with words that are unseen.

    Raises:
        OSError: where the folder holds no nouns of WordNet.
    """
    nouns, known = read_nouns(wordnet), caption_words(things)
    for thing in things:
        name = noun_of(thing)
        for _, words, gloss in meanings_of(thing, nouns):
            new = tuple(w for w in words if unseen(w, known) and SequenceMatcher(None, w.lower(), name).ratio() < ALIKE)
            if new:
                yield Candidate(thing.name, new, gloss)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where things are")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="WordNet's dictionary")
    args = parser.parse_args(arguments)
    for name, words, gloss in candidates(read_things(args.folder), args.wordnet):
        print(f"{name}: {', '.join(words)} ({gloss})")


if __name__ == "__main__":
    run_script(main)
