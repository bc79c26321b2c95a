"""Images of more seeds than are kept, and a scorer that finds the best of them."""

from collections.abc import Callable
from typing import NamedTuple


class Best(NamedTuple):
    """Which images are kept.

    Args:
        of: how many are generated, each with a seed of its own.
        scorer: what finds the best, by its name.
    """

    of: int
    scorer: str

    def chooser(self, prompt: str, count: int) -> Callable[[list], list[int]]:
        """What says which of the images are kept: the numbers of the `count` best, the best first.

        Raises:
            ValueError: for more images than are generated, and for a scorer that is not there.
        """
        if count > self.of:
            raise ValueError(f"--best-of is {self.of}, of which {count} images cannot be kept; give a larger one, or ask for fewer")
        from imagen_diffusers.evaluation.ranking import rank
        from imagen_diffusers.evaluation.scorers import load_scorer

        scorer = load_scorer(self.scorer)
        return lambda images: rank(images, prompt, scorer)[:count]
