"""What a scene is, and how one is drawn at random.

A scene is plain data: one to three objects on a floor under a light. `sample_scene(seed)` always returns the
same scene for the same seed. This file knows no pixels and no words.

Axes: x to the right, y up, z away from the camera; the floor is y = 0; units are arbitrary ("a large object is
0.8 high from its centre").
"""

from dataclasses import dataclass, replace

import numpy as np

SHAPES = ("sphere", "cube", "cylinder", "cone")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
MATERIALS = ("rubber", "metal")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "checkered", "finely striped", "dotted", "finely checkered")
FINE_TEXTURES = TEXTURES[3:]  # invisible at 64px by construction: only super-resolution can draw them
FLOOR_COLORS = ("gray", "brown", "green", "blue", "white")
FLOOR_PATTERNS = ("plain", "tiled", "checkered")
RELATIONS = ("left of", "right of", "in front of", "behind")

# These never occur together in training; a model that draws them composes what it learned apart.
HELD_OUT = (("red", "cone"), ("blue", "cylinder"), ("green", "sphere"), ("yellow", "cube"))

RADIUS = {"small": 0.45, "large": 0.8}
EXTENT_X, EXTENT_Z = (-1.75, 1.75), (-1.5, 2.1)
CLEARANCE = 0.15  # empty floor between two objects
DOMINANCE = 1.4  # "left of" needs |dx| >= 1.4 |dz|, so that a relation is never a matter of opinion


@dataclass(frozen=True)
class Seen:
    """What can be seen of an object; `x`, `z` where it stands."""

    shape: str
    color: str
    material: str
    size: str
    texture: str
    x: float
    z: float


@dataclass(frozen=True)
class Object(Seen):
    """One object; `yaw` its turn about the vertical in radians."""

    yaw: float


@dataclass(frozen=True)
class Scene:
    """Objects (the first is the one a caption starts with), the floor, and where the light stands."""

    objects: tuple[Object, ...]
    floor_color: str
    floor_pattern: str
    light: tuple[float, float, float]


def relation(first: Object, second: Object) -> str | None:
    """How `first` stands to `second`, or None where no single word would be fair."""
    dx, dz = second.x - first.x, second.z - first.z
    if abs(dx) >= DOMINANCE * abs(dz):
        return "left of" if dx > 0 else "right of"
    if abs(dz) >= DOMINANCE * abs(dx):
        return "in front of" if dz > 0 else "behind"
    return None


def mirrored(scene: Scene) -> Scene:
    """Left and right exchanged: what the mirror image of its picture shows, up to the turn of a cube."""
    objects = tuple(replace(o, x=-o.x, yaw=-o.yaw) for o in scene.objects)
    return replace(scene, objects=objects, light=(-scene.light[0], *scene.light[1:]))


def sample_scene(seed: int, *, num_objects: int | None = None, held_out: bool = False) -> Scene:
    """The scene of this seed.

    Args:
        seed: any non-negative integer.
        num_objects: 1, 2 or 3; drawn when None.
        held_out: False keeps to the training pairs of colour and shape; True makes the first object one of
            `HELD_OUT`.
    """
    rng = np.random.default_rng(seed)
    count = num_objects or int(rng.choice((1, 2, 3), p=(0.3, 0.5, 0.2)))
    if not 1 <= count <= 3:
        raise ValueError(f"num_objects is {num_objects}; a scene holds 1, 2 or 3")
    looks = [_sample_look(rng, held_out and i == 0) for i in range(count)]
    while len({(look["shape"], look["color"]) for look in looks}) < count:  # or a caption could not tell them apart
        looks[1:] = [_sample_look(rng, False) for _ in looks[1:]]
    places = _sample_places(rng, [RADIUS[look["size"]] for look in looks])
    objects = tuple(Object(**look, x=x, z=z, yaw=float(rng.uniform(0, np.pi / 2))) for look, (x, z) in zip(looks, places, strict=True))
    light = (float(rng.uniform(-3.5, 3.5)), float(rng.uniform(5.5, 7.0)), float(rng.uniform(-4.0, -1.5)))
    return Scene(objects, str(rng.choice(FLOOR_COLORS)), str(rng.choice(FLOOR_PATTERNS)), light)


def _sample_look(rng: np.random.Generator, held_out: bool) -> dict[str, str]:
    pair = HELD_OUT[rng.integers(len(HELD_OUT))] if held_out else None
    while pair is None or (not held_out and pair in HELD_OUT):
        pair = (str(rng.choice(COLORS)), str(rng.choice(SHAPES)))
    texture = str(rng.choice(TEXTURES, p=(0.4, 0.12, 0.12, 0.12, 0.12, 0.12)))
    return {"color": pair[0], "shape": pair[1], "material": str(rng.choice(MATERIALS)), "size": str(rng.choice(SIZES)), "texture": texture}


def _sample_places(rng: np.random.Generator, radii: list[float]) -> list[tuple[float, float]]:
    """Rejection sampling of places that do not touch, where the first object has a clear relation to each other one."""
    while True:
        xs, zs = rng.uniform(*EXTENT_X, len(radii)), rng.uniform(*EXTENT_Z, len(radii))
        if all(_places_fit(xs, zs, radii, i, j) for i in range(len(radii)) for j in range(i)):
            return [(float(x), float(z)) for x, z in zip(xs, zs, strict=True)]


def _places_fit(xs: np.ndarray, zs: np.ndarray, radii: list[float], i: int, j: int) -> bool:
    dx, dz = abs(xs[i] - xs[j]), abs(zs[i] - zs[j])
    apart = np.hypot(dx, 0.75 * dz) >= radii[i] + radii[j] + CLEARANCE  # depth is foreshortened: ask for more of it
    return bool(apart and (j > 0 or max(dx, dz) >= DOMINANCE * min(dx, dz)))
