"""What a checkpoint makes of prompts: cleaning, encoding, and what stands for no text. Sampling and training both read here.

A network sees in training what it will see in sampling, and nothing else; so there is one function for both. Letters in shapes: B
prompts, L tokens, D text width.
"""

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .cleaning import clean_captions
from .encoding import NULL_TEXTS, TextEmbedding, check_padding, encode, no_tokens, null_embedding


class TextRules(NamedTuple):
    """How a checkpoint reads text; a pipeline's config values of these names say it.

    Args:
        null_text: what stands for no text under guidance: "zeros", "empty" (the encoding of "") or "learned" (not one token).
        max_sequence_length: tokens of a prompt that are read, where the encoder has places for as many.
        text_padding: "longest" or "max_length"; see `encoding.encode`.
        clean_caption: whether prompts are cleaned first; see `cleaning.clean_captions`.
    """

    null_text: str = "zeros"
    max_sequence_length: int = 128
    text_padding: str = "longest"
    clean_caption: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "TextRules":
        """Those of a pipeline's configuration.

        Raises:
            ValueError: for a `null_text` or `text_padding` that is not there, and for what is no number of tokens, or no yes or no.
        """
        rules = cls(**{name: config[name] for name in cls._fields})
        if rules.null_text not in NULL_TEXTS:
            raise ValueError(f'null_text="{rules.null_text}" is unknown; use one of {", ".join(NULL_TEXTS)}')
        check_padding(rules.text_padding)
        length = rules.max_sequence_length
        if not isinstance(length, Integral) or isinstance(length, bool) or length < 1:
            raise ValueError(f"max_sequence_length is {length!r}; give the tokens of a prompt that are read, a whole number of at least 1")
        if not isinstance(rules.clean_caption, bool):
            raise ValueError(f"clean_caption is {rules.clean_caption!r}; give True or False")
        return rules._replace(max_sequence_length=int(length))


PLAIN_TEXT = TextRules()


def read_prompts(
    prompts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: PreTrainedModel,
    rules: TextRules,
    device: torch.device | None = None,
    *,
    warn: Callable[[str], None] | None = None,
) -> TextEmbedding:
    """Prompts as the checkpoint reads them, embeddings (B, L, D) and mask (B, L); `device` and `warn` as in `encoding.encode`.

    Raises:
        ValueError: as `encoding.encode`.
    """
    given: dict[str, Any] = {"padding": rules.text_padding, "device": device, "warn": warn}
    return encode(cleaned(prompts, rules), tokenizer, text_encoder, rules.max_sequence_length, **given)


def cleaned(prompts: list[str], rules: TextRules) -> list[str]:
    """Prompts as the tokenizer is given them."""
    return clean_captions(prompts) if rules.clean_caption else prompts


def no_text(like: TextEmbedding, rules: TextRules, read: Callable[[list[str]], TextEmbedding]) -> TextEmbedding:
    """What stands for no text: one row, or one for each row of `like`.

    Args:
        like: text beside which it will stand.
        read: prompts to embeddings; asked for the empty prompt where that is what stands for no text.
    """
    if rules.null_text == "empty":
        return read([""])
    return {"zeros": null_embedding, "learned": no_tokens}[rules.null_text](like)


def no_text_row(width: int, rules: TextRules, read: Callable[[list[str]], TextEmbedding]) -> TextEmbedding | None:
    """The same as one row (1, L, D), for all examples of a run; None for zeros, which have the mask of the text they replace."""
    if rules.null_text == "zeros":
        return None
    return no_text(TextEmbedding(torch.zeros(1, 1, width), torch.ones(1, 1, dtype=torch.bool)), rules, read)
