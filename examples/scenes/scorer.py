"""The bundled oracle as one scorer, and as one extractor, among those of an evaluation; the rows are those of `prompts.py`.

imagen-diffusers evaluate --scorer examples.scenes.scorer:judge --extractor examples.scenes.scorer:features
"""

import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from imagen_diffusers.evaluation.digests import file_digest
from imagen_diffusers.hub.places import bundled

from . import evaluate, oracle
from .evaluate import all_right, fine_right, same, stands_so
from .oracle import FEATURES, READ_SIZE, Oracle, load, objects_and_floors
from .prompts import KINDS
from .reading import Asked, asked_for
from .scene import Scene, Seen, scene_from

Looked = tuple[Tensor, Tensor, Tensor]  # maps, scores of floors, features
_last: tuple[weakref.ref, Looked] | None = None


class Judge:
    """What the oracle finds right in images of the rows' prompts."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {
            "oracle": file_digest(str(_folder() / "oracle.safetensors")),
            "source": file_digest(__file__),
            "reader": file_digest(oracle.__file__),
            "what is right": file_digest(evaluate.__file__),
        }

    def __call__(self, images: Tensor, rows: Sequence[dict[str, Any]]) -> dict[str, list]:
        """What is right, kind by kind, of images (B, 3, H, W) in [0, 1]: None of rows of other kinds.

        Raises:
            ValueError: for images that the oracle cannot read, and rows without a scene.
        """
        scenes, seen = [_scene(row, "scene") for row in rows], _read(images)
        others = [None if row.get("other_scene", "") is None else _scene(row, "other_scene") for row in rows]
        judged: dict[str, list] = {
            "every attribute and relation": [all_right(*pair) for pair in zip(scenes, seen, strict=True)],
            "the same, prompts shuffled": [other and all_right(other, found) for other, found in zip(others, seen, strict=True)],
            "number of objects": [len(scene.objects) == len(found) for scene, found in zip(scenes, seen, strict=True)],
            "an object's colour and shape": [_looks_right(*pair) for pair in zip(scenes, seen, strict=True)],
            "fine detail named in the prompt": [fine_right(*pair) for pair in zip(scenes, seen, strict=True)],
        }
        kinds = [row["kind"] for row in rows]
        by_kind = {
            f"{kind}: {name}": [value if own == kind else None for own, value in zip(kinds, values, strict=True)]
            for kind in KINDS
            for name, values in judged.items()
        }
        return {"prompts right": judged["every attribute and relation"], **by_kind}


judge = Judge()


def rate(images: Tensor, rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """How much is right of what prompts alone ask for, in the words of `captions.py`: to choose among images of one prompt.

        imagen-diffusers generate "a large red cube" --best-of 8 --scorer examples.scenes.scorer:rate

    Each named attribute and each relation counts one, and each object too many or too few takes one away.
    """
    return {"asked for and seen": [_rating(asked_for(row["prompt"]), seen) for row, seen in zip(rows, _read(images), strict=True)]}


class OracleFeatures:
    """Images (B, 3, H, W) in [0, 1], H and W at least 256, to what distances are taken over: (B, `width`).

    Of images of 1024px the features of windows of 256 pixels are averaged, so that detail counts.
    """

    name, width = "oracle", 2 * FEATURES

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"oracle": file_digest(str(_folder() / "oracle.safetensors")), "read_size": READ_SIZE}

    def __call__(self, images: Tensor) -> Tensor:
        if images.shape[-1] < 4 * READ_SIZE:
            if _last is not None and _last[0]() is images:
                return _last[1][2]
            _check_size(images)
            return _oracle().features(images.cpu() * 2 - 1)  # half of a look, where nothing is read
        found = _oracle().features(_windows(images).cpu() * 2 - 1)
        return found.reshape(len(images), -1, found.shape[-1]).mean(1)


features = OracleFeatures()


def _rating(asked: Asked, seen: list[Seen]) -> float:
    if not seen:
        return -float(len(asked.objects))
    alike = [[sum(getattr(one, name) == word for name, word in named.items()) for one in seen] for named in asked.objects]
    best = [seen[counts.index(max(counts))] for counts in alike]
    stands = sum(stands_so(word, best[0], other) for word, other in zip(asked.relations, best[1:], strict=True) if word)
    return float(sum(map(max, alike)) + stands - abs(len(seen) - len(asked.objects)))


def _looks_right(scene: Scene, seen: list[Seen]) -> list[bool]:
    return [any(same(o, one, ("shape", "color")) for one in seen) for o in scene.objects]


def _read(images: Tensor) -> list[list[Seen]]:
    maps, floors, _ = _looked_at(images)
    return [seen for seen, _ in objects_and_floors(maps, floors)]


def _looked_at(images: Tensor) -> Looked:
    """What the oracle makes of images, kept for the last ones: judge and features are asked of the same, one after the other."""
    global _last
    last = _last
    if last is None or last[0]() is not images:
        _check_size(images)
        _last = last = weakref.ref(images), _oracle().look(images.cpu() * 2 - 1)
    return last[1]


def _check_size(images: Tensor) -> None:
    if min(images.shape[-2:]) < READ_SIZE:
        raise ValueError(
            f"the oracle reads images of {READ_SIZE}px, and these are of {images.shape[-1]}x{images.shape[-2]}; "
            "sample the second stage as well, by --stop-at 2"
        )


def _windows(images: Tensor) -> Tensor:
    """(B, 3, H, W) as windows of 256 pixels, those of one image in a row."""
    cut = images.unfold(2, READ_SIZE, READ_SIZE).unfold(3, READ_SIZE, READ_SIZE)  # (B, 3, rows, columns, 256, 256)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def _scene(row: dict[str, Any], name: str) -> Scene:
    if name not in row:
        raise ValueError(f'a row has no "{name}", which the oracle looks for; write the rows by python -m examples.scenes.prompts')
    return scene_from(row[name])


def _folder() -> Path:
    return bundled("imagen-scenes") / "oracle"


@cache
def _oracle() -> Oracle:
    return load(_folder())
