"""The Inception network that FID and the inception score were defined by, from the file of its weights."""

import pickle
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .digests import weights_digest
from .resizing import resized

SIDE = 299
LAYERS = {"inception": "2048", "inception-2015": "2048", "inception-logits": "logits_unbiased"}
WIDTHS = {"2048": 2048, "logits_unbiased": 1008}


class InceptionExtractor:
    """Features of 2048 numbers, or the logits of 1008 classes.

    The network is torch-fidelity's, which takes images of 8 bits. Images are resized to its 299 pixels with antialiasing, or, as
    `inception-2015`, by the bilinear resize of the TensorFlow of that year, which has none.

    Args:
        weights: the file, as torch-fidelity has it (`weights-inception-2015-12-05-6726825d.pth`); nothing but tensors is read of it.
        kind: of `LAYERS`.
        device: where it runs.

    Raises:
        OSError: for a file that is not there.
        ValueError: for a file of another network, and where torch-fidelity is not installed.
    """

    def __init__(self, weights: Path, kind: str = "inception", device: torch.device | str = "cpu"):
        self.name, self.antialiased = kind, kind != "inception-2015"
        self.network = _network(weights, LAYERS[kind]).to(device)
        self.device, self.width = torch.device(device), WIDTHS[LAYERS[kind]]
        self.fingerprint: dict[str, Any] = {
            "class": f"{type(self.network).__name__} {LAYERS[kind]}",
            "weights": weights_digest(self.network.state_dict()),
            "resize": "antialiased bicubic" if self.antialiased else "TensorFlow 1 bilinear",
            "size": SIDE,
            "torch": torch.__version__.partition("+")[0],
            "torch-fidelity": version("torch-fidelity"),
        }

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        images = images.to(self.device, torch.float32)
        if self.antialiased:
            images = resized(images, (SIDE, SIDE))  # the network's own resize then changes nothing
        return self.network((images * 255).round().clamp(0, 255).byte())[0].float().cpu()


def _network(weights: Path, layer: str) -> Any:
    try:
        network = import_module("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    except ImportError as error:
        raise ValueError(f"the Inception network needs torch-fidelity and its torchvision: pip install torch-fidelity ({error})") from None
    try:
        # torch-fidelity opens any pickle; after this, the file is known to hold tensors alone.
        torch.load(weights, map_location="cpu", weights_only=True)
        return network("inception-v3-compat", [layer], str(weights))
    except (RuntimeError, AttributeError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{weights} holds no weights of the Inception network of FID ({reason}); give the file that torch-fidelity downloads"
        ) from None
