"""Images of more seeds than are kept, and a scorer that finds the best of them."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from imagen_diffusers.evaluation.scorers import Judgement, Scorer

Chooser = Callable[[Iterable[Any], Sequence[int]], tuple[list[Any], list[int]]]


class Best(NamedTuple):
    """Which images are kept.

    Args:
        of: how many are generated, each with a seed of its own.
        scorer: what finds the best, by its name.
    """

    of: int
    scorer: str

    def chooser(self, prompt: str | None, count: int) -> Chooser:
        """What says, of images as they come and their seeds, how each was judged: the `count` best and their seeds, the best first.

        A scorer of one's own reads an empty prompt where there is none.

        Raises:
            ValueError: for more images than are generated, for a scorer that is not there, and for a CLIP without a prompt.
        """
        if count > self.of:
            raise ValueError(f"--best-of is {self.of}, of which {count} images cannot be kept; give a larger one, or ask for fewer")
        from imagen_diffusers.evaluation.own_functions import is_own
        from imagen_diffusers.evaluation.ranking import best_first, judge, judge_each
        from imagen_diffusers.evaluation.scorers import load_scorer

        if prompt is None and not is_own(self.scorer):
            raise ValueError(
                f'--scorer "{self.scorer}" is a CLIP, which compares images with a prompt, and there is none; give module:name of '
                "a function that judges images alone"
            )
        scorer = _named(load_scorer(self.scorer), self.scorer)

        def choose(images: Iterable[Any], seeds: Sequence[int]) -> tuple[list[Any], list[int]]:
            made: list[Any] = []
            for image in images:
                made.append(image)
                if len(made) == 1:
                    judge_each(made, prompt or "", scorer)  # what it refuses is said before the rest is generated
            judged = judge(made, prompt or "", scorer)
            order = best_first(judged)
            for i in order:
                typer.echo(f"seed {seeds[i]}: {', '.join(f'{name} {said(values[i])}' for name, values in judged.items())}")
            return [made[i] for i in order[:count]], [seeds[i] for i in order[:count]]

        return choose


def _named(scorer: "Scorer", name: str) -> "Scorer":
    """The scorer, of which whatever fails in it is told with its name: it may be a function of one's own."""
    import torch

    def judge(*given: Any) -> Any:
        try:
            return scorer(*given)
        except (ValueError, OSError, ImportError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise ValueError(f"--scorer {name} failed with {type(error).__name__}: {error}; --debug shows where") from error

    return judge


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
