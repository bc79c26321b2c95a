"""What is measured of images, group by group, and what a report makes of all groups.

Measuring is done by any process, once an image; figures are made by one, of all rows in order, so that they are the same bits however the
images were shared out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from .digests import source_digest
from .figures import Figure
from .groups import Measured
from .intervals import bootstrap, clustered
from .scorers import Judgement, Scorer, check_judged

T = TypeVar("T")
Rows = Sequence[dict[str, Any]]  # of prompts


class Metric(Protocol):
    """What an evaluation asks of a metric."""

    fingerprint: dict[str, Any]  # of all that decides what is measured
    about: str  # a sentence for the report; empty where the figures say it all

    def measure(self, images: Tensor, rows: Rows) -> Measured:
        """Of images (B, 3, H, W) in [0, 1] and the rows of their prompts; the names are this metric's alone."""
        ...

    def figures(self, measured: Measured, true: Measured | None = None) -> dict[str, Figure]:
        """Of what was measured of all images, in order.

        Args:
            measured: by all metrics, this one's among them.
            true: the same of the true images that these stand for, where there are any.
        """
        ...


class Judged:
    """A scorer's judgements: shares of what is right, with Wilson's intervals, and means of numbers, bootstrapped over images.

    Where an image has several judgements of what is right, they count as many as they are independent.

    Args:
        name: of the scorer, in files.
        scorer: what judges; where it has no `fingerprint`, its source file's digest stands for it.
    """

    about = ""

    def __init__(self, name: str, scorer: Scorer):
        self.name, self.scorer = name, scorer
        self.fingerprint = getattr(scorer, "fingerprint", None) or {"scorer": name, "source": source_digest(scorer, name)}

    def measure(self, images: Tensor, rows: Rows) -> Measured:
        judged = self.scorer(images, rows)
        check_judged(judged, f"the scorer {self.name}")
        for name, values in judged.items():
            if len(values) != len(images):
                raise ValueError(f'the scorer {self.name} gave {len(values)} values of "{name}" for {len(images)} images; give one each')
            if any(isinstance(value, float) and math.isnan(value) for value in values):
                raise ValueError(f'the scorer {self.name} gave nan as "{name}"; give None where there is nothing to judge')
        return {f"{self.name}/{i:03d}/{name}": entries(values) for i, (name, values) in enumerate(judged.items())}

    def figures(self, measured: Measured, true: Measured | None = None) -> dict[str, Figure]:
        own = sorted(name for name in measured if name.startswith(f"{self.name}/"))  # by their numbers, as the scorer has them
        found = {_judged(name): figure_of(measured[name]) for name in own}
        return {name: figure for name, figure in found.items() if figure.count}


def measure_all(metrics: Sequence[Metric], images: Tensor, rows: Rows) -> Measured:
    """What every metric measures of some images, which are read without gradients."""
    with torch.no_grad():
        measured = [metric.measure(images, rows) for metric in metrics]
    # The figures of judgements are known by now, and would otherwise be refused when all images are made.
    joined([dict.fromkeys(map(_judged, names)) for metric, names in zip(metrics, measured, strict=True) if isinstance(metric, Judged)])
    return joined(measured)


def all_figures(metrics: Sequence[Metric], measured: Measured, true: Measured | None = None) -> dict[str, Figure]:
    """The figures of every metric, as `Metric.figures` has them.

    Raises:
        ValueError: where two have one name.
    """
    return joined([metric.figures(measured, true) for metric in metrics])


def joined(parts: Sequence[Mapping[str, T]]) -> dict[str, T]:
    """All of these.

    Raises:
        ValueError: where two have one name, and one of them would be lost.
    """
    whole: dict[str, T] = {}
    for part in parts:
        twice = [name for name in part if name in whole]
        if twice:
            raise ValueError(f'two metrics call what they measure "{twice[0]}"; give one of them another name, or leave one out')
        whole.update(part)
    return whole


def entries(judgements: Sequence[Judgement]) -> Tensor:
    """As (B, 3) in float64: what is right, or the number; of how many; and 1 where it is a number."""
    return torch.tensor([_entry(one) for one in judgements], dtype=torch.float64)


def figure_of(entries: Tensor) -> Figure:
    """Of entries (N, 3): the share that is right, or the mean of the numbers."""
    if entries[:, 2].any():
        values = entries[entries[:, 1] > 0, 0]
        interval = bootstrap(values) if len(values) > 1 else (float("-inf"), float("inf"))
        return Figure(values.mean().item(), *interval, len(values))
    right, count = (int(n) for n in entries[:, :2].sum(0))
    if not count:
        return Figure(float("nan"), 0.0, 1.0, 0, share=True)
    judged = entries[entries[:, 1] > 0]
    return Figure(right / count, *clustered(judged[:, 0], judged[:, 1]), count, share=True)


def _judged(name: str) -> str:
    """What a scorer calls its judgement, of the name in a group's file."""
    return name.split("/", 2)[2]


def _entry(judgement: Judgement) -> tuple[float, int, bool]:
    if judgement is None:
        return 0.0, 0, False
    if isinstance(judgement, Sequence):
        return float(sum(judgement)), len(judgement), False
    return float(judgement), 1, not _is_truth(judgement)


def _is_truth(judgement: Any) -> bool:
    """Whether it is true or false, in Python's form, numpy's or torch's, and no number."""
    return isinstance(judgement, (bool, np.bool_)) or isinstance(judgement, Tensor) and judgement.dtype == torch.bool
