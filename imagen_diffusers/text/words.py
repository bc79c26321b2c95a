"""The words that a tokenizer knows, for people to choose from. Knows no encoder."""

import logging
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

MARKS = str.maketrans(',.;:!?"()', " " * 9)  # which stand beside words and are no part of them
MOST_WORDS = 300  # a vocabulary of more is no list to choose from


def unknown_words(prompt: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The words of a prompt, without marks beside them, and the marks, that the tokenizer cannot spell; empty for T5's own."""
    if tokenizer.unk_token_id is None:
        return []
    parts = [*prompt.translate(MARKS).split(), *(mark for mark in dict.fromkeys(prompt) if ord(mark) in MARKS)]
    return [part for part in parts if tokenizer.unk_token_id in tokenizer(part, add_special_tokens=False)["input_ids"]]


def known_words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The whole words of a tokenizer's vocabulary, without its special tokens; none where they are too many to choose from."""
    return sorted(w for w in tokenizer.get_vocab() if w.isalpha()) if len(tokenizer) <= MOST_WORDS else []


def warn_of_unknown_words(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Say which words of prompts the encoder reads as one and the same unknown word, and which it knows, where those are few."""
    unknown = dict.fromkeys(word for prompt in prompts for word in unknown_words(prompt, tokenizer))
    if unknown:
        known = known_words(tokenizer)
        words = f" It knows: {' '.join(known)}" if known else ""
        shown = ", ".join(f'"{word}"' if ord(word[0]) in MARKS else word for word in unknown)
        logger.warning(f"The text encoder never saw: {shown}.{words}")
