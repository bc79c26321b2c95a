"""Metrics by the names that a command is given, and what each of them needs beside."""

from dataclasses import dataclass
from pathlib import Path

from .clip import load_clip
from .extractors import Extractor, load_extractor
from .features import write_folder_features
from .metrics import Judged, Metric
from .own_functions import own_scorer
from .realism import DISTANCES, InceptionScore, Realism, check_count
from .statistics import Statistics

INCEPTION = "inception:"
FEATURES = "reference-features.npy"
NAMES = (*DISTANCES, "is", "clip")


@dataclass(frozen=True)
class Choice:
    """What is measured, by names.

    Args:
        metrics: of `NAMES`.
        reference: a folder of true images, or a file of their statistics.
        extractor, clip: what they are measured by.
        scorer: functions that judge images, as module:name.
        on_true_images: whether there are true images of the prompts, which are the reference where no other is given.
    """

    metrics: tuple[str, ...] = ()
    reference: Path | None = None
    extractor: str | None = None
    clip: str | None = None
    scorer: tuple[str, ...] = ()
    on_true_images: bool = False

    @property
    def distances(self) -> list[str]:
        return [name for name in self.metrics if name in DISTANCES]

    def check(self) -> None:
        """See that it fits together, before anything is loaded.

        Raises:
            ValueError: naming what is unknown, missing or not needed.
        """
        unknown = [name for name in self.metrics if name not in NAMES]
        if unknown:
            raise ValueError(f'--metrics "{unknown[0]}" is unknown; choose among {", ".join(NAMES)}')
        distance = next(iter(self.distances), None)
        inception = (self.extractor or "").startswith(INCEPTION)
        needed = distance is not None or "is" in self.metrics
        for is_wrong, message in (
            (
                not (self.metrics or self.scorer or self.on_true_images),
                f"there is nothing to measure; give --metrics, of {', '.join(NAMES)}, or a --scorer",
            ),
            (
                distance is not None and self.extractor is None,
                f"{distance} compares features; say by --extractor what makes them: a vision model's folder or Hub id, inception:FILE, "
                "or module:name",
            ),
            (
                distance is not None and self.reference is None and not self.on_true_images,
                f"{distance} compares with true images; give a folder of them, or a file that evaluate-stats wrote, as --reference",
            ),
            (
                "is" in self.metrics and not inception,
                f"is, the inception score, is of the Inception network; give the file of its weights: --extractor {INCEPTION}FILE",
            ),
            (
                self.reference is not None and distance is None or self.extractor is not None and not needed,
                "--reference and --extractor are for fid and kid; name one of these in --metrics, or leave them out",
            ),
            (
                ("clip" in self.metrics) != (self.clip is not None),
                "the metric clip and --clip, the folder or Hub id of a CLIP, go together; give both, or neither",
            ),
        ):
            if is_wrong:
                raise ValueError(message)

    def load(self, count: int, device: str, folder: Path) -> list[Metric]:
        """The metrics.

        Args:
            count: of the images that will be measured.
            device: where networks look at them.
            folder: of the evaluation, where the features of a reference's images are kept.

        Raises:
            ValueError: for names that lead nowhere, a reference by another extractor, and too few images.
            OSError: for files that are not there.
        """
        found: list[Metric] = []
        if self.distances and self.extractor is not None:
            extractor = load_extractor(self.extractor, device)
            check_count(self.distances, extractor, count)
            found.append(Realism(extractor, self.distances, self._reference(extractor, folder)))
        if "is" in self.metrics and self.extractor is not None:
            extractor = load_extractor(f"inception-logits:{self.extractor.removeprefix(INCEPTION)}", device)
            check_count(["is"], extractor, count)
            found.append(InceptionScore(extractor))
        if self.clip is not None:
            found.append(Judged("clip", load_clip(self.clip, device)))
        return [*found, *(Judged(name, own_scorer(name)) for name in self.scorer)]

    def _reference(self, extractor: Extractor, folder: Path) -> Statistics | None:
        if self.reference is None:
            return None
        if self.reference.is_file():
            return Statistics.load(self.reference, extractor.fingerprint)
        features = write_folder_features(self.reference, extractor, folder / FEATURES)
        return Statistics.of(features, extractor.fingerprint, keep_features=True)
