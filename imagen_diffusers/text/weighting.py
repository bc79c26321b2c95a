"""Prompts whose words have weights, as embeddings. Knows no network.

Letters in shapes: B prompts, L tokens, D text width, V weights that are not 1.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .encoders import readable
from .encoding import TextEmbedding, last_hidden_state
from .prompts import TextRules
from .tokens import padded, padding_token
from .weight_syntax import WeightedText, read_weights, weighted_tokens


def weighted_embeddings(pipe: Any, prompt: str | list[str]) -> TextEmbedding:
    """Prompts with weights, ``a (red:1.3) sphere``, as embeddings (B, L, D) and a mask (B, L), which a call takes in their place.

    A weight of 1 changes nothing, to the bit; 0 leaves the words unsaid; more than 1 says more of them; see `weigh`.

    Args:
        pipe: an `ImagenCascadePipeline` with its text encoder, whose rules the text is read by.
        prompt: one or several, with weights as `weight_syntax` reads them.

    Raises:
        ValueError: for weights that cannot be read, a tokenizer that is not a fast one, and as `encode_prompt`.
    """
    texts = [read_weights(p) for p in (prompt if isinstance(prompt, list | tuple) else [prompt])]
    embeds, _, mask, _ = pipe.encode_prompt([text.text for text in texts], do_classifier_free_guidance=False)
    return weigh(texts, TextEmbedding(embeds, mask), pipe.tokenizer, pipe.text_encoder, TextRules.of(pipe.config))


@torch.no_grad()
def weigh(
    texts: list[WeightedText],
    plain: TextEmbedding,
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: PreTrainedModel,
    rules: TextRules,
) -> TextEmbedding:
    """Embeddings (B, L, D) of texts with their weights, and the mask (B, L) that they have without.

    With e the embeddings of the plain text, and e_v those of the same text with no text in place of the tokens that weigh v, these are

        e + sum over the weights v of (v - 1) (e - e_v).

    No text in place of a token is the end-of-text token, or padding where nothing ends a text, to which no other token attends. So a
    weight goes along all that its words say, in their own tokens and in the others, as compel goes below 1: an encoder lets every token
    know of the others (a decoder, of those before it), and whatever is done to "red" alone leaves a sphere that knows of it. A token
    scaled as it is, from the zeros of no text, is the same to networks that norm each token (Imagen, section 2.5), whatever the weight.

    Args:
        texts: B of them, as `read_weights` gives them.
        plain: their embeddings without weights.
        tokenizer, text_encoder, rules: what made these.

    Raises:
        ValueError: as `weighted_tokens`.
    """
    embeds = plain.embeds.clone()
    rules = rules._replace(max_sequence_length=readable(rules.max_sequence_length, text_encoder))
    for row, text in enumerate(texts):
        ids, weights = weighted_tokens(text, tokenizer, rules)
        values = sorted({*weights} - {1.0})
        if values:
            hidden = torch.tensor([[weight == value for weight in weights] for value in values])
            without = _without(ids, hidden, tokenizer, text_encoder, rules, embeds.device)
            own, seen = embeds[row, : without.shape[1]].to(without.dtype), plain.mask[row, : without.shape[1], None]
            factors = torch.tensor(values, dtype=without.dtype, device=embeds.device)[:, None, None] - 1
            embeds[row, : without.shape[1]] = own + (factors * (own - without)).sum(0) * seen
    return TextEmbedding(embeds, plain.mask)


def _without(
    ids: list[int],
    hidden: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: PreTrainedModel,
    rules: TextRules,
    device: torch.device,
) -> Tensor:
    """Embeddings (V, L, D), in float32 at least, of one prompt's tokens, without those that are `hidden` in a row (V, tokens)."""
    given, attention = padded([ids] * len(hidden), tokenizer, rules.max_sequence_length, rules.text_padding, device)
    hidden = torch.nn.functional.pad(hidden, (0, given.shape[1] - hidden.shape[1])).to(device)
    nothing = ids[-1] if ids[-1] in tokenizer.all_special_ids else padding_token(tokenizer)
    given, attention = given.masked_fill(hidden, nothing), attention.masked_fill(hidden, 0)
    without = last_hidden_state(text_encoder, given, attention)
    return without.to(torch.promote_types(without.dtype, torch.float32))
