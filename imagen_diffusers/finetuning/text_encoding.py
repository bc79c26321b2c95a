"""What a cascade reads captions with in training: its text encoder, or a cache of what that said, and then without loading it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from imagen_diffusers.hub.places import find, find_and_fetch
from imagen_diffusers.models.weight_files import sole_variant, weight_files
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.pipelines.slots import UNETS
from imagen_diffusers.text import encoders
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.text.prompts import TextRules, no_text_row, read_prompts
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.fingerprints import fingerprint, holds_t5
from imagen_diffusers.training.text_cache import TextCache

from .flags import ModelSettings, StageValidationSettings, ValidationSettings


def place_of(model: ModelSettings) -> str:
    """Folder or Hub id of a cascade."""
    return find(model.pretrained_model_name_or_path, ("pipelines",))


def needs_text_encoder(data: DataSettings, validation: ValidationSettings) -> bool:
    """Whether a run encodes text itself: captions without a cache, or prompts and captions of its validation."""
    held_out = validation.validation_data if isinstance(validation, StageValidationSettings) else None
    return data.text_cache is None or bool(validation.validation_prompts) or held_out is not None


def load_text_encoder(model: ModelSettings, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """On the CPU.

    Raises:
        ValueError: for a cascade without one.
    """
    if model.text_encoder is not None:
        return encoders.load_text_encoder(model.text_encoder, dtype=dtype)
    name = place_of(model)
    given: dict[str, Any] = dict.fromkeys((*UNETS, "tokenizer"))
    pipe = ImagenCascadePipeline.from_pretrained(name, **given, variant=model.variant, revision=model.revision, dtype=dtype)
    if pipe.text_encoder is None:
        raise ValueError(f"{name} has no text encoder; give the one that its networks were trained with as text_encoder")
    return pipe.text_encoder  # of the very class that the cascade has


def open_text_cache(pipe: ImagenCascadePipeline, model: ModelSettings, data: DataSettings) -> TextCache | None:
    """The cache that `data` names; None where it names none.

    That it is one of this cascade's encoder is seen, where the encoder is not loaded, from the files of its weights if it is a T5, and
    of others from the encoder, which is loaded for it and let go.

    Raises:
        ValueError: for no cache, or that of another encoder or other rules.
    """
    if data.text_cache is None:
        return None
    files = [] if pipe.text_encoder is not None else _encoder_files(model)
    encoder: PreTrainedModel | Sequence[Path] = pipe.text_encoder or (files if holds_t5(files) else load_text_encoder(model))
    return TextCache(data.text_cache, fingerprint(pipe.tokenizer, encoder, TextRules.of(pipe.config)))


def tokens_to_read(asked: int, rules: TextRules, cache: TextCache | None = None) -> int:
    """How many tokens of a caption a run reads, where so many are asked for: at most as many as the checkpoint reads in sampling.

    Raises:
        ValueError: for fewer than these, where captions were encoded in whole, or where networks see the padding, too: they would be
            trained on shorter text than they are sampled with.
    """
    limit = rules.max_sequence_length
    if asked < limit and cache is not None:
        raise ValueError(
            f"max_sequence_length is {asked}, and the text cache holds captions of up to {limit} tokens, which are not cut: set "
            f"max_sequence_length to {limit}, or leave text_cache out"
        )
    if asked < limit and rules.text_padding == "max_length":
        raise ValueError(
            f"max_sequence_length is {asked}, and the networks of this checkpoint see every caption padded to {limit} tokens: set "
            f"max_sequence_length to {limit}"
        )
    return min(asked, limit)


def null_text(pipe: ImagenCascadePipeline, cache: TextCache | None = None) -> TextEmbedding | None:
    """What stands for no text in this checkpoint, one row; None for zeros.

    Raises:
        ValueError: where that is the encoding of no words, and there is neither an encoder nor a cache that holds it.
    """
    rules, widths = TextRules.of(pipe.config), [network.text_dim for network in pipe.networks.values() if network.text_dim is not None]

    def read(prompts: list[str]) -> TextEmbedding:
        if pipe.text_encoder is not None:
            return read_prompts(prompts, pipe.tokenizer, pipe.text_encoder, rules)
        if cache is None:
            raise ValueError(f'null_text="{rules.null_text}" is the encoding of ""; load the pipeline with its text_encoder and tokenizer')
        tokens = cache(prompts[0]).float()[None]
        return TextEmbedding(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))

    return no_text_row(widths[0], rules, read) if widths else None


def _encoder_files(model: ModelSettings) -> list[Path]:
    """Where the encoder's weights are as safetensors; empty where they are not."""
    folder = _encoder_folder(model)
    names = os.listdir(folder) if folder.is_dir() else []
    variant = (None if model.text_encoder is not None else model.variant) or sole_variant({folder.name: names})
    files = [file for file in weight_files(names) if not file.pickled]
    chosen = [file for file in files if file.variant == variant] or [file for file in files if file.variant is None]
    return [folder / file.name for file in chosen]


def _encoder_folder(model: ModelSettings) -> Path:
    if model.text_encoder is not None:
        return find_and_fetch(model.text_encoder, ["*.json", "*.safetensors"])[1]
    name = place_of(model)
    if not Path(name).is_dir():
        name = str(ImagenCascadePipeline.download(name, revision=model.revision, variant=model.variant))
    return Path(name) / "text_encoder"
