"""Features by any vision model of transformers, by its folder or Hub id: one vector an image."""

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from imagen_diffusers.hub.places import find_and_fetch
from imagen_diffusers.text.encoders import without_own_code

from .digests import weights_digest
from .resizing import Preparation


def load_vision_model(name: str, device: torch.device | str = "cpu") -> "VisionModelExtractor":
    """The extractor of a saved model.

    Raises:
        ValueError: for a name that leads nowhere, a model that sees no images, and a checkpoint that lacks weights, whose features would
            be random.
    """
    model = load_pretrained(name, AutoModel).to(device)  # pyright: ignore[reportArgumentType]
    return VisionModelExtractor(name, model, Preparation.load(name))


def config_of(name: str) -> PreTrainedConfig:
    """Of a model by its folder or Hub id.

    Raises:
        ValueError: for one that is not there, or that transformers does not know.
    """
    place, _ = find_and_fetch(name, ["config.json"])  # says in one sentence what transformers does not
    return without_own_code(AutoConfig.from_pretrained, place)


def load_pretrained(name: str, kind: Any) -> PreTrainedModel:
    """A model in float32, all of whose weights were in its files.

    The pooling head that some checkpoints lack is left out, and their first token is taken.

    Raises:
        ValueError: as `config_of`, and for other missing weights.
        OSError: for a folder without weights.
    """
    config_of(name)
    model, report = without_own_code(kind.from_pretrained, name, output_loading_info=True, dtype=torch.float32)
    missing = sorted(report["missing_keys"])
    if missing and all(key.startswith("pooler.") for key in missing):
        model.pooler, missing = None, []
    if missing:
        raise ValueError(
            f"the checkpoint {name} lacks {len(missing)} weights of a {type(model).__name__} ({missing[0]}, ...), and random ones would "
            "stand in for them; give a checkpoint of the whole model"
        )
    return model.eval().requires_grad_(False)


class VisionModelExtractor:
    """Of a model with text, as CLIP, the image embeddings; else what the model pools, or its first token where it pools nothing.

    Args:
        name: in reports.
        model: in evaluation mode.
        preparation: of the images.
    """

    def __init__(self, name: str, model: PreTrainedModel, preparation: Preparation):
        self.name, self.model, self.preparation = name, model, preparation
        if not hasattr(model, "get_image_features") and model.main_input_name != "pixel_values":
            raise ValueError(f"{name} is a {type(model).__name__}, which takes {model.main_input_name}; give a model that takes images")
        self.fingerprint = fingerprint_of(model, preparation)
        self.width: int = self(torch.full((1, 3, 8, 8), 0.5)).shape[1]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        pixels = self.preparation(images.to(self.model.device))
        if hasattr(self.model, "get_image_features"):
            return image_embeddings(self.model, pixels).cpu()
        told = self.model(pixel_values=pixels)
        pooled = getattr(told, "pooler_output", None)
        return (told.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)).float().cpu()


def fingerprint_of(model: PreTrainedModel, preparation: Preparation) -> dict[str, Any]:
    """What decides what a model says of images."""
    return {
        "class": type(model).__name__,
        "weights": weights_digest(model.state_dict()),
        **preparation.fingerprint,
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
    }


def image_embeddings(model: Any, pixels: Tensor) -> Tensor:
    """Of a model with text (B, D), before they are made of length one."""
    told = model.get_image_features(pixel_values=pixels)
    return (told if isinstance(told, Tensor) else told.pooler_output).float()
