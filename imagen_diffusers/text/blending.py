"""From one prompt to another: embeddings between two prompts' own. Knows no encoder and no network.

Token meets token in order, the first the first and the end of the text the end. Letters in shapes: F fractions, L tokens, D text width.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Real

import torch
from torch import Tensor

from .encoding import TextEmbedding, pad_to, pad_together

PARALLEL = 1 - 1e-6  # the cosine from which on an arc is a line, in float32


def lerp(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], fractions: float | Sequence[float]) -> TextEmbedding:
    """Embeddings (F, L, D) and a mask (F, L) between two prompts: (1 - t) a + t b for tokens a and b that meet.

    Fractions 0 and 1 are the prompts themselves, to the bit, each with its own mask. Between them both have as many tokens as the
    longer one, none masked: the l tokens of the shorter one are repeated, as evenly as can be, as token i of L its i l // L. Attention to
    repeated tokens and their mean are what they were, nearly; one that faded into the zeros of padding would not fade for networks
    that norm each token, and be gone at once at the end.

    Args:
        first, second: embeddings (1, L, D) and mask (1, L) of one prompt each, as `weighted_embeddings` returns them and
            `encode_prompt` beside the negative ones.
        fractions: of the way from the first to the second, one or several in [0, 1]; each becomes a row.

    Raises:
        ValueError: for fractions outside, or none, and for texts of other shapes or without a token.
    """
    return _between(first, second, fractions, _on_the_line)


def slerp(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], fractions: float | Sequence[float]) -> TextEmbedding:
    """As `lerp`, along the arc: (sin((1 - t) A) a + sin(t A) b) / sin A, with A the angle between a and b (Shoemake 1985).

    Tokens in the middle keep their length where that of `lerp` shrinks. Where a and b lie on one line there is no one arc, and the
    line is taken.
    """
    return _between(first, second, fractions, _on_the_arc)


def _on_the_line(a: Tensor, b: Tensor, t: float) -> Tensor:
    return (1 - t) * a + t * b


def _on_the_arc(a: Tensor, b: Tensor, t: float) -> Tensor:
    cosine = torch.cosine_similarity(a, b, dim=-1)[..., None]
    angle = cosine.clamp(-PARALLEL, PARALLEL).acos()
    arc = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
    return torch.where(cosine.abs() < PARALLEL, arc, _on_the_line(a, b, t))


def _between(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], fractions, path: Callable) -> TextEmbedding:
    ends = pad_together(_checked("first", first), _checked("second", second))
    if ends[0].embeds.shape != ends[1].embeds.shape:
        widths = [end.embeds.shape[-1] for end in ends]
        raise ValueError(f"the texts are {widths[0]} and {widths[1]} wide; encode both prompts by the same text encoder")
    count = max(int(end.mask.sum()) for end in ends)
    a, b = (_stretched(end, count) for end in ends)
    rows = []
    for t in _checked_fractions(fractions):
        blended = TextEmbedding(path(a, b, t).to(ends[0].embeds.dtype), torch.ones_like(ends[0].mask[:, :count]))
        rows.append(ends[int(t)] if t in (0, 1) else pad_to(blended, ends[0].mask.shape[1]))
    embeds, mask = (torch.cat(parts) for parts in zip(*rows, strict=True))
    length = int(mask.any(0).nonzero().max()) + 1  # of the longest row
    return TextEmbedding(embeds[:, :length], mask[:, :length])


def _stretched(text: TextEmbedding, count: int) -> Tensor:
    """Its tokens as (1, count, D), repeated where they are fewer, in float32 at least."""
    tokens = text.embeds[text.mask].to(torch.promote_types(text.embeds.dtype, torch.float32))
    return tokens[torch.arange(count, device=tokens.device) * len(tokens) // count][None]


def _checked(name: str, text: tuple[Tensor, Tensor]) -> TextEmbedding:
    if not isinstance(text, Sequence) or [isinstance(part, Tensor) for part in text] != [True, True]:
        raise ValueError(
            f"the {name} text is a {type(text).__name__}; give its embeddings and mask, as weighted_embeddings(pipe, prompt) does"
        )
    embeds, mask = text
    if embeds.ndim != 3 or len(embeds) != 1 or mask.shape != embeds.shape[:2] or not mask.any():
        raise ValueError(
            f"the {name} text has embeddings {tuple(embeds.shape)} and a mask {tuple(mask.shape)}; "
            "give (1, tokens, width) and (1, tokens) of one prompt, with a token at least"
        )
    return TextEmbedding(embeds, mask.bool())


def _checked_fractions(fractions: float | Sequence[float]) -> list[float]:
    found: list[float] = [float(fractions)] if isinstance(fractions, int | float | Real) else list(fractions)
    if not found or not all(math.isfinite(t) and 0 <= t <= 1 for t in found):
        raise ValueError(f"fractions are {fractions}; give one or several in [0, 1], from the first prompt (0) to the second (1)")
    return found
