"""More words for emoji to be trained by, from WordNet: those that mean what the name means, and what the dictionary says it is.

A word that the cascade is measured with, of `synonyms.json`, is in none of them.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .dictionary import meanings_of, noun_of, read_nouns
from .synonyms import chosen, forms, words_of
from .things import Thing

LONGEST = 15  # words of a meaning


def with_meanings(things: Sequence[Thing], wordnet: Path) -> list[Thing]:
    """The same things, those that WordNet knows with its words among their tags, and with its meaning.

    Raises:
        OSError: where the folder holds no nouns of WordNet.
    """
    nouns = read_nouns(wordnet)
    measured = {form for words in chosen().values() for text in words for word in words_of(text) for form in forms(word)}
    taken = {thing.name.lower() for thing in things}
    described = []
    for thing in things:
        meaning = next(iter(meanings_of(thing, nouns)), None)  # the most usual one
        if meaning is not None:
            known = {noun_of(thing), *taken, *(tag.lower() for tag in thing.tags)}
            new = (word for word in meaning.words if word.lower() not in known and not words_of(word) & measured)
            gloss = first_clause(meaning.gloss)
            fits = len(gloss.split()) <= LONGEST and not words_of(gloss) & measured
            thing = replace(thing, tags=(*thing.tags, *new), meaning=gloss if fits else "")
        described.append(thing)
    return described


def first_clause(gloss: str) -> str:
    """ "domestic swine (of farms); raised for its meat" as "domestic swine"."""
    return re.sub(r"\s*\([^)]*\)", "", gloss).split(";")[0].split(":")[0].strip()
