"""Prompts to tokens, cut and padded by one rule for every encoder. Letters in shapes: B prompts, L tokens."""

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .learned_words import vectors_of_words

T = TypeVar("T")


class Tokens(NamedTuple):
    """A prompt's tokens, special ones included, and how many of these stand at its end: one of T5, BERT and CLIP, none of Gemma."""

    ids: list[int]
    closing: int


def tokenized(prompts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    """Whole prompts as their tokenizer makes them, of learned words all vectors.

    Raises:
        ValueError: for a prompt without a token, as the empty one of a tokenizer that puts none around its texts.
    """
    found = tokenizer(prompts, padding=False, truncation=False, verbose=False, return_special_tokens_mask=True)
    rows, several = found["input_ids"], vectors_of_words(tokenizer)
    if several:
        rows = [[token for first in row for token in several.get(first, (first,))] for row in rows]
    texts = [Tokens(ids, count_closing(special)) for ids, special in zip(rows, found["special_tokens_mask"], strict=True)]
    for prompt, text in zip(prompts, texts, strict=True):
        if not text.ids:
            raise ValueError(f'{type(tokenizer).__name__} makes no token of the prompt "{prompt}"; give one with words')
    return texts


def count_closing(special: list[int]) -> int:
    """How many special tokens end a prompt; `special` is 1 at those."""
    return next((n for n, one in enumerate(reversed(special)) if not one), len(special))


def cut(tokens: list[T], max_length: int, closing: int) -> list[T]:
    """`max_length` tokens at most, or what belongs to each: the `closing` ones at the end stay."""
    return tokens if len(tokens) <= max_length else [*tokens[: max_length - closing], *tokens[len(tokens) - closing :]]


def padded(
    rows: list[list[int]], tokenizer: PreTrainedTokenizerBase, max_length: int, padding: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows of tokens as the encoder takes them, ids (B, L) and what it attends to (B, L), 1 or 0; `padding` as in `encode`.

    Padding comes after the tokens, whatever the side that the tokenizer pads for its model to write on from: there no token's place
    depends on it, and a decoder's tokens never see it, so that a prompt in a batch is what it is alone.
    """
    length = max_length if padding == "max_length" else max(map(len, rows))
    filler = padding_token(tokenizer)
    ids = torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows], device=device)
    attention = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=device)
    return ids, attention


def padding_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's own, or its end of text where it has none, as most decoders' have not.

    Raises:
        ValueError: for a tokenizer with neither.
    """
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise ValueError(f"{type(tokenizer).__name__} has no padding token and no end of text; set its pad_token")
