"""CLIP score: how near an image is to its prompt, as any CLIP of transformers sees them."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, PreTrainedTokenizerBase

from imagen_diffusers.text.encoders import load_tokenizer

from .resizing import Preparation
from .vision_models import config_of, fingerprint_of, image_embeddings, load_pretrained

logger = logging.getLogger(__name__)


def load_clip(name: str, device: torch.device | str = "cpu") -> "ClipScorer":
    """A CLIP by its folder or Hub id.

    Raises:
        ValueError: for a name that leads nowhere, another model, and a checkpoint that lacks weights.
    """
    kind = config_of(name).model_type
    if kind != "clip":
        raise ValueError(f"{name} is a {kind}; the CLIP score needs a CLIP, of images and text")
    model = load_pretrained(name, CLIPModel).to(device)  # pyright: ignore[reportArgumentType]
    return ClipScorer(name, model, load_tokenizer(name), Preparation.load(name))


class ClipScorer:
    """100 max(cos(image, prompt), 0) of each image and its prompt, as Imagen's figures have it (Hessel et al. 2021 scale by 2.5).

    Args:
        name: in reports.
        model: a `CLIPModel` in evaluation mode.
        tokenizer: of its text half.
        preparation: of the images.
    """

    def __init__(self, name: str, model: Any, tokenizer: PreTrainedTokenizerBase, preparation: Preparation):
        self.name, self.model, self.tokenizer, self.preparation = name, model, tokenizer, preparation
        self.longest = model.config.text_config.max_position_embeddings
        self.fingerprint = fingerprint_of(model, preparation)

    def __call__(self, images: Tensor, rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
        """As a scorer of an evaluation: of the rows' prompts, by name."""
        return {"CLIP score": self.scores(images, [row["prompt"] for row in rows]).tolist()}

    @torch.no_grad()
    def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Of images (B, 3, H, W) in [0, 1] and as many prompts: (B,), from 0 to 100.

        Of a prompt longer than the model reads the rest is dropped, with a warning that quotes it.

        Raises:
            ValueError: for another number of prompts.
        """
        if len(images) != len(prompts):
            raise ValueError(f"there are {len(images)} images and {len(prompts)} prompts; give one prompt an image")
        seen = image_embeddings(self.model, self.preparation(images.to(self.model.device)))
        return 100 * F.cosine_similarity(seen, self._read(prompts)).clamp(min=0).cpu()

    def _read(self, prompts: Sequence[str]) -> Tensor:
        for prompt in prompts:
            tokens = self.tokenizer(prompt, verbose=False).input_ids
            if len(tokens) > self.longest:
                dropped = self.tokenizer.decode(tokens[self.longest - 1 : -1])
                logger.warning(f'{self.name} reads {self.longest} tokens of a prompt; this part was dropped: "{dropped}"')
        given = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        told = self.model.get_text_features(**given.to(self.model.device))
        return (told if isinstance(told, Tensor) else told.pooler_output).float()
