"""What a scene is, and how one is sampled.

A scene is plain data: one to three objects on a floor under a light. `sample_scene(seed)` always returns the
same scene for the same seed. This file knows no pixels and no captions.

Axes: x to the right, y up, z away from the camera; the floor is y = 0; units are arbitrary ("a large object is
0.85 high from its centre").
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .camera import project, projected_length

# Of the scenes below: what is rendered, described or learned under one version does not fit another.
WORLD = 3

SHAPES = ("sphere", "cube", "cylinder", "cone")
PAINTS = {  # linear, as `Object.paint`
    "red": (0.80, 0.06, 0.06),
    "orange": (0.93, 0.40, 0.03),
    "yellow": (0.92, 0.82, 0.06),
    "green": (0.07, 0.55, 0.10),
    "cyan": (0.08, 0.72, 0.76),
    "blue": (0.06, 0.15, 0.78),
    "purple": (0.45, 0.08, 0.62),
    "white": (0.90, 0.90, 0.90),
}
COLORS = tuple(PAINTS)
MATERIALS = ("rubber", "metal")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "checkered", "finely striped", "dotted", "finely checkered")
COARSE_TEXTURES = TEXTURES[1:3]  # white bands and checks
FINE_TEXTURES = TEXTURES[3:]  # invisible at 64px by construction: only super-resolution can generate them
FLOOR_COLORS = ("gray", "brown", "green", "blue", "white")
FLOOR_PATTERNS = ("plain", "tiled", "checkered")
RELATIONS = ("left of", "right of", "in front of", "behind")

# These never occur together in a training image; a model that generates them composes what it learned apart.
HELD_OUT = (("red", "cone"), ("blue", "cylinder"), ("green", "sphere"), ("yellow", "cube"))

RADIUS = {"small": 0.55, "large": 0.85}
EXTENT_X, EXTENT_Z = (-1.45, 1.45), (-1.2, 1.7)
CLEARANCE = 0.15  # empty floor between two objects
DOMINANCE = 1.4  # "left of" needs |dx| >= 1.4 |dz|, so that a relation is never a matter of opinion
HIDDEN = 0.3  # share of an object's disc that another one may stand before
PLACINGS = 200  # three large objects fit rarely: after so many tries they get other looks

# Paint varies around its name, and some objects have one that no name fits. Without these, a colour in the image tells a network
# which shapes are possible, and it believes the colour more than the caption. Distances are between square roots, as the eye sees.
PAINT_JITTER = 0.07  # a channel, to either side
UNNAMED_DISTANCE = 0.25  # at least so far from every named paint, which reach out to 0.12
UNNAMED_SHARE = 0.25


@dataclass(frozen=True)
class Seen:
    """What can be seen of an object; `x`, `z` where it stands; `color` is None where no name fits."""

    shape: str
    color: str | None
    material: str
    size: str
    texture: str
    x: float
    z: float


@dataclass(frozen=True)
class Object(Seen):
    """One object; `yaw` its turn about the vertical in radians, `paint` its linear albedo."""

    yaw: float
    paint: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Objects (the first is the one a caption starts with), the floor, and where the light stands."""

    objects: tuple[Object, ...]
    floor_color: str
    floor_pattern: str
    light: tuple[float, float, float]


def scene_from(saved: dict[str, Any]) -> Scene:
    """The scene that `dataclasses.asdict` made these plain values of."""
    objects = tuple(Object(**{**o, "paint": tuple(o["paint"])}) for o in saved["objects"])
    return Scene(**{**saved, "objects": objects, "light": tuple(saved["light"])})


def relation(first: Object, second: Object) -> str | None:
    """How `first` stands to `second`, or None where no single word would be fair."""
    dx, dz = second.x - first.x, second.z - first.z
    if abs(dx) >= DOMINANCE * abs(dz):
        return "left of" if dx > 0 else "right of"
    if abs(dz) >= DOMINANCE * abs(dx):
        return "in front of" if dz > 0 else "behind"
    return None


def mirrored(scene: Scene) -> Scene:
    """Left and right exchanged: what the mirror image of its render shows."""
    objects = tuple(replace(o, x=-o.x, yaw=-o.yaw) for o in scene.objects)
    return replace(scene, objects=objects, light=(-scene.light[0], *scene.light[1:]))


def sample_scene(
    seed: int, *, num_objects: int | None = None, held_out: bool | None = False, unnamed_share: float = UNNAMED_SHARE
) -> Scene:
    """The scene of this seed.

    Args:
        seed: any non-negative integer.
        num_objects: 1, 2 or 3; drawn when None.
        held_out: False keeps to the training pairs of colour and shape; True makes the first object one of
            `HELD_OUT`; None allows every pair (for captions without images).
        unnamed_share: how many objects have a paint that no colour names; those of `held_out=True` have none.
    """
    rng = np.random.default_rng(seed)
    count = num_objects or int(rng.choice((1, 2, 3), p=(0.3, 0.5, 0.2)))
    if not 1 <= count <= 3:
        raise ValueError(f"num_objects is {num_objects}; a scene holds 1, 2 or 3")
    places = None
    looks: list[dict[str, str | None]] = []
    while places is None:
        looks = [_sample_look(rng, held_out and i == 0 if held_out is not None else None, unnamed_share) for i in range(count)]
        if len({(look["shape"], look["color"]) for look in looks}) == count:  # or a caption could not tell them apart
            places = _sample_places(rng, [RADIUS[str(look["size"])] for look in looks])
    paints = [_sample_paint(rng, look["color"]) for look in looks]
    objects = tuple(
        Object(**look, x=x, z=z, yaw=float(rng.uniform(0, np.pi / 2)), paint=paint)  # type: ignore[arg-type]
        for look, (x, z), paint in zip(looks, places, paints, strict=True)
    )
    light = (float(rng.uniform(-3.5, 3.5)), float(rng.uniform(5.5, 7.0)), float(rng.uniform(-4.0, -1.5)))
    return Scene(objects, str(rng.choice(FLOOR_COLORS)), str(rng.choice(FLOOR_PATTERNS)), light)


def hidden(texture: str, color: str | None) -> bool:
    """Whether nothing would be seen of a texture on a colour, so that no object has both."""
    return texture in COARSE_TEXTURES and color == "white"


def _sample_look(rng: np.random.Generator, held_out: bool | None, unnamed_share: float) -> dict[str, str | None]:
    pair = HELD_OUT[rng.integers(len(HELD_OUT))] if held_out else None
    while pair is None or (held_out is False and pair in HELD_OUT):
        color = None if rng.random() < unnamed_share and not held_out else str(rng.choice(COLORS))
        pair = (color, str(rng.choice(SHAPES)))
    texture = str(rng.choice(TEXTURES, p=(0.4, 0.12, 0.12, 0.12, 0.12, 0.12)))
    texture = "plain" if hidden(texture, pair[0]) else texture
    return {"color": pair[0], "shape": pair[1], "material": str(rng.choice(MATERIALS)), "size": str(rng.choice(SIZES)), "texture": texture}


def _sample_paint(rng: np.random.Generator, color: str | None) -> tuple[float, float, float]:
    """A paint around a named colour's, or one that no name fits."""
    if color is not None:
        root = np.sqrt(PAINTS[color]) + rng.uniform(-PAINT_JITTER, PAINT_JITTER, 3)
    else:
        named = np.sqrt(list(PAINTS.values()))
        root = named[0]
        while np.linalg.norm(named - root, axis=1).min() < UNNAMED_DISTANCE:
            root = rng.uniform(0.15, 0.95, 3)
    red, green, blue = (float(v) for v in root.clip(0.1, 0.97) ** 2)
    return red, green, blue


def _sample_places(rng: np.random.Generator, radii: list[float]) -> list[tuple[float, float]] | None:
    """Places where objects neither touch nor hide one another and the first has a clear relation to every other; None if none was found."""
    for _ in range(PLACINGS):
        xs, zs = rng.uniform(*EXTENT_X, len(radii)), rng.uniform(*EXTENT_Z, len(radii))
        if all(_places_fit(xs, zs, radii, i, j) for i in range(len(radii)) for j in range(i)):
            return [(float(x), float(z)) for x, z in zip(xs, zs, strict=True)]
    return None


def _places_fit(xs: np.ndarray, zs: np.ndarray, radii: list[float], i: int, j: int) -> bool:
    dx, dz = abs(xs[i] - xs[j]), abs(zs[i] - zs[j])
    apart = np.hypot(dx, 0.75 * dz) >= radii[i] + radii[j] + CLEARANCE  # depth is foreshortened: ask for more of it
    clear = j > 0 or max(dx, dz) >= DOMINANCE * min(dx, dz)
    return bool(apart and clear and _hidden_share(*((xs[k], zs[k], radii[k]) for k in (i, j))) <= HIDDEN)


def _hidden_share(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """The share of the farther object's disc in the image that the nearer one's covers; each is x, z and the radius."""
    (x0, y0, r0), (x1, y1, r1) = (_disc(*o) for o in sorted((one, other), key=lambda o: o[1]))
    d = math.hypot(x0 - x1, y0 - y1)
    if d >= r0 + r1:
        return 0.0
    if d <= abs(r0 - r1):
        return min(r0, r1) ** 2 / r1**2
    # Two circular segments, each a sector less its triangle.
    a0 = math.acos((d * d + r0 * r0 - r1 * r1) / (2 * d * r0))
    a1 = math.acos((d * d + r1 * r1 - r0 * r0) / (2 * d * r1))
    lens = r0 * r0 * (a0 - math.sin(a0) * math.cos(a0)) + r1 * r1 * (a1 - math.sin(a1) * math.cos(a1))
    return lens / (math.pi * r1 * r1)


def _disc(x: float, z: float, radius: float) -> tuple[float, float, float]:
    """The disc in an image of side 1 that stands for an object: centre and radius."""
    center = (x, 0.9 * radius, z)
    return *project(center, 1), projected_length(radius, center, 1)
