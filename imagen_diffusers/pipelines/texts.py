"""A call's texts: the one to follow and the one to steer away from, as embeddings, one row for each image."""

from typing import Any

import torch
from torch import Tensor

from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.sampling.stage import Stage
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.text.prompts import TextRules, no_text_row

from .arguments import check_count, check_text_fits
from .compiling import as_compiled
from .request import Request
from .text_inputs import TextInputs

Texts = tuple[TextEmbedding | None, TextEmbedding | None]  # both None for networks without text, the second one without guidance


class TextsMixin:
    """What a pipeline makes of prompts and embeddings, by its text encoder."""

    tokenizer: Any
    text_encoder: Any
    config: Any
    networks: dict[int, StageNetwork]
    _execution_device: torch.device

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        do_classifier_free_guidance: bool = True,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Prompts to what a call takes in their place.

        Args:
            prompt, negative_prompt, num_images_per_prompt, prompt_embeds, ...: as in a call.
            do_classifier_free_guidance: False leaves the negative ones None, where none are given.
            device: where the results are; by default where the encoder computes.

        Returns:
            prompt_embeds (N, L, D), negative_prompt_embeds (N, M, D), prompt_attention_mask (N, L) and
            negative_prompt_attention_mask (N, M), with N = prompts x num_images_per_prompt, masks True at tokens.

        Raises:
            ValueError: for text that is said in no way or in two, and counts and widths that do not fit.
        """
        check_count("num_images_per_prompt", num_images_per_prompt)
        given = TextInputs(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, prompt_attention_mask, negative_prompt_attention_mask
        )
        text, null = self._embedded(given, do_classifier_free_guidance)
        embeds, mask = _repeated(text, num_images_per_prompt, device)
        null_embeds, null_mask = (None, None) if null is None else _repeated(null, num_images_per_prompt, device)
        return embeds, null_embeds, mask, null_mask

    def _texts(self, request: Request, stages: list[Stage], rows: int) -> tuple[Texts, int]:
        """The text to follow and the one to steer away from, one row for each image, and the number of prompts.

        Args:
            request: unprompted, it follows the embedding of no text.
            stages: those that run.
            rows: prompts, where the stages take none.
        """
        networks = self.networks.values()
        if not request.text.wanted(stages, networks):
            return (None, None), request.text.count(rows)
        count = request.num_images_per_prompt
        if request.unprompted:
            text = null_text = self._no_text(stages, rows * count)
        else:
            guided = self._may_be_guided(request, stages)
            given = {**request.text._asdict(), "num_images_per_prompt": count, "do_classifier_free_guidance": guided}
            embeds, null_embeds, mask, null_mask = self.encode_prompt(**given)
            text = TextEmbedding(embeds, mask)
            null_text = None if null_embeds is None or null_mask is None else TextEmbedding(null_embeds, null_mask)
        check_text_fits(stages, text)
        longest = self.config["max_sequence_length"]
        return (as_compiled(text, networks, longest), as_compiled(null_text, networks, longest)), len(text.embeds) // count

    def _may_be_guided(self, request: Request, stages: list[Stage]) -> bool:
        """Whether a call needs a text to steer away from: a stage is guided, or a callback might begin it where that text can be had."""
        if any(stage.guidance_scale != 1 or stage.guider is not None for stage in stages):
            return True
        at_hand = self.text_encoder is not None or self.config["null_text"] != "empty" or request.text.negative_prompt_embeds is not None
        return request.callback_on_step_end is not None and at_hand

    def _no_text(self, stages: list[Stage], rows: int) -> TextEmbedding:
        """The embedding of no text, in place of prompts: so many rows."""
        width = next(stage.network.text_dim for stage in stages if stage.network.text_dim is not None)
        none = no_text_row(width, TextRules.of(self.config), lambda texts: self._embedded(TextInputs(texts), guided=False)[0])
        if none is None:
            none = TextEmbedding(torch.zeros(1, 1, width), torch.ones(1, 1, dtype=torch.bool))
        return _repeated(none, rows, self._execution_device)

    def _embedded(self, given: TextInputs, guided: bool) -> tuple[TextEmbedding, TextEmbedding | None]:
        """As `TextInputs.embed`, by this pipeline's encoder, where it computes."""
        return given.embed(self.tokenizer, self.text_encoder, TextRules.of(self.config), self._execution_device, guided)


def _repeated(text: TextEmbedding, count: int, device: torch.device | str | None) -> TextEmbedding:
    """Each row so many times, one after another, on `device`, or where it is."""
    return TextEmbedding(*(x.repeat_interleave(count, 0).to(device) for x in text))
