"""What a caller may say of the text: prompts or embeddings, negative or none."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.sampling.stage import Stage
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.text.prompts import TextRules, cleaned, no_text, read_prompts
from imagen_diffusers.text.words import warn_of_unknown_words

from .text_checks import check_one_for_each, checked, listed, one_for_each


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
        text_encoder: PreTrainedModel | None,
        rules: TextRules,
        device: torch.device,
        guided: bool = True,
    ) -> tuple[TextEmbedding, TextEmbedding | None]:
        """The text to follow and the text to steer away from, one row a prompt each, on `device`, where the encoder computes.

        Args:
            tokenizer, text_encoder, rules: the pipeline's; None for the first two where everything is given as embeddings.
            device: of the embeddings.
            guided: False leaves out what stands for no text, where no text to steer away from is given.

        Raises:
            ValueError: for both or neither of prompt and prompt_embeds, a missing encoder, or counts that differ.
        """
        self._check()

        def encoded(prompts: str | list[str], lacks: str = "; give embeddings") -> TextEmbedding:
            if tokenizer is None or text_encoder is None:
                raise ValueError(f"this pipeline has no text encoder{lacks}, or load it with text_encoder and tokenizer")
            texts = cleaned(listed(prompts), rules)
            warn_of_unknown_words(texts, tokenizer)
            return read_prompts(texts, tokenizer, text_encoder, rules._replace(clean_caption=False), device)

        learned = rules.null_text == "learned"  # as imagen-pytorch has it, which pads with zeros; not one token stands for no text
        if self.prompt_embeds is not None:
            text = checked("prompt_embeds", self.prompt_embeds, self.prompt_attention_mask, zeros_pad=learned)
        else:
            assert self.prompt is not None
            text = encoded(self.prompt)
        if self.negative_prompt_embeds is not None:
            given = self.negative_prompt_embeds, self.negative_prompt_attention_mask
            null = checked("negative_prompt_embeds", *given, tokenless=learned, zeros_pad=learned)
        elif self.negative_prompt is not None:
            null = encoded(self.negative_prompt)
        else:
            lacks = ", and guidance starts from the encoding of no words; give negative_prompt_embeds"
            null = no_text(text, rules, lambda nothing: encoded(nothing, lacks)) if guided else None
        text, null = (t and TextEmbedding(*(x.to(device) for x in t)) for t in (text, null))
        assert text is not None
        return text, null and one_for_each(null, text)

    def wanted(self, stages: list[Stage], networks: Iterable[StageNetwork]) -> bool:
        """Whether a call embeds its text: where a stage that runs takes some. Where another one of the pipeline would, it only counts.

        Raises:
            ValueError: for text that no network of the pipeline takes.
        """
        if any(stage.network.text_dim is not None for stage in stages):
            return True
        given = [name for name, value in self._asdict().items() if value is not None]
        if given and all(network.text_dim is None for network in networks):
            raise ValueError(f"the networks of this pipeline take no text; leave out {', '.join(given)}")
        return False

    def count(self, rows: int) -> int:
        """How many prompts there are, without an encoder; `rows` where nothing is said.

        Raises:
            ValueError: for both or neither of prompt and prompt_embeds beside other text, and for counts that differ.
        """
        if all(value is None for value in self):
            return rows
        self._check()
        if self.prompt_embeds is not None:
            prompts = len(checked("prompt_embeds", self.prompt_embeds, self.prompt_attention_mask).embeds)
        else:
            assert self.prompt is not None
            prompts = len(listed(self.prompt))
        if self.negative_prompt is not None:
            check_one_for_each(len(listed(self.negative_prompt)), prompts)
        elif self.negative_prompt_embeds is not None:
            check_one_for_each(len(self.negative_prompt_embeds), prompts)
        return prompts

    def _check(self) -> None:
        """One way of saying each text, and masks only of embeddings that are given."""
        if (self.prompt is None) == (self.prompt_embeds is None):
            raise ValueError("give exactly one of prompt and prompt_embeds")
        if self.negative_prompt is not None and self.negative_prompt_embeds is not None:
            raise ValueError("give negative_prompt or negative_prompt_embeds, not both")
        for name in ("prompt", "negative_prompt"):
            if getattr(self, f"{name}_attention_mask") is not None and getattr(self, f"{name}_embeds") is None:
                raise ValueError(f"{name}_attention_mask is the mask of {name}_embeds, which are not given; leave it out, or give both")
