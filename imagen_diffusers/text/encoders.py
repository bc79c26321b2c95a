"""What transformers' models are as text encoders: which class encodes text alone, how much it reads, and loading it. Knows no prompt."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

T = TypeVar("T")
ENCODES_IN = ("auto", "float32", "bfloat16")
WHERE = ("revision", "subfolder", "token", "cache_dir", "local_files_only")  # a configuration is, as its weights are
POOLER = "pooler."  # of BERT's kind: one vector of the whole text, which is not read here


def encoding_dtype(asked: str, device: str | torch.device) -> torch.dtype:
    """What captions are encoded in for training: of `ENCODES_IN` the one that is asked for.

    Of "auto" it is bfloat16 on a device that multiplies in it, and float32 on a CPU, or on a GPU that would emulate bfloat16.

    Raises:
        ValueError: for another one, such as float16, in which T5 overflows.
    """
    if asked not in ENCODES_IN:
        raise ValueError(f'captions cannot be encoded in "{asked}"; use one of {", ".join(ENCODES_IN)} (in float16 T5 overflows)')
    if asked != "auto":
        return getattr(torch, asked)
    kind = torch.device(device).type
    multiplies = None if kind == "cpu" else getattr(getattr(torch, kind, None), "is_bf16_supported", None)
    return torch.bfloat16 if multiplies is not None and multiplies(including_emulation=False) else torch.float32


def load_text_encoder(place: str | Path, **kwargs: Any) -> PreTrainedModel:
    """The text encoder of a folder or repository, as transformers saves it; of a larger model the part that encodes text, alone.

    Args:
        place: of any model that `class_of` knows: T5, BERT, CLIP, Gemma, ...
        kwargs: as in transformers, `dtype=torch.float32`, `variant="fp16"`, ...

    Raises:
        ValueError: for a model without a text encoder, and for one that is code of its own.
        OSError: for files that are not there, and weights that lack some of the encoder's.
    """
    where = {name: value for name, value in kwargs.items() if name in WHERE}
    config = without_own_code(AutoConfig.from_pretrained, place, **where)
    found = class_of(config)
    if found is None:
        raise ValueError(f"{place} holds no model whose text encoder transformers knows; give a T5, a BERT, a CLIP, a language model, ...")
    alone = kwargs
    if config.is_encoder_decoder:
        config.is_encoder_decoder, alone = False, {**kwargs, "config": config}  # T5Gemma's encoder class asks for it
    encoder, missing = _loaded(found, place, alone)
    if missing and config is not config.get_text_config():  # the larger model keeps it under a name of its own, as Gemma 3 does
        whole: Any = MODEL_MAPPING
        larger, lacking = _loaded(whole[type(config)], place, kwargs)
        for within, part in larger.named_modules():
            if type(part) is found:
                encoder, missing = part, [n.removeprefix(f"{within}.") for n in lacking if n.startswith(f"{within}.")]
    missing_read = sorted(name for name in missing if not name.startswith(POOLER))
    if missing_read:
        raise OSError(f"the weights of {place} lack {len(missing_read)} of {found.__name__}'s parameters, {missing_read[0]} the first")
    with torch.no_grad():
        for name in missing:  # made up at random, and saved otherwise each time
            encoder.get_parameter(name).zero_()
    return encoder


def _loaded(found: type[PreTrainedModel], place: str | Path, kwargs: dict[str, Any]) -> tuple[PreTrainedModel, list[str]]:
    """A model, and the names of its parameters that the files lack."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would list the weights of the larger model's other parts
    try:
        loaded: Any = found.from_pretrained(place, **kwargs, output_loading_info=True)
    finally:
        transformers_logging.set_verbosity(verbosity)
    return loaded[0], list(loaded[1]["missing_keys"])


def load_tokenizer(place: str | Path, **kwargs: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or repository, as transformers saves it; `kwargs` as there.

    Raises:
        ValueError: for one that is code of its own.
    """
    return without_own_code(AutoTokenizer.from_pretrained, place, **kwargs)


def without_own_code(load: Callable[..., T], place: str | Path, **kwargs: Any) -> T:
    """What one of transformers' Auto classes loads, which would ask on the terminal whether code of the place's own may run.

    Raises:
        ValueError: for a place that has such code.
    """
    try:
        return load(place, trust_remote_code=False, **kwargs)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{place} is a model with code of its own, which is not run here; load it by transformers, with trust_remote_code=True if you "
            "trust it, and give the model itself"
        ) from None


def class_of(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """The class that encodes text, and no more, of the model of a configuration; None where transformers has none."""
    encoders: Any = MODEL_FOR_TEXT_ENCODING_MAPPING
    models: Any = MODEL_MAPPING
    text = config.get_text_config()
    for each in (config, text):
        if type(each) in encoders:
            return encoders[type(each)]
    found: Any = _class_named_for(type(text).__name__)
    if found is None and type(text) in models and not text.is_encoder_decoder:
        found = models[type(text)]
        found = found[0] if isinstance(found, tuple) else found  # Funnel's has a token for each, and another class fewer
    return found if found is not None and found.main_input_name == "input_ids" else None


def _class_named_for(config: str) -> type[PreTrainedModel] | None:
    """A text encoder that transformers' table leaves out, by the name of its configuration: LongT5's, SigLIP's, CLAP's."""
    for ending, kind in (("TextConfig", "TextModel"), ("Config", "EncoderModel")):
        if config.endswith(ending):
            return getattr(transformers, config.removesuffix(ending) + kind, None)
    return None


def readable(max_length: int, text_encoder: PreTrainedModel) -> int:
    """So many tokens, or as many as the encoder has places for: 77 in CLIP, 512 in BERT, any number in T5, whose places are relative."""
    places = getattr(text_encoder.config, "max_position_embeddings", None)
    if places is None or places < 0:  # XLNet writes -1
        return max_length
    # RoBERTa's kind counts places from behind the number of its padding token.
    tables = (module for name, module in text_encoder.named_modules() if name.endswith("position_embeddings"))
    padding = next((table.padding_idx for table in tables if hasattr(table, "padding_idx")), None)
    return min(max_length, places if padding is None else places - padding - 1)
