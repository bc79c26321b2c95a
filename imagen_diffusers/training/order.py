"""Which examples make up which step: functions of the seed and the step alone, so that a resumed run sees what an
uninterrupted one would have seen, and any number of processes sees what one would have seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

Visit = tuple[int, int]  # index of an example, number of the pass over the data


@dataclass(frozen=True)
class Share:
    """One process's part of each step: `accumulation` batches of `batch_size`, of `processes` processes' like it."""

    batch_size: int
    processes: int = 1
    rank: int = 0
    accumulation: int = 1

    @property
    def examples_per_step(self) -> int:
        return self.batch_size * self.processes * self.accumulation

    def whole(self, step: int) -> range:
        """Positions, counted from the start of the run, of all examples of a step."""
        return range(step * self.examples_per_step, (step + 1) * self.examples_per_step)

    def positions(self, step: int, micro: int) -> range:
        """Of the examples of this process's `micro`-th batch."""
        start = self.whole(step).start + (micro * self.processes + self.rank) * self.batch_size
        return range(start, start + self.batch_size)


class StepSampler(Sampler[list[Visit]]):
    """Batches for steps `start` to `stop`: shuffled passes over the data, one after the other."""

    def __init__(self, length: int, share: Share, *, seed: int, start: int, stop: int):
        if length < 1:
            raise ValueError("the training set is empty")
        self.length, self.share, self.seed = length, share, seed
        self.start, self.stop = start, stop

    def __len__(self) -> int:
        return (self.stop - self.start) * self.share.accumulation

    def __iter__(self) -> Iterator[list[Visit]]:
        order, current = np.empty(0), -1
        for step in range(self.start, self.stop):
            for micro in range(self.share.accumulation):
                batch = []
                for position in self.share.positions(step, micro):
                    if position // self.length != current:
                        current = position // self.length
                        order = shuffled(self.length, self.seed, current)
                    batch.append((int(order[position % self.length]), current))
                yield batch


class BucketSampler(Sampler[list[Visit]]):
    """The same for images of several shapes: all examples of a step are of one shape.

    A pass over the data goes over each shape's examples once; the last step of a shape is filled up from its first examples.
    """

    def __init__(self, buckets: Sequence[int], share: Share, *, seed: int, start: int, stop: int):
        if not len(buckets):
            raise ValueError("the training set is empty")
        self.buckets, self.share, self.seed = np.asarray(buckets), share, seed
        self.start, self.stop = start, stop
        size = share.examples_per_step
        self.steps_per_pass = sum(-(-int((self.buckets == b).sum()) // size) for b in np.unique(self.buckets))

    def __len__(self) -> int:
        return (self.stop - self.start) * self.share.accumulation

    def __iter__(self) -> Iterator[list[Visit]]:
        steps, current = [], -1
        for step in range(self.start, self.stop):
            if step // self.steps_per_pass != current:
                current = step // self.steps_per_pass
                steps = self._steps_of_pass(current)
            indices = steps[step % self.steps_per_pass]
            for micro in range(self.share.accumulation):
                first = self.share.positions(0, micro).start
                yield [(int(i), current) for i in indices[first : first + self.share.batch_size]]

    def _steps_of_pass(self, number: int) -> list[np.ndarray]:
        order, size = shuffled(len(self.buckets), self.seed, number), self.share.examples_per_step
        steps = []
        for bucket in np.unique(self.buckets):
            mine = order[self.buckets[order] == bucket]
            filled = np.resize(mine, -(-len(mine) // size) * size)  # repeats from the front
            steps += list(filled.reshape(-1, size))
        return [steps[i] for i in shuffled(len(steps), self.seed + 1, number)]


def shuffled(length: int, seed: int, number: int) -> np.ndarray:
    """The order of a set in a pass: its indices."""
    return np.random.default_rng((seed, number)).permutation(length)
