"""Captions encoded once: unpadded bfloat16 tokens in shards, found by caption.

A folder of `tokens-00000.safetensors`, ..., each with the tokens of many captions end to end, and `index.json`, which says by
which text encoder, and in what it computed. Writing goes on where it stopped, in the same type; reading refuses another encoder's cache.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from imagen_diffusers.text.prompts import PLAIN_TEXT, TextRules, read_prompts

from .fingerprints import fingerprint
from .folders import in_one_rename, one_run_in
from .pyramid import UnusableError

INDEX = "index.json"
KEY = "V16"  # numpy's name of a caption's `_key`


def write_text_cache(
    folder: Path,
    captions: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: PreTrainedModel,
    *,
    rules: TextRules = PLAIN_TEXT,
    batch_size: int = 64,
    captions_per_shard: int = 50_000,
) -> Iterator[int]:
    """Encode captions that are not in the cache yet; yields how many are done after each batch.

    Each shard is written in one rename, so a killed run loses at most the shard it was making; two runs at once would lose more, so the
    second one is refused.

    Args:
        folder: of the cache.
        captions: in any number.
        tokenizer, text_encoder: what encodes them.
        rules: how the checkpoint reads text.
        batch_size: captions encoded at once.
        captions_per_shard: captions of a file.

    Raises:
        ValueError: when `folder` holds the cache of another encoder, of other rules or of the encoder in another type, and when another
            run is writing into it.
    """
    with one_run_in(folder):
        yield from _write(folder, captions, tokenizer, text_encoder, rules, batch_size, captions_per_shard)


def _write(
    folder: Path, captions: Iterable[str], tokenizer, text_encoder, rules: TextRules, batch_size: int, captions_per_shard: int
) -> Iterator[int]:
    print_of = fingerprint(tokenizer, text_encoder, rules)
    computes_in = str(text_encoder.dtype).removeprefix("torch.")
    new_index = {"fingerprint": print_of, "dtype": computes_in, "shards": []}
    index = _read_index(folder) if (folder / INDEX).exists() else new_index
    _check_fingerprint(folder, index["fingerprint"], print_of)
    begun_in = index.get("dtype", "float32")  # as all were before they said so
    if begun_in != computes_in:
        raise ValueError(
            f"the text cache {folder} was encoded in {begun_in}, and the text encoder is in {computes_in}, which gives other values: "
            f"go on in {begun_in} (--dtype {begun_in}), or write a new one in another folder"
        )
    known = {key for shard in index["shards"] for key in _keys(folder / shard).tolist()}
    done = 0

    def new() -> Iterator[str]:
        nonlocal done
        for caption in captions:
            key = _key(caption)
            if key in known:
                done += 1
            else:
                known.add(key)
                yield caption

    unwritten = new()
    while (shard := list(islice(unwritten, captions_per_shard))) or not index["shards"]:
        for count in _write_shard(folder, index, shard, tokenizer, text_encoder, rules, batch_size):
            yield done + count
        done += len(shard)
    yield done


class TextCache:
    """Captions to embeddings, without a text encoder.

    Args:
        folder: written by `write_text_cache`.
        expected: the `fingerprint` of the encoder that training is for.

    Raises:
        ValueError: for no cache, or a stale one.
    """

    def __init__(self, folder: Path, expected: str):
        if not (folder / INDEX).exists():
            raise ValueError(f"{folder} holds no text cache; write one with `imagen-diffusers encode-text`")
        index = _read_index(folder)
        _check_fingerprint(folder, index["fingerprint"], expected)
        self.folder, self.shards = folder, index["shards"]
        keys = [_keys(folder / shard) for shard in self.shards]
        self._starts = np.cumsum([0, *map(len, keys)])  # of the shards
        together = np.concatenate(keys)
        self._places = np.argsort(together, kind="stable")
        self._keys = together[self._places]
        self._open: dict[int, tuple] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, caption: object) -> bool:
        return isinstance(caption, str) and self._place(caption) is not None

    def __getstate__(self) -> dict[str, Any]:
        """For other processes, which open the files themselves."""
        return {**self.__dict__, "_open": {}}

    def __call__(self, caption: str) -> Tensor:
        """Unpadded embeddings (L, D), bfloat16.

        Raises:
            UnusableError: a `ValueError`, for a caption that was never encoded.
        """
        place = self._place(caption)
        if place is None:
            raise UnusableError(f'the text cache {self.folder} lacks "{caption}"; `imagen-diffusers encode-text` adds what is new')
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        if number not in self._open:
            file = safe_open(self.folder / self.shards[number], "pt")
            self._open[number] = (file.get_slice("tokens"), file.get_tensor("ends"))
        tokens, ends = self._open[number]
        row = place - int(self._starts[number])
        return tokens[(int(ends[row - 1]) if row else 0) : int(ends[row])]

    def _place(self, caption: str) -> int | None:
        """Among all captions as they were written; None for one that was not."""
        key = np.array([_key(caption)], KEY)
        found = int(np.searchsorted(self._keys, key)[0])
        return int(self._places[found]) if (self._keys[found : found + 1] == key).any() else None


def _write_shard(folder: Path, index: dict, captions: list[str], tokenizer, text_encoder, rules: TextRules, size: int) -> Iterator[int]:
    tokens, ends = [], []
    rest = iter(captions)
    while batch := list(islice(rest, size)):
        text = read_prompts(batch, tokenizer, text_encoder, rules)
        tokens += [row[mask].bfloat16().cpu() for row, mask in zip(text.embeds, text.mask, strict=True)]
        ends += text.mask.sum(1).tolist()
        yield len(ends)
    keys = torch.from_numpy(np.frombuffer(b"".join(_key(c) for c in captions), np.uint8).copy()).view(-1, 16)
    name = f"tokens-{len(index['shards']):05d}.safetensors"
    with in_one_rename(folder / name) as part:
        save_file(
            {
                "tokens": torch.cat(tokens) if tokens else torch.empty(0, 0, dtype=torch.bfloat16),
                "ends": torch.tensor(ends).cumsum(0),
                "keys": keys,
            },
            part,
        )
    index["shards"].append(name)
    with in_one_rename(folder / INDEX) as part:
        part.write_text(json.dumps(index, indent=1))


def _read_index(folder: Path) -> dict:
    return json.loads((folder / INDEX).read_text())


def _check_fingerprint(folder: Path, have: str, want: str) -> None:
    if have != want:
        raise ValueError(
            f"the text cache {folder} was written by another text encoder, tokenizer or token limit, or other rules ({have}, not {want}), "
            "such as without the packages that clean captions; write a new one in another folder with `imagen-diffusers encode-text`"
        )


def _key(caption: str) -> bytes:
    return hashlib.blake2b(caption.encode(), digest_size=16).digest()


def _keys(path: Path) -> np.ndarray:
    with safe_open(path, "pt") as file:
        return file.get_tensor("keys").numpy().reshape(-1).view(KEY)
