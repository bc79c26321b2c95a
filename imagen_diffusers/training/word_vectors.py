"""The vectors of a word while they are learned (textual inversion, Gal et al., 2022): a frozen encoder reads prompts with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from imagen_diffusers.text.encoding import TextEmbedding, encode, warning_once
from imagen_diffusers.text.learned_words import input_table, tokens_of, vectors_of
from imagen_diffusers.text.prompts import TextRules, cleaned


class WordVectors(torch.nn.Module):
    """Called with prompts, their embeddings (B, L, D) and mask (B, L), by which gradients reach the word's vectors and nothing else.

    The parameter is in units of the root mean square of the encoder's table, which differs a thousandfold among encoders; so one learning
    rate does for all of them.

    Args:
        word: that tokenizer and encoder have (`learned_words.add_words`); its vectors there are where learning begins.
        tokenizer, text_encoder: the cascade's, put into evaluation mode and frozen.
        rules: how prompts are read.
    """

    def __init__(self, word: str, tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel, rules: TextRules):
        super().__init__()
        text_encoder.eval().requires_grad_(False)
        self._reader = (tokenizer, text_encoder)  # in a tuple, where torch looks for no parameters
        self.rules, self._warn = rules, warning_once()
        table = input_table(text_encoder).weight
        self.tokens = torch.tensor(tokens_of(word, tokenizer, text_encoder), device=table.device)
        self.unit = table.float().square().mean().sqrt().item()
        self.vectors = torch.nn.Parameter(vectors_of(word, tokenizer, text_encoder).float() / self.unit)

    def forward(self, prompts: list[str]) -> TextEmbedding:
        tokenizer, text_encoder = self._reader
        own_precision = torch.autocast(self.vectors.device.type, enabled=False)  # in float16 T5 overflows
        with own_precision, self._in_the_table():
            how: dict[str, Any] = {"padding": self.rules.text_padding, "warn": self._warn, "gradient": True}
            text = encode(cleaned(prompts, self.rules), tokenizer, text_encoder, self.rules.max_sequence_length, **how)
        return TextEmbedding(text.embeds.float(), text.mask)

    def learned(self) -> Tensor:
        """The vectors (n, D) as the table has them."""
        return self.vectors.detach() * self.unit

    def write(self) -> None:
        """Put them into the encoder's table, for those who read prompts by it."""
        with torch.no_grad():
            table = input_table(self._reader[1]).weight
            table[self.tokens] = self.learned().to(table)

    @contextmanager
    def _in_the_table(self) -> Iterator[None]:
        """A table with the vectors in the place of the encoder's own, wherever it stands: T5 has it twice."""
        text_encoder = self._reader[1]
        own: Any = input_table(text_encoder).weight
        with_vectors = own.detach().index_copy(0, self.tokens, (self.vectors * self.unit).to(own))
        places = [(module, name) for module in text_encoder.modules() for name, p in module._parameters.items() if p is own]
        for module, name in places:
            module._parameters.pop(name)
            setattr(module, name, with_vectors)
        try:
            yield
        finally:
            for module, name in places:
                delattr(module, name)
                module.register_parameter(name, own)
