"""The judge of emoji as a scorer of an evaluation, whose rows are those of `prompts.py`.

imagen-diffusers evaluate --scorer examples.emoji.scorer:judge
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from imagen_diffusers.evaluation.digests import file_digest, weights_digest

from . import colors
from . import judge as judges
from .colors import color_shares, main_color
from .prompts import KINDS
from .things import SOLID

AMONG = 5


class Scorer:
    """What the judge of a folder finds right in images of the rows' prompts, kind by kind.

    Args:
        folder: that `train_judge.py` wrote.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def judge(self) -> judges.Judge:
        return judges.load(self.folder)

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"judge": weights_digest(self.judge.state_dict()), "source": file_digest(__file__), "colors": file_digest(colors.__file__)}

    def __call__(self, images: Tensor, rows: Sequence[dict[str, Any]]) -> dict[str, list[bool | None]]:
        """What is right of images (B, 3, H, W) in [0, 1]: None of rows of other kinds.

        Raises:
            ValueError: for rows without things, and for things or a style that the judge does not know.
            OSError: where the judge is not there.
        """
        for row in rows:
            self._check(row)
        found = [(names, row) for names, row in zip(self.judge.best(images.cpu(), AMONG), rows, strict=True)]
        right = [names[0] in row["things"] for names, row in found]
        styled = self._are_styled(images.cpu(), rows)
        colored = [_is_colored(image, row.get("color")) for image, row in zip(images.cpu(), rows, strict=True)]
        judged: dict[str, list[bool | None]] = {
            "thing": [*right],
            f"thing, among {AMONG} names": [bool({*names} & {*row["things"]}) for names, row in found],
            "thing, prompts shuffled": [row.get("other_things") and names[0] in row["other_things"] for names, row in found],
            "style": styled,
            "thing and style": [None if style is None else style and named for style, named in zip(styled, right, strict=True)],
            "color": colored,
            "thing and color": [color and named for color, named in zip(colored, right, strict=True)],
        }
        return {
            f"{kind}: {name}": [value if row["kind"] == kind else None for row, value in zip(rows, values, strict=True)]
            for kind in KINDS
            for name, values in judged.items()
        }

    def _check(self, row: dict[str, Any]) -> None:
        if "things" not in row:
            raise ValueError('a row has no "things", which the judge looks for; write the rows by python -m examples.emoji.prompts')
        unknown = {*row["things"]} - {*self.judge.names}
        if unknown:
            raise ValueError(
                f"{self.folder} holds a judge without the name {min(unknown)}; train one on the things that prompts name, into {judges.OWN}"
            )
        if row.get("style", SOLID) not in self.judge.styles:
            raise ValueError(
                f"{self.folder} holds a judge of the style {', '.join(self.judge.styles)}, and a row asks for {row['style']!r}; "
                f"train one on things that have it, into {judges.OWN}"
            )

    def _are_styled(self, images: Tensor, rows: Sequence[dict[str, Any]]) -> list[bool | None]:
        """Whether each has the style that is asked for; None of rows without one, and where the judge knows one style alone."""
        asked = [row.get("style") for row in rows]
        found = self.judge.best_style(images)
        return [None if style is None or shown is None else shown == style for shown, style in zip(found, asked, strict=True)]


def _is_colored(image: Tensor, color: str | None) -> bool | None:
    return None if color is None else main_color(color_shares(image)) == color


judge = Scorer(judges.usual_folder())
