"""Words that a cascade's text encoder learned after its training, loaded and taken away by the methods that diffusers has for it."""

import os
from pathlib import Path
from typing import Any

from diffusers.loaders.textual_inversion import (
    TEXT_INVERSION_NAME,
    TEXT_INVERSION_NAME_SAFE,
    TextualInversionLoaderMixin,
    load_textual_inversion_state_dicts,
)
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from imagen_diffusers.models.weight_files import check_whole
from imagen_diffusers.text.learned_words import add_words, remove_words
from imagen_diffusers.text.prompts import TextRules, cleaned

Place = str | os.PathLike | dict[str, Tensor] | Tensor


class TextualInversionMixin:
    """diffusers' methods for learned words, for encoders of any kind.

    All vectors of a word are read where a prompt says it, so no prompt is rewritten (`maybe_convert_prompt`). The pipelines that share a
    text encoder share its words; `save_pretrained` saves them with it.
    """

    tokenizer: Any
    text_encoder: Any
    config: Any

    def load_textual_inversion(
        self,
        pretrained_model_name_or_path: Place | list[Place],
        token: str | list[str] | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        text_encoder: PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        """Teach the text encoder one or several words; where one cannot be, none is.

        Args:
            pretrained_model_name_or_path: folders, files or Hub ids with `learned_embeds.safetensors`, as diffusers' script for textual
                inversion writes it, and AUTOMATIC1111's files; or vectors (D,) or (n, D), as {word: vectors} or alone.
            token: the words that prompts say; by default those of the files.
            tokenizer, text_encoder: in place of the pipeline's.
            kwargs: where files are sought, as in diffusers: `weight_name`, `subfolder`, `revision`, ...

        Raises:
            ValueError: for a pipeline without a text encoder, words that are there already or would be cleaned away, vectors that do not
                fit, and as many words as there are not vectors.
            OSError: for files that are not there, or not whole.
        """
        tokenizer, text_encoder = self._reader(tokenizer, text_encoder)
        several = isinstance(pretrained_model_name_or_path, list)
        places: Any = pretrained_model_name_or_path if several else [pretrained_model_name_or_path]
        names = token if isinstance(token, list) else [token] * len(places)
        if len(names) != len(places) or (token is not None and len({*names}) < len(names)):
            raise ValueError(f"{len(places)} learned words and token={token!r}; give each a name of its own, or none")
        for place in places:
            _check_file(place, kwargs.get("subfolder"), kwargs.get("weight_name"))
        states = load_textual_inversion_state_dicts(places, **kwargs)
        for place, state in zip(places, states, strict=True):
            if isinstance(state, dict) and len(state) != 1 and "string_to_param" not in state:
                shown = place if isinstance(place, str | os.PathLike) else "what was given"
                raise ValueError(f"{shown} holds {len(state)} tensors, and a learned word is one; give each word by itself")
        found, vectors = TextualInversionLoaderMixin._retrieve_tokens_and_embeddings(names, states, tokenizer)
        twice = [word for word in found if found.count(word) > 1]
        if twice:
            raise ValueError(f'"{twice[0]}" is given {len(twice)} times; give each a name of its own by token, a list')
        rules = TextRules.of(self.config)
        for word, read in zip(found, cleaned(found, rules), strict=True):
            if word != read:
                raise ValueError(f'this checkpoint cleans prompts, "{word}" to "{read}"; give the word a name that stays, token="mything"')
        add_words(dict(zip(found, vectors, strict=True)), tokenizer, text_encoder)

    def unload_textual_inversion(
        self,
        tokens: str | list[str] | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        text_encoder: PreTrainedModel | None = None,
    ) -> None:
        """Take learned words away: these, or all.

        Raises:
            ValueError: for a word that was not learned.
        """
        tokenizer, text_encoder = self._reader(tokenizer, text_encoder)
        remove_words([tokens] if isinstance(tokens, str) else tokens, tokenizer, text_encoder)

    def _reader(
        self, tokenizer: PreTrainedTokenizerBase | None, text_encoder: PreTrainedModel | None
    ) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
        """What reads prompts."""
        tokenizer, text_encoder = tokenizer or self.tokenizer, text_encoder or self.text_encoder
        if tokenizer is None or text_encoder is None:
            raise ValueError("this pipeline has no text encoder that could learn words; load it with text_encoder and tokenizer")
        return tokenizer, text_encoder


def _check_file(place: Place, subfolder: str | None, name: str | None) -> None:
    """Refuse a folder here without the file, and a file that is damaged: diffusers looks for a pickle then, and names that alone."""
    if not isinstance(place, str | os.PathLike):
        return
    path = Path(place, subfolder or "")
    if path.is_dir():
        names = [name] if name else [TEXT_INVERSION_NAME_SAFE, TEXT_INVERSION_NAME]
        path = next((path / each for each in names if (path / each).is_file()), path)
        if path.is_dir():
            raise OSError(f"{path} holds no {names[0]}; give the folder or the file of a learned word, or weight_name, the file's")
    if path.is_file() and path.suffix == ".safetensors":
        check_whole(path)
