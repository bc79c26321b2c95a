"""What a caller may say of the text: prompts or embeddings, negative or none."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.sampling.stage import Stage
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
        guided: bool = True,
    ) -> tuple[TextEmbedding, TextEmbedding | None]:
        """The text to follow and the text to steer away from, one row a prompt each, on `device`, where the encoder computes.

        Args:
            tokenizer, text_encoder: None where everything is given as embeddings.
            rules: how the checkpoint reads text.
            device: of the embeddings.
            guided: False leaves out what stands for no text, where no text to steer away from is given.

        Raises:
            ValueError: for both or neither of prompt and prompt_embeds, a missing encoder, or counts that differ.
        """
        self._check()

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
            tokenless = rules.null_text == "learned"  # where not one token is what stands for no text
            null = _given("negative_prompt_embeds", self.negative_prompt_embeds, self.negative_prompt_attention_mask, tokenless)
        elif self.negative_prompt is not None:
            null = encoded(self.negative_prompt)
        else:
            null = no_text(text, rules, encoded) if guided else None
        text, null = (t and TextEmbedding(*(x.to(device) for x in t)) for t in (text, null))
        assert text is not None
        return text, null and _one_for_each(null, text)

    def wanted(self, stages: list[Stage], networks: Iterable[StageNetwork]) -> bool:
        """Whether a call embeds its text: where a stage that runs takes text, or another one of the pipeline does and there is some.

        Raises:
            ValueError: for text that no network of the pipeline takes.
        """
        if any(stage.network.text_dim is not None for stage in stages):
            return True
        given = [name for name, value in self._asdict().items() if value is not None]
        if given and all(network.text_dim is None for network in networks):
            raise ValueError(f"the networks of this pipeline take no text; leave out {', '.join(given)}")
        return bool(given)

    def _check(self) -> None:
        """One way of saying each text, and masks only of embeddings that are given."""
        if (self.prompt is None) == (self.prompt_embeds is None):
            raise ValueError("give exactly one of prompt and prompt_embeds")
        if self.negative_prompt is not None and self.negative_prompt_embeds is not None:
            raise ValueError("give negative_prompt or negative_prompt_embeds, not both")
        for name in ("prompt", "negative_prompt"):
            if getattr(self, f"{name}_attention_mask") is not None and getattr(self, f"{name}_embeds") is None:
                raise ValueError(f"{name}_attention_mask is the mask of {name}_embeds, which are not given; leave it out, or give both")


def _listed(prompts: str | list[str]) -> list[str]:
    listed: list[str] = [prompts] if isinstance(prompts, str) else list(prompts) if isinstance(prompts, list | tuple) else [prompts]
    if not listed:
        raise ValueError("prompt is an empty list; give at least one prompt")
    for prompt in listed:
        if not isinstance(prompt, str):
            raise ValueError(f"a prompt is a {type(prompt).__name__}; give a string, or a list of strings")
    return listed


def _given(name: str, embeds: Tensor, mask: Tensor | None, tokenless: bool = False) -> TextEmbedding:
    """Embeddings with their mask, which has a token in every row unless they may be `tokenless`."""
    if embeds.ndim != 3:
        raise ValueError(f"{name} have the shape {tuple(embeds.shape)}; they must be (prompts, tokens, width)")
    if not torch.isfinite(embeds).all():
        raise ValueError(f"{name} hold NaN or infinite values; encode the prompt in a wider dtype (T5 overflows in float16)")
    mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device) if mask is None else mask.bool()
    if mask.shape != embeds.shape[:2] or not (tokenless or mask.any(dim=1).all()):
        tokens = "" if tokenless else ", with a token in every row"
        raise ValueError(f"the mask of {name} is {tuple(mask.shape)}; it must be {tuple(embeds.shape[:2])}{tokens}")
    return TextEmbedding(embeds, mask)


def _one_for_each(null: TextEmbedding, text: TextEmbedding) -> TextEmbedding:
    have, want = len(null.embeds), len(text.embeds)
    if have not in (1, want):
        raise ValueError(f"{have} negative prompts for {want} prompts; give one, or one a prompt")
    return null if have == want else TextEmbedding(null.embeds.expand(want, -1, -1), null.mask.expand(want, -1))
