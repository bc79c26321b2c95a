"""Captions encoded once: unpadded bfloat16 tokens in shards, found by caption.

A folder of `tokens-00000.safetensors`, ..., each with the tokens of many captions end to end, and `index.json`, which says by
which text encoder. Writing goes on where it stopped; reading refuses another encoder's cache.
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
from .folders import in_one_rename

INDEX = "index.json"


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

    Each shard is written in one rename, so a killed run loses at most the shard it was making.

    Args:
        folder: of the cache.
        captions: in any number.
        tokenizer, text_encoder: what encodes them.
        rules: how the checkpoint reads text.
        batch_size: captions encoded at once.
        captions_per_shard: captions of a file.

    Raises:
        ValueError: when `folder` holds the cache of another encoder, or of other rules.
    """
    folder.mkdir(parents=True, exist_ok=True)
    print_of = fingerprint(tokenizer, text_encoder, rules)
    index = _read_index(folder) if (folder / INDEX).exists() else {"fingerprint": print_of, "shards": []}
    _check_fingerprint(folder, index["fingerprint"], print_of)
    known = {key for shard in index["shards"] for key in _keys(folder / shard)}
    done, new = 0, []
    for caption in captions:
        key = _key(caption)
        if key in known:
            done += 1
            continue
        known.add(key)
        new.append(caption)
        if len(new) == captions_per_shard:
            for count in _write_shard(folder, index, new, tokenizer, text_encoder, rules, batch_size):
                yield done + count
            done, new = done + len(new), []
    if new or not index["shards"]:
        for count in _write_shard(folder, index, new, tokenizer, text_encoder, rules, batch_size):
            yield done + count
        done += len(new)
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
        self._place = {key: (n, row) for n, shard in enumerate(keys) for row, key in enumerate(shard)}
        self._open: dict[int, tuple] = {}

    def __len__(self) -> int:
        return len(self._place)

    def __getstate__(self) -> dict[str, Any]:
        """For other processes, which open the files themselves."""
        return {**self.__dict__, "_open": {}}

    def __call__(self, caption: str) -> Tensor:
        """Unpadded embeddings (L, D), bfloat16.

        Raises:
            ValueError: for a caption that was never encoded.
        """
        place = self._place.get(_key(caption))
        if place is None:
            raise ValueError(f'the text cache {self.folder} lacks "{caption}"; `imagen-diffusers encode-text` adds what is new')
        number, row = place
        if number not in self._open:
            file = safe_open(self.folder / self.shards[number], "pt")
            self._open[number] = (file.get_slice("tokens"), file.get_tensor("ends").tolist())
        tokens, ends = self._open[number]
        return tokens[(ends[row - 1] if row else 0) : ends[row]]


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


def _keys(path: Path) -> list[bytes]:
    with safe_open(path, "pt") as file:
        return [row.tobytes() for row in file.get_tensor("keys").numpy()]
