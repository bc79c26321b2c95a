"""Images of more seeds than are kept, and a scorer that finds the best of them."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import typer

if TYPE_CHECKING:
    from imagen_diffusers.evaluation.scorers import Judgement

Chooser = Callable[[list, Sequence[int]], list[int]]


class Best(NamedTuple):
    """Which images are kept.

    Args:
        of: how many are generated, each with a seed of its own.
        scorer: what finds the best, by its name.
    """

    of: int
    scorer: str

    def chooser(self, prompt: str, count: int) -> Chooser:
        """What says, of images and their seeds, how each was judged, and which are kept: the numbers of the `count` best, the best first.

        Raises:
            ValueError: for more images than are generated, and for a scorer that is not there.
        """
        if count > self.of:
            raise ValueError(f"--best-of is {self.of}, of which {count} images cannot be kept; give a larger one, or ask for fewer")
        from imagen_diffusers.evaluation.ranking import best_first, judge
        from imagen_diffusers.evaluation.scorers import load_scorer

        scorer = load_scorer(self.scorer)

        def choose(images: list, seeds: Sequence[int]) -> list[int]:
            judged = judge(images, prompt, scorer)
            order = best_first(judged)
            for i in order:
                typer.echo(f"seed {seeds[i]}: {', '.join(f'{name} {said(values[i])}' for name, values in judged.items())}")
            return order[:count]

        return choose


def said(judgement: "Judgement") -> str:
    """A judgement in words."""
    if judgement is None or not isinstance(judgement, Sequence) and math.isnan(judgement):
        return "not judged"
    if isinstance(judgement, Sequence):
        return f"{sum(judgement)} of {len(judgement)}"
    truth = isinstance(judgement, bool) or "bool" in str(getattr(judgement, "dtype", ""))  # numpy's and torch's have other classes
    return ("yes" if judgement else "no") if truth else f"{float(judgement):.4g}"
