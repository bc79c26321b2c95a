"""Words that a frozen encoder learned after its training: each is one or several vectors of its table of input embeddings (textual
inversion, Gal et al., 2022).

A word of n vectors is n tokens of the tokenizer, `<vase>`, `<vase>_1`, ..., as diffusers has them; a prompt says the first, and all of
them are read. Which tokens are such words is kept in the encoder's configuration, and so in the folder that it is saved in. Letters in
shapes: D is the width of the table.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

KEPT = "learned_words"  # in the encoder's configuration: {"words": {word: its vectors}, "rows": of the table before the first}


def learned_words(text_encoder: PreTrainedModel) -> dict[str, int]:
    """The words, and how many vectors each has."""
    return dict(_kept(text_encoder)["words"])


def vectors_of_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, list[int]]:
    """The tokens that are read in place of the first one of a word with several vectors."""
    added: Any = tokenizer.added_tokens_encoder
    found = {token: [token, *_further(word, added)] for word, token in added.items()}
    return {token: tokens for token, tokens in found.items() if len(tokens) > 1}


def add_words(words: Mapping[str, Tensor], tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel) -> None:
    """Give tokenizer and encoder new words, all or none.

    Args:
        words: vectors (D,) or (n, D) of each.

    Raises:
        ValueError: for no words, one that is there already or has a space in it, two that would be read as one, vectors of another shape,
            an encoder without a table, as one that is a graph, and one whose table is offloaded in parts.
    """
    if not words:
        raise ValueError('no words are given; give one at least, as {"<vase>": vectors}')
    table = input_table(text_encoder)
    for word, given in words.items():
        _check_vectors(word, given, table)
    vectors = {word: given.reshape(-1, given.shape[-1]) for word, given in words.items()}
    for word, given in vectors.items():
        _check(word, given, tokenizer)
    names = [name for word, given in vectors.items() for name in names_of(word, len(given))]
    _check_apart(vectors, names, tokenizer, text_encoder)
    before = {"rows": table.num_embeddings, **_kept(text_encoder)}
    tokenizer.add_tokens(names)
    tokens: Any = tokenizer.convert_tokens_to_ids(names)
    if max(tokens) >= table.num_embeddings:
        table = _resized(text_encoder, max(tokens) + 1)
    with torch.no_grad():
        table.weight[tokens] = torch.cat(list(vectors.values())).to(table.weight)
    counts = {word: len(given) for word, given in vectors.items()}
    setattr(text_encoder.config, KEPT, {**before, "words": {**before["words"], **counts}})


def remove_words(words: Sequence[str] | None, tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel) -> None:
    """Take learned words away, all of them where none is named; the others keep their vectors.

    Raises:
        ValueError: for a word that was not learned, and a tokenizer that cannot forget one.
    """
    there = learned_words(text_encoder)
    unknown = [word for word in words or [] if word not in there]
    if unknown or not there:
        known = f"it learned {', '.join(there)}" if there else "it learned none"
        raise ValueError(f"the text encoder learned no {', '.join(unknown) or 'words'}; {known}")
    kept = {word: vectors_of(word, tokenizer, text_encoder) for word in there if words is not None and word not in words}
    _forget({name for word, number in there.items() for name in names_of(word, number)}, tokenizer)
    rows = _kept(text_encoder)["rows"]
    if input_table(text_encoder).num_embeddings != rows:
        _resized(text_encoder, rows)
    delattr(text_encoder.config, KEPT)
    if kept:
        add_words(kept, tokenizer, text_encoder)


def tokens_of(word: str, tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel) -> list[int]:
    """A learned word's tokens, one for each vector."""
    tokens: Any = tokenizer.convert_tokens_to_ids(names_of(word, learned_words(text_encoder)[word]))
    return tokens


def vectors_of(word: str, tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel) -> Tensor:
    """A learned word's vectors (n, D), a copy."""
    return input_table(text_encoder).weight.detach()[tokens_of(word, tokenizer, text_encoder)].clone()


def input_table(text_encoder: PreTrainedModel) -> torch.nn.Embedding:
    """An encoder's input embeddings.

    Raises:
        ValueError: for an encoder without such a table, and one whose weights are not at hand.
    """
    find = getattr(text_encoder, "get_input_embeddings", None)
    table = None if find is None else find()
    if not isinstance(table, torch.nn.Embedding):
        raise ValueError(f"{type(text_encoder).__name__} has no table of input embeddings, and can learn no words")
    if table.weight.is_meta:
        raise ValueError(
            f"the weights of {type(text_encoder).__name__} are offloaded in parts: load words before enable_sequential_cpu_offload()"
        )
    return table


def _kept(text_encoder: PreTrainedModel) -> dict[str, Any]:
    return getattr(text_encoder.config, KEPT, None) or {"words": {}}


def _check_vectors(word: str, vectors: Tensor, table: torch.nn.Embedding) -> None:
    width, shape = table.embedding_dim, tuple(vectors.shape)
    if len(shape) not in (1, 2) or 0 in shape:
        raise ValueError(f'the vectors of "{word}" are a tensor {shape}; give ({width},), or (n, {width}) for n of them')
    if shape[-1] != width:
        raise ValueError(
            f'the vectors of "{word}" are {shape[-1]} wide, and this text encoder takes {width}; load the cascade whose encoder learned '
            "the word; on the command line it is --model"
        )
    if not torch.isfinite(vectors).all():
        raise ValueError(f'the vectors of "{word}" are not finite; this text encoder takes finite ones, {width} wide')


def _check_apart(vectors: Mapping[str, Tensor], names: list[str], tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel) -> None:
    """Refuse "<vase>_1" beside "<vase>", whose second vector it would be."""
    counts = {**learned_words(encoder), **{word: len(given) for word, given in vectors.items()}}
    before: Any = tokenizer.added_tokens_encoder
    added = {*before, *names}
    further = {word: f"{word}_{counts.get(word, 1)}" for word in added}  # which the word does not have
    pairs = [(word, more) for word, more in further.items() if more in added and {*names_of(word, counts.get(word, 1)), more} & {*names}]
    pairs += [(name.rpartition("_")[0], name) for name in names if names.count(name) > 1]
    if pairs:
        raise ValueError(f'"{pairs[0][0]}" and "{pairs[0][1]}" would be read as one word of several vectors; give one another name')


def _check(word: str, vectors: Tensor, tokenizer: PreTrainedTokenizerBase) -> None:
    if not word or any(character.isspace() for character in word):
        raise ValueError(f'"{word}" is no word: give one without spaces, such as "<vase>"')
    taken = [name for name in names_of(word, len(vectors)) if name in tokenizer.get_vocab()]
    if taken:
        raise ValueError(f'the tokenizer has "{taken[0]}" already; give the word another name, such as "<my-{word.strip("<>")}>"')


def names_of(word: str, vectors: int) -> list[str]:
    """What the tokenizer calls the vectors of a word that has so many."""
    return [word, *(f"{word}_{i}" for i in range(1, vectors))]


def _further(word: str, added: Mapping[str, int]) -> list[int]:
    return [added[name] for name in takewhile(added.__contains__, (f"{word}_{i}" for i in count(1)))]


def _resized(text_encoder: PreTrainedModel, rows: int) -> torch.nn.Embedding:
    """The table with so many rows, the same as far as it goes; torch's random state stays as it was."""
    frozen = not input_table(text_encoder).weight.requires_grad
    device = input_table(text_encoder).weight.device
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type if device.type != "cpu" else "cuda"):
        table: Any = text_encoder.resize_token_embeddings(rows, mean_resizing=False)
    table.requires_grad_(not frozen)
    return table


def _forget(names: set[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Take added tokens out of a fast tokenizer, which has no method for it."""
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} cannot forget words; load the tokenizer and the text encoder anew")
    backend: Any = tokenizer.backend_tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    state = json.loads(backend.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in names]
    tokenizer._tokenizer = type(backend).from_str(json.dumps(state))  # pyright: ignore[reportAttributeAccessIssue]
