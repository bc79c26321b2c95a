"""What is measured of images, group by group, and what a report makes of all groups.

Measuring is done by any process, once an image; figures are made by one, of all rows in order, so that they are the same bits however the
images were shared out.
"""

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .digests import file_digest
from .figures import Figure
from .groups import Measured
from .intervals import bootstrap, wilson
from .scorers import Judgement, Scorer

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
    """A scorer's judgements: shares of what is right, with Wilson's intervals, and means of numbers, bootstrapped.

    Args:
        name: of the scorer, in files.
        scorer: what judges; where it has no `fingerprint`, its source file's digest stands for it.
    """

    about = ""

    def __init__(self, name: str, scorer: Scorer):
        self.name, self.scorer = name, scorer
        source = inspect.getsourcefile(scorer if inspect.isroutine(scorer) else type(scorer))
        self.fingerprint = getattr(scorer, "fingerprint", None) or {"scorer": name, "source": file_digest(source)}

    def measure(self, images: Tensor, rows: Rows) -> Measured:
        judged = self.scorer(images, rows)
        for name, values in judged.items():
            if len(values) != len(images):
                raise ValueError(f'the scorer {self.name} gave {len(values)} values of "{name}" for {len(images)} images; give one each')
        return {f"{self.name}/{i:03d}/{name}": entries(values) for i, (name, values) in enumerate(judged.items())}

    def figures(self, measured: Measured, true: Measured | None = None) -> dict[str, Figure]:
        own = sorted(name for name in measured if name.startswith(f"{self.name}/"))  # by their numbers, as the scorer has them
        found = {name.split("/", 2)[2]: figure_of(measured[name]) for name in own}
        return {name: figure for name, figure in found.items() if figure.count}


def measure_all(metrics: Sequence[Metric], images: Tensor, rows: Rows) -> Measured:
    """What every metric measures of some images, which are read without gradients."""
    with torch.no_grad():
        return {name: values for metric in metrics for name, values in metric.measure(images, rows).items()}


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
    interval = wilson(right, count) if count else (0.0, 1.0)
    return Figure(right / count if count else float("nan"), *interval, count, share=True)


def _entry(judgement: Judgement) -> tuple[float, int, bool]:
    if judgement is None:
        return 0.0, 0, False
    if isinstance(judgement, Sequence):
        return float(sum(judgement)), len(judgement), False
    return float(judgement), 1, not isinstance(judgement, bool)
