"""Prompts to embeddings by a frozen text encoder (Imagen, section 2.1). Knows no network and no scheduler.

Any encoder of transformers that returns `last_hidden_state` will do, with its tokenizer; the paper's is T5-XXL, 4096 wide. Letters in
shapes: B prompts, L tokens, D text width.
"""

import inspect
import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .encoders import class_of, readable
from .tokens import cut, padded, tokenized

logger = logging.getLogger(__name__)

NULL_TEXTS = ("zeros", "empty", "learned")
PADDINGS = ("longest", "max_length")


class TextEmbedding(NamedTuple):
    """Embeddings (B, L, D) and a mask (B, L), True at tokens and False at padding."""

    embeds: Tensor
    mask: Tensor


def encode(
    prompts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: PreTrainedModel,
    max_length: int,
    *,
    padding: str = "longest",
    device: torch.device | None = None,
    warn: Callable[[str], None] | None = None,
    gradient: bool = False,
) -> TextEmbedding:
    """The last layer's contextual embeddings.

    A prompt of more tokens than are read is cut, with a warning that quotes what was dropped.

    Args:
        max_length: tokens of a prompt that are read; of an encoder that has places for fewer, as many as it has.
        padding: "longest" pads to the longest prompt with masked zeros; "max_length" to `max_length` tokens, and gives out what the
            encoder says at padding as if it were text, as DeepFloyd IF was trained.
        device: where the encoder computes, and where the embeddings are; by default where its weights are, which is not the same
            while it is offloaded.
        warn: is told what was dropped; by default the log is.
        gradient: whether what is learned by way of the encoder gets one.

    Raises:
        ValueError: for an unknown `padding`, a prompt without a token, and an encoder that does more than encode text, or overflows.
    """
    check_padding(padding)
    max_length = readable(max_length, text_encoder)
    rows = []
    for text in tokenized(prompts, tokenizer):
        rows.append(cut(text.ids, max_length, text.closing))
        if len(text.ids) > max_length:
            dropped = tokenizer.decode(text.ids[max_length - text.closing :], skip_special_tokens=True)
            (warn or logger.warning)(f'The text encoder reads {max_length} tokens of a prompt; this part was dropped: "{dropped}"')
    given, attention = padded(rows, tokenizer, max_length, padding, device or text_encoder.device)
    mask = attention.bool()
    with nullcontext() if gradient else torch.no_grad():
        hidden = last_hidden_state(text_encoder, given, attention)
    if not torch.isfinite(hidden[mask]).all():
        raise ValueError(
            f"{type(text_encoder).__name__} gave NaN or infinite values in {str(hidden.dtype).removeprefix('torch.')}; load it in bfloat16 "
            "or float32"
        )
    if padding == "max_length":
        return TextEmbedding(hidden, torch.ones_like(mask))
    return TextEmbedding(hidden * mask[..., None], mask)


def check_padding(padding: str) -> None:
    """One of those there are."""
    if padding not in PADDINGS:
        raise ValueError(f'text_padding="{padding}" is unknown; use one of {", ".join(PADDINGS)}')


def warning_once() -> Callable[[str], None]:
    """A `warn` for many captions: the first that is cut is told of, and no other."""
    told = []

    def warn(message: str) -> None:
        if not told:
            logger.warning(f"{message}. Others may be cut as well; they are not told of")
            told.append(message)

    return warn


def last_hidden_state(text_encoder: PreTrainedModel, ids: Tensor, attention: Tensor) -> Tensor:
    """What an encoder says of tokens (B, L, D): ids (B, L), and what it attends to (B, L), 1 or 0.

    Raises:
        ValueError: for a model that reads or gives out something else, which names the encoder of its kind.
    """
    arguments = inspect.signature(type(text_encoder).forward).parameters.keys()
    more = {"decoder_input_ids", "pixel_values"} & arguments
    once = {"use_cache": False} if "use_cache" in arguments else {}  # a decoder would keep keys and values of every layer to write on from
    found = None if more else getattr(text_encoder(input_ids=ids, attention_mask=attention, **once), "last_hidden_state", None)
    if found is None:
        name, what = type(text_encoder).__name__, f"reads {' and '.join(more)}, too" if more else "gives out no last_hidden_state"
        raise ValueError(f"{name} {what}; give a model that encodes text and no more{_of_its_kind(text_encoder)}")
    return found


def _of_its_kind(model: PreTrainedModel) -> str:
    found = class_of(model.config)
    return "" if found in (None, type(model)) else f", here {found.__name__}"


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
