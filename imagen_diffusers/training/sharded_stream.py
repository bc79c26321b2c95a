"""Captioned images from streams of any size: each process and each of its workers reads rows of its own, and a resumed run goes on there.

A worker reads its rows block by block, and a block is a small training set: shuffled, sorted by shape and cut into batches as a set is. How
far a worker came is therefore the state of its stream before the block, which `datasets` knows, and the number of batches taken since.
A pass ends a block; rows too few for one more batch begin the first block of the next pass.
"""

import copy
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypedDict

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from .examples import Batch, Example, collate
from .image_datasets import ImageDataset
from .order import BucketSampler, Share, StepSampler, Visit
from .pyramid import MOST_UNUSABLE, ImageSettings, UnusableError, none_usable
from .reading import Columns, RowReader
from .seeds import seed_of

ORDERED = 256  # rows of a block, about, where they are not shuffled

Numbered = tuple[int, Any]  # a row, and which one it is of those that its worker reads in the pass


class Place(TypedDict):
    """How far a worker came."""

    number: int  # of the pass over the stream
    rows: dict[str, Any] | None  # the stream's state before the present block; None at the beginning of the pass
    row: int  # how many rows of the pass come before the block
    block: int  # how many blocks of the pass do
    taken: int  # batches of the block that were given


class ShardedStream(IterableDataset):
    """Batches of a stream that is divided among processes and workers, over and over.

    No process reads the rows of another where the stream has at least as many files as processes, in a multiple of them; otherwise
    `datasets` has each process pass over those of the others. Which examples make up a step depends on the number of processes and
    workers: `ImageStream` is the same on any number of them, and reads everything everywhere for that.

    Args:
        rows, columns: from `load_rows` with `streaming`.
        settings, embed, seed: as for `ImageDataset`.
        shuffle_buffer: rows of a block, which are shuffled among each other, and so are files; 0 keeps the order of both.
    """

    def __init__(
        self,
        rows: Any,
        columns: Columns,
        settings: ImageSettings,
        *,
        embed: Callable[[str], Tensor] | None = None,
        seed: int = 0,
        shuffle_buffer: int = 0,
    ):
        self.rows, self.columns, self.settings, self.embed = rows, columns, settings, embed
        self.seed, self.shuffle_buffer = seed, shuffle_buffer
        self.share, self.places, self.turn = Share(1), [beginning()], 0

    def part_of(self, share: Share) -> "ShardedStream":
        """The same stream as one process reads its part of it."""
        from datasets.distributed import split_dataset_by_node

        stream = copy.copy(self)
        stream.rows, stream.share = split_dataset_by_node(self.rows, share.rank, share.processes), share
        return stream

    def at(self, places: list[Place], turn: int) -> "ShardedStream":
        """The same stream from where its workers were, the `turn`-th of them being the next to give a batch."""
        stream = copy.copy(self)
        stream.places, stream.turn = places, turn
        return stream

    @property
    def files(self) -> int:
        """What workers divide among themselves."""
        return self.rows.num_shards

    @property
    def block_size(self) -> int:
        """Rows of a block, whole batches of them."""
        return -(-(self.shuffle_buffer or ORDERED) // self.share.batch_size) * self.share.batch_size

    def first_usable(self) -> Example:
        """The first image that can be used, among as many rows as training would pass over.

        Raises:
            ValueError: where there is none.
        """
        reader, unusable = RowReader(self.columns, self.settings, self.embed), []
        limit = -(-MOST_UNUSABLE // self.block_size) * self.block_size
        for number, row in enumerate(islice(self._rows_of_pass(0, None), limit)):
            try:
                return reader.example(reader.pyramid(row, f"row {number}"), np.random.default_rng(self.seed), unusable)
            except UnusableError as error:
                unusable.append(str(error))
        if not unusable:
            raise ValueError("the training stream is empty")
        raise none_usable(f"{len(unusable)} images in a row", unusable)

    def __iter__(self) -> Iterator[tuple[int, Place, Batch] | None]:
        """A worker's number, its place after a batch, and the batch; None where it lets others go first."""
        info = get_worker_info()
        worker = 0 if info is None else info.id
        if worker < self.turn:
            yield None
        for place, batch in self._batches(self.places[worker], worker):
            yield worker, place, batch

    def _batches(self, place: Place, worker: int) -> Iterator[tuple[Place, Batch]]:
        """Batches from a place on. Those of a block without a usable image are left out, and told of by the next batch."""
        told, lost = [], 0
        for start, block in self._blocks(place):
            for taken, (batch, unusable) in enumerate(self._batches_of_block(block, start, worker), start["taken"] + 1):
                told += unusable
                if batch is None:
                    lost += self.share.batch_size
                    if lost >= MOST_UNUSABLE:
                        raise none_usable(f"{lost} images in a row", told)
                    continue
                batch["skipped"] = [*told, *batch["skipped"]]
                told, lost = [], 0
                yield Place(**{**start, "taken": taken}), batch

    def _blocks(self, place: Place) -> Iterator[tuple[Place, list[Numbered]]]:
        """Blocks of whole batches from a place on, each with its own.

        A block ends where a pass does, but for rows too few for a batch: these begin the next block, whose place is therefore still in
        the pass before.
        """
        size, start, block = self.share.batch_size, place, []
        number, state, row = place["number"], place["rows"], place["row"]
        while True:
            rows = self._rows_of_pass(number, state)
            read, empty = enumerate(rows, row), state is None
            while few := list(islice(read, size - len(block) % size)):
                empty = False
                block += few
                row += len(few)
                if len(block) % size:
                    break  # the pass has ended
                state = rows.state_dict()
                if len(block) == self.block_size:
                    yield start, block
                    start, block = Place(number=number, rows=state, row=row, block=_next(start, number), taken=0), []
            if empty:
                raise ValueError("the training stream is empty, or has fewer images than there are processes and workers to read it")
            if whole := len(block) // size * size:
                yield start, block[:whole]
                few = block[whole:]  # which came after `state`
                start, block = Place(number=number, rows=state, row=row - len(few), block=_next(start, number), taken=0), few
            number, state, row = number + 1, None, 0
            start = start if block else beginning(number)

    def _rows_of_pass(self, number: int, state: dict[str, Any] | None) -> Any:
        rows = copy.deepcopy(self.rows)  # since workers share the number of the pass of one object
        if self.shuffle_buffer:
            rows.set_epoch(seed_of(self.seed, number) >> 1)  # of 63 bits; shuffles the files, alike for all processes
        if state is not None:
            rows.load_state_dict(state)
        return rows

    def _batches_of_block(self, block: list[Numbered], place: Place, worker: int) -> Iterator[tuple[Batch | None, list[str]]]:
        """Those that were not taken yet, or None for each where the block has no usable image, and why each of its images is not."""
        seed = seed_of(self.seed, place["number"], self.share.rank, worker, place["block"])
        names, rows = [self._name(number, worker) for number, _ in block], [row for _, row in block]
        images = ImageDataset(rows, self.columns, self.settings, embed=self.embed, seed=seed, cache_bytes=0, names=names)
        for visits in self._order(images, seed, place["taken"]):
            try:
                yield collate([images.visit(*visit) for visit in visits]), []
            except UnusableError:
                yield None, images.unusable

    def _name(self, number: int, worker: int) -> str:
        info = get_worker_info()
        alone = self.share.processes == 1 and (info is None or info.num_workers == 1)
        return f"row {number}" if alone else f"row {number} of worker {worker} of process {self.share.rank}"

    def _order(self, images: ImageDataset, seed: int, start: int) -> Iterator[list[Visit]]:
        size, buckets = self.share.batch_size, images.buckets()
        if buckets is not None:
            sampler = BucketSampler(buckets, Share(size), seed=seed, start=start, stop=start)
            sampler.stop = sampler.steps_per_pass
            return iter(sampler)
        steps = -(-len(images) // size)
        if self.shuffle_buffer:
            return iter(StepSampler(len(images), Share(size), seed=seed, start=start, stop=steps))
        return ([(i % len(images), 0) for i in range(step * size, (step + 1) * size)] for step in range(start, steps))


def _next(start: Place, number: int) -> int:
    """The number in pass `number` of the block after the one at `start`, which may have begun in the pass before."""
    return start["block"] + 1 if start["number"] == number else 1


def beginning(number: int = 0) -> Place:
    """Of the `number`-th pass."""
    return Place(number=number, rows=None, row=0, block=0, taken=0)
