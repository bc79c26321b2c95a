"""Prompts back to what they ask for: objects by the attributes that are named, and how the first stands to the others."""

import re
from typing import NamedTuple

from .captions import AFTERTHOUGHTS, ANY_RELATION, RELATION_PHRASES
from .scene import COLORS, MATERIALS, SHAPES, SIZES, TEXTURES

WORDS = {"shape": SHAPES, "color": COLORS, "material": MATERIALS, "size": SIZES, "texture": TEXTURES}
RELATIONS = {phrase: word for word, phrases in RELATION_PHRASES.items() for phrase in phrases}
SPLIT = re.compile(rf"\b({ANY_RELATION}|and(?= an? ))\b")
FLOOR = re.compile(r" on an? [a-z ]*floor$")


class Asked(NamedTuple):
    """What a prompt asks for.

    Args:
        objects: of each the attributes that are named, by name.
        relations: how the first stands to each of the others; None where they are only listed.
    """

    objects: list[dict[str, str]]
    relations: list[str | None]


def asked_for(prompt: str) -> Asked:
    """Of a prompt as `captions.caption` phrases them."""
    first, *others = SPLIT.split(FLOOR.sub("", prompt.lower().strip(" .")))
    return Asked([_named(text) for text in (first, *others[1::2])], [RELATIONS.get(phrase) for phrase in others[::2]])


def _named(text: str) -> dict[str, str]:
    for texture, phrase in AFTERTHOUGHTS.items():
        text = text.replace(phrase, texture)
    named = {}
    for attribute, words in WORDS.items():
        found = [word for word in sorted(words, key=len, reverse=True) if re.search(rf"\b{word}\b", text)]
        if found:
            named[attribute] = found[0]  # "finely striped" goes before "striped"
    return named
