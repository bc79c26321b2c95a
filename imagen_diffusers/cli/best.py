"""Images of more seeds than are kept, and a scorer that finds the best of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

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

    def chooser(self, prompt: str | None, count: int) -> Chooser:
        """What says, of images and their seeds, how each was judged, and which are kept: the numbers of the `count` best, the best first.

        A scorer of one's own reads an empty prompt where there is none.

        Raises:
            ValueError: for more images than are generated, for a scorer that is not there, and for a CLIP without a prompt.
        """
        if count > self.of:
            raise ValueError(f"--best-of is {self.of}, of which {count} images cannot be kept; give a larger one, or ask for fewer")
        from imagen_diffusers.evaluation.ranking import best_first, judge
        from imagen_diffusers.evaluation.scorers import is_own, load_scorer

        if prompt is None and not is_own(self.scorer):
            raise ValueError(
                f'--scorer "{self.scorer}" is a CLIP, which compares images with a prompt, and there is none; give module:name of '
                "a function that judges images alone"
            )
        scorer = load_scorer(self.scorer)

        def choose(images: list, seeds: Sequence[int]) -> list[int]:
            judged = judge(images, prompt or "", scorer)
            order = best_first(judged)
            for i in order:
                typer.echo(f"seed {seeds[i]}: {', '.join(f'{name} {said(values[i])}' for name, values in judged.items())}")
            return order[:count]

        return choose


@dataclass(frozen=True)
class BestOptions:
    """Of how many images which are kept."""

    best_of: Annotated[int | None, typer.Option(min=2, help="Make so many, and keep those that --scorer finds best.")] = None
    scorer: Annotated[str | None, typer.Option(help="For --best-of: folder or Hub id of a CLIP, or module:name of what judges images.")] = (
        None
    )

    def read(self) -> Best | None:
        """None for all that are made.

        Raises:
            ValueError: for one of the options without the other.
        """
        if (self.best_of is None) != (self.scorer is None):
            raise ValueError("--best-of keeps the images that --scorer finds best; give both, or neither")
        return None if self.best_of is None or self.scorer is None else Best(self.best_of, self.scorer)


def said(judgement: "Judgement") -> str:
    """A judgement in words."""
    if judgement is None or not isinstance(judgement, Sequence) and math.isnan(judgement):
        return "not judged"
    if isinstance(judgement, Sequence):
        return f"{sum(judgement)} of {len(judgement)}"
    truth = isinstance(judgement, bool) or "bool" in str(getattr(judgement, "dtype", ""))  # numpy's and torch's have other classes
    return ("yes" if judgement else "no") if truth else f"{float(judgement):.4g}"
