"""Scenes to captions, in several phrasings. This file knows scenes and no pixels.

Attributes are named most of the time, so that the model learns to fill in what a prompt leaves open, and what colour and
shape mean without each other; `complete=True` names them all (but a paint that no colour names), which is what a score needs.
"""

import numpy as np

from .scene import Object, Scene, relation

PREFIXES = ("", "", "", "there is ", "a picture of ", "a photo of ", "a rendering of ")
RELATION_PHRASES = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "in front of": ("in front of", "standing in front of", "before"),
    "behind": ("behind", "standing behind", "in back of"),
}
ANY_RELATION = "|".join(sorted((p for phrases in RELATION_PHRASES.values() for p in phrases), key=len, reverse=True))  # as a pattern
AFTERTHOUGHTS = {"finely striped": "with fine stripes", "dotted": "with dots", "finely checkered": "with engraved checks"}


def caption(scene: Scene, rng: np.random.Generator, *, complete: bool = False, brief: bool = False) -> str:
    """One caption of a scene; `rng` picks the phrasing, and which attributes to leave out unless `complete`; if `brief`, most of them."""
    phrases = [describe(o, rng, complete=complete, brief=brief) for o in scene.objects]
    text = str(rng.choice(PREFIXES)) + phrases[0]
    for other, phrase in zip(scene.objects[1:], phrases[1:], strict=True):
        word = relation(scene.objects[0], other)
        assert word is not None, "scenes are drawn so that the first object has a clear relation to every other"
        joint = " and " if other is scene.objects[-1] and len(phrases) > 2 else " "
        text += joint + str(rng.choice(RELATION_PHRASES[word])) + " " + phrase
    return text + (_floor(scene, rng, complete) if complete or rng.random() < (0.3 if brief else 0.6) else "")


def swapped(scene: Scene) -> Scene:
    """The same scene told the other way round, where it holds two objects: A left of B, B right of A."""
    if len(scene.objects) != 2:
        return scene
    return Scene(scene.objects[::-1], scene.floor_color, scene.floor_pattern, scene.light)


def describe(o: Object, rng: np.random.Generator, *, complete: bool, brief: bool = False) -> str:
    """A noun phrase: "a large red metal sphere with dots"."""

    def named(probability: float) -> bool:
        return complete or rng.random() < probability

    more = 0.2 if brief else 0.7  # what colour and shape are named without
    after = o.texture in AFTERTHOUGHTS and rng.random() < 0.5
    texture = named(0.25 if o.texture == "plain" else more + 0.2) and not (complete and o.texture == "plain")
    words = [
        o.size if named(more) else "",
        o.texture if texture and not after else "",
        o.color if o.color and named(0.9) else "",
        o.material if named(more) else "",
        o.shape if named(0.95) else "object",
        AFTERTHOUGHTS[o.texture] if texture and after else "",
    ]
    return _with_article(" ".join(w for w in words if w))


def listing(scene: Scene) -> str:
    """The objects by colour and shape alone: "a red cube and an orange sphere"."""
    return " and ".join(_with_article(f"{o.color} {o.shape}") for o in scene.objects)


def facts(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Short statements that follow from a complete caption, in random order: "the red cube is large", "the floor is gray"."""
    told = [f"the floor is {scene.floor_color}"] if rng.random() < 0.3 else []
    for o in scene.objects:
        alone = sum(other.shape == o.shape for other in scene.objects) == 1
        by_shape = alone and rng.random() < 0.7
        name = f"the {o.shape}" if by_shape else _name(o)
        told.append(f"{name} is {rng.choice((o.size, o.material, o.texture))}")
        if by_shape and o.color:
            told += [f"{name} is {o.color}"] * 2
        for other in scene.objects:
            word = None if other is o else relation(o, other)
            if word is not None:
                told.append(f"{name} is {word} {_name(other)}")
    return [told[i] for i in rng.permutation(len(told))]


def _with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _name(o: Object) -> str:
    return " ".join(w for w in ("the", o.color, o.shape) if w)


def _floor(scene: Scene, rng: np.random.Generator, complete: bool) -> str:
    pattern = scene.floor_pattern
    named = rng.random() < 0.25 if pattern == "plain" else complete or rng.random() < 0.85
    return f" on a {scene.floor_color} {pattern + ' ' if named else ''}floor"
