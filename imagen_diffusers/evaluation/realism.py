"""How real images look to a network: Frechet's distance (FID) and the kernel distance (KID) from true ones, and the inception score."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .distances import LEFT_OUT, frechet_distance, frechet_spread, inception_score, kernel_interval
from .extractors import Extractor
from .figures import Figure
from .groups import Measured
from .intervals import normal
from .metrics import Rows
from .statistics import Statistics

DISTANCES = ("fid", "kid")
SPREAD = "95 % range for other images of these prompts, without the bias, which more images make less"
SPLITS = 10  # of an inception score, as it is published


def check_count(wanted: Sequence[str], extractor: Extractor, count: int, what: str = "prompts") -> None:
    """Refuse too few images, or true ones, before any is generated.

    Raises:
        ValueError: where Frechet's distance has no covariance, the kernel distance no two images to compare, and the inception score parts
            of one image.
    """
    if "kid" in wanted and count < 2:
        raise ValueError(f"kid needs at least two images, and there are {count} {what}; give a few hundred")
    if "is" in wanted and count < 2 * SPLITS:
        raise ValueError(
            f"is, the inception score, is taken over {SPLITS} parts of the images, and of one image it is 1 whatever it shows; there are "
            f"{count} {what}, give at least {2 * SPLITS}, and some thousands to compare with publications"
        )
    least = max(extractor.width + 1, 4)  # of fewer there are no two halves to leave out in turn
    if "fid" in wanted and count < least:
        raise ValueError(
            f"fid over the {extractor.width} features of {extractor.name} needs at least {least} images for its covariance, "
            f"and there are {count} {what}; give more, or ask for --metrics kid, which holds for few"
        )


class Realism:
    """The distances of images from a reference, which is measured by the same extractor.

    Args:
        extractor: images to features.
        wanted: of `DISTANCES`.
        reference: true images' statistics, with their features for "kid"; None where only super-resolution is measured.

    Raises:
        ValueError: for another distance, and a reference without what it needs.
    """

    def __init__(self, extractor: Extractor, wanted: Sequence[str], reference: Statistics | None):
        self.extractor, self.wanted, self.reference = extractor, wanted, reference
        self.fingerprint: dict[str, Any] = {"extractor": extractor.fingerprint}
        self.name = f"features/{extractor.name}"
        if reference is not None:
            check_count(wanted, extractor, reference.count, "in the reference")
        against = "the true images of these prompts" if reference is None else f"{reference.count} true images"
        self.about = f"{' and '.join(name.upper() for name in wanted)}: features of {extractor.name}, against {against}."
        if "kid" in wanted and reference is not None and reference.features is None:
            raise ValueError(
                "the reference holds no features, which kid compares; write it again by `imagen-diffusers evaluate-stats` with "
                "--features, or give the folder of its images"
            )

    def measure(self, images: Tensor, rows: Rows) -> Measured:
        return {self.name: self.extractor(images)}

    def figures(self, measured: Measured, true: Measured | None = None) -> dict[str, Figure]:
        features, reference = measured[self.name], self.reference
        paired = reference is None  # the true images are then those that these were made from
        if paired and true is not None:
            reference = Statistics.of(true[self.name], self.extractor.fingerprint, keep_features=True)
        if reference is None:
            return {}
        made = {"fid": self._frechet, "kid": self._kernel}
        return {f"{name.upper()} ({self.extractor.name})": made[name](features, reference, paired) for name in self.wanted}

    def _frechet(self, features: Tensor, reference: Statistics, paired: bool) -> Figure:
        value = frechet_distance(Statistics.of(features, self.extractor.fingerprint), reference)
        spread = frechet_spread(features, reference, min(LEFT_OUT, len(features) // 2))
        return Figure(value, *normal(value, spread), len(features), kind=SPREAD)

    def _kernel(self, features: Tensor, reference: Statistics, paired: bool) -> Figure:
        assert reference.features is not None, "asked for when the metric was made"
        value, interval = kernel_interval(features, reference.features, paired=paired)
        return Figure(value, *interval, len(features))


class InceptionScore:
    """How surely the Inception network names what it sees, and how many things it sees; it looks at no true images.

    Args:
        extractor: images to the network's logits.
    """

    def __init__(self, extractor: Extractor):
        self.extractor, self.name = extractor, f"features/{extractor.name}"
        self.about = "inception score: of no true images."
        self.fingerprint: dict[str, Any] = {"extractor": extractor.fingerprint}

    def measure(self, images: Tensor, rows: Rows) -> Measured:
        return {self.name: self.extractor(images)}

    def figures(self, measured: Measured, true: Measured | None = None) -> dict[str, Figure]:
        logits = measured[self.name]
        splits = min(SPLITS, len(logits))
        mean, deviation = inception_score(logits, splits, torch.Generator().manual_seed(0))
        return {"inception score": Figure(mean, mean - deviation, mean + deviation, len(logits), f"standard deviation over {splits} parts")}
