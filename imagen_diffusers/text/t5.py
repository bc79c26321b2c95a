"""Prompts to embeddings by a frozen T5 encoder (Imagen, section 2.1). Knows no network and no scheduler.

Any `T5EncoderModel` with its tokenizer will do; the paper's is T5-XXL, 4096 wide. Letters in shapes: B prompts, L tokens,
D text width.
"""

import logging
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

T = TypeVar("T")

logger = logging.getLogger(__name__)

NULL_TEXTS = ("zeros", "empty", "learned")
PADDINGS = ("longest", "max_length")
MARKS = str.maketrans(',.;:!?"()', " " * 9)  # which stand beside words and are no part of them


class TextEmbedding(NamedTuple):
    """Embeddings (B, L, D) and a mask (B, L), True at tokens and False at padding."""

    embeds: Tensor
    mask: Tensor


@torch.no_grad()
def encode(
    prompts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: T5EncoderModel,
    max_length: int,
    *,
    padding: str = "longest",
    device: torch.device | None = None,
) -> TextEmbedding:
    """The last layer's contextual embeddings.

    A prompt of more than `max_length` tokens is cut, with a warning that quotes what was dropped.

    Args:
        padding: "longest" pads to the longest prompt with masked zeros; "max_length" to `max_length` tokens, and gives out what the
            encoder says at padding as if it were text, as DeepFloyd IF was trained.
        device: where the encoder computes, and where the embeddings are; by default where its weights are, which is not the same
            while it is offloaded.
    """
    if padding not in PADDINGS:
        raise ValueError(f'text_padding="{padding}" is unknown; use one of {", ".join(PADDINGS)}')
    ids = tokenizer(prompts, padding=False, truncation=False, verbose=False)["input_ids"]
    for prompt_ids in ids:
        if len(prompt_ids) > max_length:
            dropped = tokenizer.decode(prompt_ids[max_length - 1 :], skip_special_tokens=True)
            logger.warning(f'The text encoder reads {max_length} tokens of a prompt; this part was dropped: "{dropped}"')
    short = [cut(prompt_ids, max_length) for prompt_ids in ids]
    given, attention = padded(short, tokenizer, max_length, padding, device or text_encoder.device)
    mask = attention.bool()
    hidden = text_encoder(input_ids=given, attention_mask=attention).last_hidden_state
    if padding == "max_length":
        return TextEmbedding(hidden, torch.ones_like(mask))
    return TextEmbedding(hidden * mask[..., None], mask)


def cut(tokens: list[T], max_length: int) -> list[T]:
    """`max_length` tokens at most, or what belongs to each: the end-of-text token stays."""
    return tokens if len(tokens) <= max_length else [*tokens[: max_length - 1], tokens[-1]]


def padded(
    ids: list[list[int]], tokenizer: PreTrainedTokenizerBase, max_length: int, padding: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows of tokens as the encoder takes them, ids (B, L) and what it attends to (B, L), 1 or 0; `padding` as in `encode`."""
    found = tokenizer.pad({"input_ids": ids}, padding=padding, max_length=max_length, return_tensors="pt").to(device)
    return found["input_ids"], found["attention_mask"]


def null_embedding(like: TextEmbedding) -> TextEmbedding:
    """Imagen's "no text" for classifier-free guidance: zeros in place of the embeddings, the mask kept (section 2.2)."""
    return TextEmbedding(torch.zeros_like(like.embeds), like.mask)


def no_tokens(like: TextEmbedding) -> TextEmbedding:
    """Not one token: for networks that learned what stands for no text (imagen-pytorch)."""
    return TextEmbedding(torch.zeros_like(like.embeds), torch.zeros_like(like.mask))


def pad_together(first: TextEmbedding, second: TextEmbedding) -> tuple[TextEmbedding, TextEmbedding]:
    """The two with as many tokens, the shorter one padded with masked zeros."""
    length = max(first.mask.shape[1], second.mask.shape[1])
    one, two = (pad_to(t, length) for t in (first, second))
    return one, two


def unknown_words(prompt: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The words of a prompt, without marks beside them, that the tokenizer cannot spell; empty for T5's own."""
    if tokenizer.unk_token_id is None:
        return []
    return [w for w in prompt.translate(MARKS).split() if tokenizer.unk_token_id in tokenizer(w, add_special_tokens=False)["input_ids"]]


def known_words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The whole words of a tokenizer's vocabulary, without its special tokens."""
    return sorted(w for w in tokenizer.get_vocab() if w.isalpha())


def pad_to(text: TextEmbedding, length: int) -> TextEmbedding:
    """Padded with masked zeros to `length` tokens.

    Raises:
        ValueError: for text that is longer.
    """
    missing = length - text.mask.shape[1]
    if missing < 0:
        raise ValueError(f"text of {text.mask.shape[1]} tokens cannot be padded to {length}; ask for as many at least")
    pad = torch.nn.functional.pad
    return TextEmbedding(pad(text.embeds, (0, 0, 0, missing)), pad(text.mask, (0, missing), value=False))
