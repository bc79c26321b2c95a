"""The words that a tokenizer knows, for people to choose from. Knows no encoder."""

from transformers import PreTrainedTokenizerBase

MARKS = str.maketrans(',.;:!?"()', " " * 9)  # which stand beside words and are no part of them
MOST_WORDS = 300  # a vocabulary of more is no list to choose from


def unknown_words(prompt: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The words of a prompt, without marks beside them, that the tokenizer cannot spell; empty for T5's own."""
    if tokenizer.unk_token_id is None:
        return []
    return [w for w in prompt.translate(MARKS).split() if tokenizer.unk_token_id in tokenizer(w, add_special_tokens=False)["input_ids"]]


def known_words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The whole words of a tokenizer's vocabulary, without its special tokens; none where they are too many to choose from."""
    return sorted(w for w in tokenizer.get_vocab() if w.isalpha()) if len(tokenizer) <= MOST_WORDS else []
