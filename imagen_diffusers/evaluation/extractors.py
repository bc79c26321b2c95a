"""Extractors turn images into the features that distances are taken over, and say exactly what they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from .digests import source_digest
from .own_functions import check_model, is_own, own

PROBED = 256  # side of the gray image that tells how wide a user's own features are


class Extractor(Protocol):
    """What an evaluation asks of an extractor.

    Attributes:
        name: in reports, and in the names of files.
        width: D of the features.
        fingerprint: all that decides the features: class, digest of the weights, resize filter and size, library versions; plain values
            that JSON holds. Distances between features of different fingerprints are refused.
    """

    name: str
    width: int
    fingerprint: dict[str, Any]

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, D), float32, of images (B, 3, H, W) in [0, 1] of any size."""
        ...


def load_extractor(name: str, device: torch.device | str = "cpu") -> Extractor:
    """An extractor by name.

    Args:
        name: one of

            - the folder or Hub id of a transformers vision model, as of DINOv2, ViT or CLIP, of which the image half is taken;
            - `inception:PATH`, the Inception network of FID by the file of its weights (as torch-fidelity has it), over
              antialiased images; `inception-logits:PATH` for the inception score; `inception-2015:PATH` with the first FID's resize,
              without antialiasing, to compare with publications that took it;
            - `module:name`, a callable of one's own: images (B, 3, H, W) in [0, 1] to features (B, D). A class is called once without
              arguments. It may have `name`, `width` and `fingerprint`, which are then believed.
        device: where the network runs.

    Raises:
        ValueError: for a name that is none of these, saying what is missing.
        OSError: for a file of weights that is not there.
    """
    kind, colon, place = name.partition(":")
    if colon and kind in ("inception", "inception-logits", "inception-2015"):
        from .inception import InceptionExtractor

        return InceptionExtractor(Path(place), kind, device)
    if is_own(name) and not Path(name).exists():
        return OwnExtractor(name, own(name))
    check_model(name)
    from .vision_models import load_vision_model

    return load_vision_model(name, device)


class OwnExtractor:
    """A user's own callable. Where it has no fingerprint, its source file's digest stands for it.

    Args:
        name: module:name, in reports where it has none of its own.
        made: the callable, or a class of such.

    Raises:
        ValueError: for anything but features (B, D), and for whatever fails in it.
    """

    def __init__(self, name: str, made: Callable[[Tensor], Tensor]):
        self.made: Any = made() if isinstance(made, type) else made
        self.name = getattr(self.made, "name", None) or name
        self.fingerprint = getattr(self.made, "fingerprint", None) or {"class": name, "source": source_digest(made, name)}
        self.width = getattr(self.made, "width", None) or self(torch.full((1, 3, PROBED, PROBED), 0.5)).shape[1]

    def __call__(self, images: Tensor) -> Tensor:
        try:
            features = self.made(images)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise ValueError(
                f"{self.name} failed on images {tuple(images.shape)}, a tensor in [0, 1], with {type(error).__name__}: {error}"
            ) from error
        if not isinstance(features, Tensor):
            raise ValueError(f"{self.name} made a {type(features).__name__} of images; it must make a tensor (B, D)")
        if features.ndim != 2 or len(features) != len(images):
            raise ValueError(f"{self.name} made features {tuple(features.shape)} of {len(images)} images; it must make (B, D)")
        return features.float()
