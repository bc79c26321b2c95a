"""Things to captions, in several phrasings. This file knows names and no pixels.

The background is named most of the time, so that a prompt can ask for it or leave it open. The 3D style is named in all complete captions
and in half of the others; the flat one in all, so that what names no style asks for 3D.
"""

import numpy as np

from .articles import with_article
from .things import FLAT, SOLID, SYMBOLS, Thing

PLAIN = ("{}", "{}", "a picture of {}", "an emoji of {}")
STYLES = {
    SOLID: ("a 3d emoji of {}", "a fluent 3d rendering of {}", "{}, 3d emoji", "3d icon of {}"),
    FLAT: ("a flat emoji of {}", "a flat drawing of {}", "{}, flat emoji", "flat icon of {}"),
}
BACKGROUNDS = (" on {} background", " on {} background", ", {bare} background", " on {bare}", " in front of {} background")
# Of captions that leave something open. Names alone would be learned by heart, and nothing beside them understood.
BY_TAG, BY_MEANING, TAG_BESIDE = 0.4, 0.2, 0.15


def caption(
    thing: Thing,
    background: str,
    rng: np.random.Generator,
    *,
    tone: str | None = None,
    style: str = SOLID,
    complete: bool = False,
) -> str:
    """One caption; `rng` picks the phrasing.

    Args:
        thing: what is shown.
        background: its colour's name.
        tone: of the skin.
        style: of `STYLES`.
        complete: name the thing and its background, and leave nothing open.
    """
    word, tag = _word(thing, rng, complete)
    if tone is not None and (complete or rng.random() < 0.9):
        word += f" with {tone} skin tone"
    styled = complete or rng.random() < 0.5 or style != SOLID
    text = str(rng.choice(STYLES[style] if styled else PLAIN)).format(f"{word}, {tag}" if tag else word)
    if complete or rng.random() < 0.7:
        text += str(rng.choice(BACKGROUNDS)).format(with_article(background), bare=background)
    return text


def _word(thing: Thing, rng: np.random.Generator, complete: bool) -> tuple[str, str | None]:
    """The name, with its article or bare; where something is left open often a tag or the meaning in its place, or a tag beside it."""
    name = with_article(thing.name) if rng.random() < 0.6 and thing.group != SYMBOLS else thing.name
    if complete:
        return name, None
    chance, tag = rng.random(), str(rng.choice(thing.tags)) if thing.tags else None
    if tag is not None and chance < BY_TAG:
        return tag, None
    if thing.meaning and BY_TAG <= chance < BY_TAG + BY_MEANING:
        return thing.meaning, None
    return name, tag if chance > 1 - TAG_BESIDE else None
