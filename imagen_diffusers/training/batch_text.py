"""The text of a run's batches as the network is given it: captions encoded now, or embeddings from before."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from imagen_diffusers.text.encoding import TextEmbedding, warning_once
from imagen_diffusers.text.prompts import TextRules, read_prompts

from .examples import Batch


class TextReader:
    """What a run reads text with; puts the encoder on the run's device, and freezes it.

    Args:
        tokenizer, text_encoder: None where all examples bring embeddings.
        rules: how captions are read; embeddings longer than they say are refused.
        null_text: one row, what stands for no text; None for zeros.
        device: of the run.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        text_encoder: PreTrainedModel | None,
        rules: TextRules,
        null_text: TextEmbedding | None,
        device: torch.device,
    ):
        self.tokenizer, self.text_encoder, self.rules, self.device = tokenizer, text_encoder, rules, device
        self._warn = warning_once()  # captions come again in every pass
        self.null_text = None if null_text is None else self._moved(null_text)
        if text_encoder is not None:
            text_encoder.to(device).eval().requires_grad_(False)  # pyright: ignore[reportArgumentType]

    def read(self, batch: Batch) -> TextEmbedding:
        """One row for each example, in float32 on the run's device.

        Raises:
            ValueError: for examples without embeddings or captions that can be encoded, and for embeddings that are too long.
        """
        if "text" in batch:
            tokens, most = batch["text"].mask.shape[1], self.rules.max_sequence_length
            if tokens > most:
                raise ValueError(
                    f"embeddings of {tokens} tokens, and max_sequence_length is {most}: what was encoded once is not cut; "
                    "raise max_sequence_length, or encode captions of so many tokens"
                )
            return self._moved(batch["text"])
        if "prompt" not in batch or self.text_encoder is None or self.tokenizer is None:
            raise ValueError("this network takes text: give captions with a text encoder, or examples with prompt_embeds")
        return self._moved(read_prompts(batch["prompt"], self.tokenizer, self.text_encoder, self.rules, warn=self._warn))

    def _moved(self, text: TextEmbedding) -> TextEmbedding:
        embeds, mask = (part.to(self.device, non_blocking=self.device.type == "cuda") for part in text)
        return TextEmbedding(embeds.float(), mask)
