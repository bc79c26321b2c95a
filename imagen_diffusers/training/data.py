"""Which examples make up which step, so that a resumed run sees what an uninterrupted one would have seen."""

from collections.abc import Iterator
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


class Example(TypedDict, total=False):
    """What a training dataset yields.

    `pixel_values` (C, H, W) in [-1, 1] or uint8; `low_res` (C, h, w) likewise, for super-resolution; `prompt`, for a
    network with text.
    """

    pixel_values: Tensor
    low_res: Tensor
    prompt: str


class StepSampler(Sampler[list[int]]):
    """Batches of indices for steps `start` to `stop`: shuffled passes over the data, a function of seed and step alone."""

    def __init__(self, length: int, batch_size: int, *, seed: int, start: int, stop: int):
        if length < 1:
            raise ValueError("the training set is empty")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start, self.stop = start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        order, current = np.empty(0), -1
        for step in range(self.start, self.stop):
            batch = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                if position // self.length != current:
                    current = position // self.length
                    order = np.random.default_rng((self.seed, current)).permutation(self.length)
                batch.append(int(order[position % self.length]))
            yield batch


def collate(examples: list[Example]) -> dict[str, Tensor | list[str]]:
    """Examples to a batch; uint8 pictures become floats in [-1, 1]."""
    batch: dict[str, Tensor | list[str]] = {}
    for key in ("pixel_values", "low_res"):
        if key in examples[0]:
            batch[key] = _to_float(torch.stack([e[key] for e in examples]))  # pyright: ignore[reportTypedDictNotRequiredAccess]
    if "prompt" in examples[0]:
        batch["prompt"] = [e["prompt"] for e in examples]  # pyright: ignore[reportTypedDictNotRequiredAccess]
    return batch


def _to_float(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1 if pictures.dtype == torch.uint8 else pictures
