"""What a caller may say of the text: prompts or embeddings, negative or none."""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from imagen_diffusers.text.prompts import TextRules, no_text, read_prompts
from imagen_diffusers.text.t5 import TextEmbedding


class TextInputs(NamedTuple):
    """The text arguments of `encode_prompt` and `__call__`, as given."""

    prompt: str | list[str] | None = None
    negative_prompt: str | list[str] | None = None
    prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    prompt_attention_mask: Tensor | None = None
    negative_prompt_attention_mask: Tensor | None = None

    def embed(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        text_encoder: T5EncoderModel | None,
        rules: TextRules,
        device: torch.device,
    ) -> tuple[TextEmbedding, TextEmbedding]:
        """The text to follow and the text to steer away from, one row a prompt each, on `device`, where the encoder computes.

        Raises:
            ValueError: for both or neither of prompt and prompt_embeds, a missing encoder, or counts that differ.
        """
        if (self.prompt is None) == (self.prompt_embeds is None):
            raise ValueError("give exactly one of prompt and prompt_embeds")

        def encoded(prompts: str | list[str]) -> TextEmbedding:
            if tokenizer is None or text_encoder is None:
                raise ValueError("this pipeline has no text encoder; give embeddings, or load it with text_encoder and tokenizer")
            return read_prompts(_listed(prompts), tokenizer, text_encoder, rules, device)

        if self.prompt_embeds is not None:
            text = _given("prompt_embeds", self.prompt_embeds, self.prompt_attention_mask)
        else:
            assert self.prompt is not None
            text = encoded(self.prompt)
        if self.negative_prompt_embeds is not None:
            null = _given("negative_prompt_embeds", self.negative_prompt_embeds, self.negative_prompt_attention_mask)
        elif self.negative_prompt is not None:
            null = encoded(self.negative_prompt)
        else:
            null = no_text(text, rules, encoded)
        text, null = (TextEmbedding(*(x.to(device) for x in t)) for t in (text, null))
        return text, _one_for_each(null, text)


def _listed(prompts: str | list[str]) -> list[str]:
    listed: list[str] = [prompts] if isinstance(prompts, str) else list(prompts) if isinstance(prompts, list | tuple) else [prompts]
    if not listed:
        raise ValueError("prompt is an empty list; give at least one prompt")
    for prompt in listed:
        if not isinstance(prompt, str):
            raise ValueError(f"a prompt is a {type(prompt).__name__}; give a string, or a list of strings")
    return listed


def _given(name: str, embeds: Tensor, mask: Tensor | None) -> TextEmbedding:
    if embeds.ndim != 3:
        raise ValueError(f"{name} have the shape {tuple(embeds.shape)}; they must be (prompts, tokens, width)")
    if not torch.isfinite(embeds).all():
        raise ValueError(f"{name} hold NaN or infinite values; encode the prompt in a wider dtype (T5 overflows in float16)")
    mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device) if mask is None else mask.bool()
    if mask.shape != embeds.shape[:2] or not mask.any(dim=1).all():
        raise ValueError(f"the mask of {name} is {tuple(mask.shape)}; it must be {tuple(embeds.shape[:2])}, with a token in every row")
    return TextEmbedding(embeds, mask)


def _one_for_each(null: TextEmbedding, text: TextEmbedding) -> TextEmbedding:
    have, want = len(null.embeds), len(text.embeds)
    if have not in (1, want):
        raise ValueError(f"{have} negative prompts for {want} prompts; give one, or one a prompt")
    return null if have == want else TextEmbedding(null.embeds.expand(want, -1, -1), null.mask.expand(want, -1))
