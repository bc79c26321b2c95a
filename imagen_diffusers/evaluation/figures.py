"""Named numbers, each with how sure it is."""

import math
from typing import NamedTuple

INTERVAL = "95 % interval"


class Figure(NamedTuple):
    """One number of a report.

    Args:
        value: over all images.
        low, high: where the truth lies with 95 % confidence or, of what is biased by the number of images, the range that `kind` names.
        count: images, or judgements, that it is taken over.
        kind: what `low` and `high` are.
        share: whether it is a part of one, which is written in percent.
    """

    value: float
    low: float
    high: float
    count: int
    kind: str = INTERVAL
    share: bool = False

    def __str__(self) -> str:
        """ "12.31 (11.92 to 12.70)", or of a share "78.1 % (66.7 to 86.4)"; a dash where nothing was judged."""
        if not self.count or math.isnan(self.value):
            return "-"
        scale, unit = (100, " %") if self.share else (1, "")
        places = 1 if self.share else _places(self.high - self.low)
        value, low, high = (f"{number * scale:.{places}f}" for number in self[:3])
        return f"{value}{unit} ({low} to {high})"


def _places(width: float) -> int:
    """Decimal places that show two digits of how wide an interval is."""
    return max(1 - math.floor(math.log10(width / 2)), 0) if 0 < width < math.inf else 3
