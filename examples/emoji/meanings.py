"""More words for emoji to be trained by, from WordNet: those that mean what the name means, and what the dictionary says it is.

    python -m examples.emoji.meanings --folder runs/emoji --wordnet /usr/share/wordnet

prints what WordNet offers, of each thing the most usual meaning of a kind that fits it. `meanings.json` holds what a reader left of it:
often another thing has the same name, a card game or a tree. No word that the cascade is measured with, of `synonyms.json`, is in it.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from imagen_diffusers.finetuning.flags import run_script

from .dictionary import meanings_of, noun_of, read_nouns
from .synonyms import chosen, forms, words_of
from .things import Thing, read_things

KEPT = Path(__file__).with_name("meanings.json")
LONGEST = 15  # words of a meaning


@cache
def kept() -> dict[str, dict]:
    """By the name of a thing its "words" and its "meaning", which may be empty."""
    return json.loads(KEPT.read_text("utf-8"))


def with_meanings(things: Sequence[Thing]) -> list[Thing]:
    """The same things, those that are known with more words among their tags, and with a meaning."""
    described = []
    for thing in things:
        known = kept().get(thing.name)
        if known is not None:
            there = {thing.name.lower(), *(tag.lower() for tag in thing.tags)}
            new = [word for word in known["words"] if word.lower() not in there]
            thing = replace(thing, tags=(*thing.tags, *new), meaning=known["meaning"])
        described.append(thing)
    return described


def measured_words() -> set[str]:
    """Every word, in singular and plural, that prompts by other words hold."""
    return {form for words in chosen().values() for text in words for word in words_of(text) for form in forms(word)}


def candidates(things: Sequence[Thing], wordnet: Path) -> Iterator[tuple[str, list[str], str]]:
    """Names, the words that mean the same, and the meaning.

    Raises:
        OSError: where the folder holds no nouns of WordNet.
    """
    nouns, measured, names = read_nouns(wordnet), measured_words(), {thing.name.lower() for thing in things}
    for thing in things:
        for meaning in meanings_of(thing, nouns)[:1]:
            known = {noun_of(thing), *names, *(tag.lower() for tag in thing.tags)}
            new = [word for word in meaning.words if word.lower() not in known and not words_of(word) & measured]
            gloss = first_clause(meaning.gloss)
            fits = len(gloss.split()) <= LONGEST and not words_of(gloss) & measured
            yield thing.name, new, gloss if fits else ""


def first_clause(gloss: str) -> str:
    """ "domestic swine (of farms); raised for its meat" as "domestic swine"."""
    return re.sub(r"\s*\([^)]*\)", "", gloss).split(";")[0].split(":")[0].strip()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where things are")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="WordNet's dictionary")
    args = parser.parse_args(arguments)
    for name, words, meaning in candidates(read_things(args.folder), args.wordnet):
        print(f"{name}: {', '.join(words)} ({meaning})")


if __name__ == "__main__":
    run_script(main)
