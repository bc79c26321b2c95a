"""Weights written into a prompt, ``a (red:1.3) sphere``, and their way through cleaning and the tokenizer to one weight a token.

``(words:1.3)`` weights words, and nested weights multiply. ``\\(`` and ``\\)`` are parentheses of the text; so are parentheses
around words without a colon, since captions have them. Knows no embeddings.
"""

import re
from itertools import groupby
from statistics import mean
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from .cleaning import clean_captions
from .learned_words import vectors_of_words
from .prompts import TextRules
from .tokens import count_closing, cut

# Escaped parenthesis | opening one | weight and closing one | closing one | any other character.
PIECES = re.compile(r"\\([()])|(\()|:\s*(\d+\.?\d*|\.\d+)\s*\)|(\))|(.)", re.DOTALL)
LARGEST = 3e38  # of float32
BORDER = "\ue000"  # a character of no language, which cleaning leaves alone


class WeightedText(NamedTuple):
    """A text, and the weight of each of its characters."""

    text: str
    weights: list[float]


class _Group(NamedTuple):
    """An open parenthesis: where its words begin, and whether a colon has come between them."""

    start: int
    colon: bool = False


def read_weights(prompt: str) -> WeightedText:
    """The text a prompt is without its weights, each character with the product of the weights around it.

    Raises:
        ValueError: for parentheses that do not match, a colon without a number after it, infinite weights, weights of no words, and a
            BORDER.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"a prompt is a {type(prompt).__name__}; give a string, or a list of strings")
    if BORDER in prompt:
        raise _unread(prompt, f"holds the character {BORDER!r}", "leave it out")
    characters: list[str] = []
    weights: list[float] = []
    groups: list[_Group] = []
    for escaped, opening, number, closing, other in (match.groups() for match in PIECES.finditer(prompt)):
        if opening:
            groups.append(_Group(len(characters)))
        elif number or closing:
            if not groups:
                raise _unread(prompt, "closes a parenthesis that is not open", r"open it, or write \) for one that is text")
            group = groups.pop()
            inside, own = characters[group.start :], weights[group.start :]
            _check_group(prompt, group, "".join(inside), number)
            characters[group.start :] = inside if number else ["(", *inside, ")"]
            weights[group.start :] = [weight * float(number) for weight in own] if number else [1.0, *own, 1.0]
        else:
            characters.append(escaped or other)
            weights.append(1.0)
            if other == ":" and groups:
                groups[-1] = groups[-1]._replace(colon=True)
    if groups:
        raise _unread(prompt, "opens a parenthesis that is never closed", r"close it, or write \( for one that is text")
    if not all(weight <= LARGEST for weight in weights):  # nor is one that is no number
        raise _unread(prompt, "weights words by more than a number can be", "write about 1.3 to stress words and 0.7 to weaken them")
    return WeightedText("".join(characters), weights)


def weighted_tokens(weighted: WeightedText, tokenizer: PreTrainedTokenizerBase, rules: TextRules) -> tuple[list[int], list[float]]:
    """The tokens that the checkpoint reads of the text, and a weight for each: the mean of its characters' own, spaces left out.

    Special tokens, the end of the text among them, weigh 1.

    Args:
        rules: the checkpoint's, by which the text is cleaned and cut.

    Raises:
        ValueError: for a tokenizer that does not know where in the text its tokens are, and as `cleaned`.
    """
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} does not tell where its tokens are in a prompt; load a fast tokenizer")
    text, weights = cleaned(weighted) if rules.clean_caption else weighted
    found = tokenizer(text, padding=False, truncation=False, verbose=False, return_offsets_mapping=True, return_special_tokens_mask=True)
    each = [_mean_weight(text[start:end], weights[start:end]) for start, end in found["offset_mapping"]]
    several = vectors_of_words(tokenizer)
    read = [(token, weight) for first, weight in zip(found["input_ids"], each, strict=True) for token in several.get(first, (first,))]
    read = cut(read, rules.max_sequence_length, count_closing(found["special_tokens_mask"]))
    return [token for token, _ in read], [weight for _, weight in read]


def cleaned(weighted: WeightedText) -> WeightedText:
    """The text as `clean_captions` makes it, its characters with their weights.

    Raises:
        ValueError: where cleaning changes a text across the border of a weighted part.
    """
    runs = [(weight, "".join(c for c, _ in run)) for weight, run in groupby(zip(*weighted, strict=True), key=lambda pair: pair[1])]
    plain, marked = clean_captions([weighted.text, BORDER.join(text for _, text in runs)])
    parts = marked.split(BORDER)
    if len(parts) != max(len(runs), 1) or "".join(parts) != plain:
        what = "is changed by its cleaning (clean_caption) where a weighted part begins or ends"
        raise _unread(weighted.text, what, f'weight words of the cleaned prompt, "{plain}"')
    return WeightedText(plain, [weight for (weight, _), part in zip(runs, parts, strict=False) for _ in part])


def _mean_weight(text: str, weights: list[float]) -> float:
    own = [weight for character, weight in zip(text, weights, strict=True) if not character.isspace()]
    return mean(own) if own else 1.0  # of equal ones it is that one to the bit


def _check_group(prompt: str, group: _Group, words: str, number: str | None) -> None:
    if group.colon and not number:
        raise _unread(prompt, "has a colon without a number, 0 or more, before )", r"write (words:1.3), or \( and \) for text")
    if number and not words.strip():
        raise _unread(prompt, "weights no words", "put words before the colon, as in (words:1.3)")


def _unread(prompt: str, what: str, remedy: str) -> ValueError:
    return ValueError(f'the prompt "{prompt}" {what}; {remedy}')
