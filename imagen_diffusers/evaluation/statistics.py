"""Mean and covariance of features, gathered in a stream and shared as a file that says what the features are."""

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagen_diffusers.training.folders import in_one_rename

ROWS = 1024  # features that are added at a time


@dataclass(frozen=True)
class Statistics:
    """What a Frechet distance knows of a set of images, and, where they were kept, the features that a kernel distance asks for.

    Attributes:
        mean: (D,), float64.
        covariance: (D, D), float64, of the sample (divided by `count` - 1).
        count: of images.
        fingerprint: of the extractor; see `Extractor`. Plain values that JSON holds.
        features: (`count`, D), float32, or None.
    """

    mean: Tensor
    covariance: Tensor
    count: int
    fingerprint: dict[str, Any] = field(default_factory=dict)
    features: Tensor | None = None

    @classmethod
    def of(cls, features: Tensor, fingerprint: dict[str, Any] | None = None, *, keep_features: bool = False) -> "Statistics":
        """Of features (N, D), which may lie memory-mapped: a thousand rows are read at a time, in order."""
        running = RunningStatistics(features.shape[1])
        for rows in features.split(ROWS):
            running.add(rows)
        made = running.statistics(fingerprint)
        return cls(made.mean, made.covariance, made.count, made.fingerprint, features if keep_features else None)

    def save(self, path: Path) -> None:
        """As an .npz file, in one rename."""
        arrays = {"mean": self.mean.numpy(), "covariance": self.covariance.numpy(), "count": np.array(self.count)}
        arrays["fingerprint"] = np.array(json.dumps(self.fingerprint, sort_keys=True))
        if self.features is not None:
            arrays["features"] = self.features.numpy()
        with in_one_rename(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    @classmethod
    def load(cls, path: Path, fingerprint: dict[str, Any] | None = None) -> "Statistics":
        """What `save` wrote.

        Args:
            path: of the file.
            fingerprint: of the extractor in use; None to take the file's whatever it is.

        Raises:
            ValueError: for another file, and for statistics of another extractor, saying what differs.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            said = json.loads(str(arrays["fingerprint"]))
            tensors = {name: torch.from_numpy(arrays[name]) for name in ("mean", "covariance", "features") if name in arrays}
            made = cls(count=int(arrays["count"]), fingerprint=said, **tensors)
        except (EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} holds no statistics that say by which extractor they were made; "
                "give a file that `imagen-diffusers evaluate-stats` wrote, or a folder of true images"
            ) from error
        if fingerprint is not None:
            check_fingerprint(str(path), said, fingerprint)
        return made


def check_fingerprint(what: str, have: dict[str, Any], want: dict[str, Any]) -> None:
    """Refuse features of another extractor, another resize filter, or other versions of the libraries.

    Raises:
        ValueError: naming everything that differs.
    """
    differing = differences(have, want)
    if differing:
        raise ValueError(
            f"{what} was made by another extractor than the one in use: {differing}. Distances between the two mean nothing; "
            "make it again with this extractor, or use that one"
        )


def check_finite(features: Tensor) -> None:
    """Features (N, D), which may lie memory-mapped, must be numbers.

    Raises:
        ValueError: for others.
    """
    if not all(rows.isfinite().all() for rows in features.split(ROWS)):
        raise ValueError("features hold values that are not finite; look at the images, and at the extractor's weights")


def differences(have: dict[str, Any], want: dict[str, Any]) -> str:
    """What differs between two fingerprints, as words; "" where nothing does."""
    want = json.loads(json.dumps(want))  # as a file gives it back
    keys = [key for key in sorted({*have, *want}) if have.get(key) != want.get(key)]
    return "; ".join(f"{key} is {have.get(key)!r}, not {want.get(key)!r}" for key in keys)


class RunningStatistics:
    """Mean and covariance of rows that come in batches, in float64, without the cancellation of plain sums (Chan et al. 1979).

    Args:
        width: D of the rows.
    """

    def __init__(self, width: int):
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.scatter = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Rows (B, D) of one batch.

        Raises:
            ValueError: for values that are not finite.
        """
        rows = rows.double().cpu()
        check_finite(rows)
        mean = rows.mean(0)
        self._merge(len(rows), mean, (rows - mean).T @ (rows - mean))

    def add_statistics(self, statistics: Statistics) -> None:
        """Those of other rows."""
        self._merge(statistics.count, statistics.mean, statistics.covariance * (statistics.count - 1))

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total, gap = self.count + count, mean - self.mean
        self.mean = self.mean + gap * (count / total)
        self.scatter = self.scatter + scatter + gap.outer(gap) * (self.count * count / total)
        self.count = total

    def statistics(self, fingerprint: dict[str, Any] | None = None) -> Statistics:
        """Of all rows so far.

        Raises:
            ValueError: for fewer than two.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least two images; there is {self.count}")
        return Statistics(self.mean, self.scatter / (self.count - 1), self.count, fingerprint or {})


def merged(parts: Iterable[Statistics]) -> Statistics:
    """The statistics of all parts together, which are at least one."""
    parts = list(parts)
    running = RunningStatistics(len(parts[0].mean))
    for part in parts:
        running.add_statistics(part)
    return running.statistics(parts[0].fingerprint)
