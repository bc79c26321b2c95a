"""Captioned images from streams of any size: each process and each of its workers reads rows of its own, and a resumed run goes on there.

A worker reads its rows block by block. A block is shuffled, and rows that cannot be used drop out of it; what is left at its end, too few
for a batch, begins the first batch of the next block. Images of several shapes are sorted within a block. How far a worker came is
therefore the state of its stream before the block, which `datasets` knows, and the number of the block's rows used since. A pass ends a
block.
"""

import copy
import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypedDict

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from .damaged import empty_stream
from .examples import Batch, Example, collate
from .image_datasets import ImageDataset
from .order import BucketSampler, Share, shuffled
from .pyramid import MOST_UNUSABLE, ImageSettings, UnusableError, none_usable
from .reading import Columns, Numbered, RowReader
from .seeds import seed_of

logger = logging.getLogger(__name__)

ORDERED = 256  # rows of a block, about, where they are not shuffled
MANY_REPEATS = 0.1  # share of a block's examples, above which it is told


class Place(TypedDict):
    """How far a worker came."""

    number: int  # of the pass over the stream
    rows: dict[str, Any] | None  # the stream's state before the present block; None at the beginning of the pass
    row: int  # how many rows of the pass come before the block
    block: int  # how many blocks of the pass do
    used: int  # of the block's rows, in their order, that were given or passed over


class Found(NamedTuple):
    """What came of some of a block's rows, one after the other: examples of one shape, or why they cannot be used."""

    used: int  # as of `Place`, with these
    examples: list[Example]
    unusable: list[str]


class ShardedStream(IterableDataset):
    """Batches of a stream that is divided among processes and workers, over and over.

    No process reads the rows of another where the stream has a multiple of as many files as there are processes; otherwise `datasets` has
    each process pass over those of the others, with a warning. Which examples make up a step depends on the number of processes and
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

        over = self.files % share.processes
        if over and not share.rank and self.rows.info.builder_name != "imagefolder":  # whose rows are paths, quickly passed over
            logger.warning(
                f"the stream has {self.files} files, which {share.processes} processes cannot divide among themselves: each reads all of "
                f"them and keeps one row in {share.processes}. Write the data into a multiple of {share.processes} files"
            )
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

    @property
    def _most_unusable(self) -> int:
        """Rows in a row, whole blocks of them."""
        return -(-MOST_UNUSABLE // self.block_size) * self.block_size

    def first_usable(self) -> Example:
        """The first image that can be used, among as many rows as training would pass over.

        Raises:
            ValueError: where there is none.
        """
        reader, unusable = RowReader(self.columns, self.settings, self.embed), []
        for number, row in enumerate(islice(self._rows_of_pass(0, None), self._most_unusable)):
            try:
                return reader.example(reader.pyramid(row, f"row {number}"), np.random.default_rng(self.seed), unusable)
            except UnusableError as error:
                unusable.append(str(error))
        if not unusable:
            raise empty_stream(self.columns.told)
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
        """Batches from a place on; each tells of the rows before its end that cannot be used."""
        examples, told, lost = list[Example](), list[str](), 0
        for start, block in self._blocks(place):
            told += self.columns.told.damage()
            for found in self._found(block, start, worker):
                examples += found.examples
                told += found.unusable
                lost = 0 if found.examples else lost + len(found.unusable)
                if lost >= self._most_unusable:
                    raise none_usable(f"{lost} images in a row", told)
                if len(examples) == self.share.batch_size:
                    batch = collate(examples)
                    batch["skipped"] = [*told, *batch["skipped"]]
                    yield Place(**{**start, "used": found.used}), batch
                    examples, told = [], []

    def _blocks(self, place: Place) -> Iterator[tuple[Place, list[Numbered]]]:
        """Blocks from a place on, each with its own; the first begins where the place's does."""
        start = place
        while True:
            rows = self._rows_of_pass(start["number"], start["rows"])
            numbered, empty = enumerate(rows, start["row"]), start["rows"] is None
            while block := list(islice(numbered, self.block_size)):
                empty = False
                yield start, block
                row, count = start["row"] + len(block), start["block"] + 1
                start = Place(number=start["number"], rows=rows.state_dict(), row=row, block=count, used=0)
            if empty:
                said = "the training stream is empty, or has fewer images than there are processes and workers to read it"
                raise empty_stream(self.columns.told, said)
            start = beginning(start["number"] + 1)

    def _rows_of_pass(self, number: int, state: dict[str, Any] | None) -> Any:
        rows = copy.deepcopy(self.rows)  # since workers share the number of the pass of one object
        if self.shuffle_buffer:
            rows.set_epoch(seed_of(self.seed, number) >> 1)  # of 63 bits; shuffles the files, alike for all processes
        if state is not None:
            rows.load_state_dict(state)
        return rows

    def _found(self, block: list[Numbered], place: Place, worker: int) -> Iterator[Found]:
        """What comes of the block's rows that were not used yet."""
        seed = seed_of(self.seed, place["number"], self.share.rank, worker, place["block"])
        reader = RowReader(self.columns, self.settings, self.embed)
        if self.settings.has_buckets:
            yield from self._by_shape(reader, block, place, worker, seed)
            return
        order = shuffled(len(block), seed, 0) if self.shuffle_buffer else np.arange(len(block))
        for used, index in enumerate(order[place["used"] :], place["used"] + 1):
            number, row = block[index]
            try:
                pyramid = reader.pyramid(row, self._name(number, worker))
            except UnusableError as error:
                yield Found(used, [], [str(error)])
            else:
                yield Found(used, [reader.example(pyramid, np.random.default_rng((seed, int(index), 0)), [])], [])

    def _by_shape(self, reader: RowReader, block: list[Numbered], place: Place, worker: int, seed: int) -> Iterator[Found]:
        """The same, a batch of one shape at a time; a shape's last batch is filled up from its first examples.

        Rows drop out by their files' headers and captions. For those that only decoding tells of others of the block stand in,
        where they can be cut to the shape.
        """
        names, rows, unusable, size = [], [], [], self.share.batch_size
        for number, row in block:
            name = self._name(number, worker)
            try:
                reader.bucket(row, name)
            except UnusableError as error:
                unusable.append(str(error))
                continue
            names.append(name)
            rows.append(row)
        yield Found(place["used"], [], unusable)
        if not rows:
            return
        images = ImageDataset(rows, self.columns, self.settings, embed=self.embed, seed=seed, cache_bytes=0, names=names)
        sampler = BucketSampler(images.buckets() or [], Share(size), seed=seed, start=place["used"] // size, stop=0)
        sampler.stop = sampler.steps_per_pass
        self._warn_of_repeats(len(rows), sampler.steps_per_pass * size, place, worker)
        told = 0
        for step, visits in enumerate(sampler, sampler.start + 1):
            try:
                examples = [images.of_shape(*visit) for visit in visits]
            except UnusableError:  # of all that have this shape
                yield Found(step * size, [], images.unusable[told:])
                told = len(images.unusable)
            else:
                yield Found(step * size, examples, [])

    def _warn_of_repeats(self, rows: int, examples: int, place: Place, worker: int) -> None:
        """Once for each run: one reader tells of its first block."""
        told = self.share.rank or worker or place != beginning()
        if not told and examples - rows > MANY_REPEATS * examples:
            logger.warning(
                f"aspect_buckets fills up the last batch of each shape in a block of the stream: of the first {examples} examples "
                f"{examples - rows} are repeats. A shuffle_buffer larger than {self.block_size} makes them fewer, and so does a "
                "smaller train_batch_size"
            )

    def _name(self, number: int, worker: int) -> str:
        info = get_worker_info()
        alone = self.share.processes == 1 and (info is None or info.num_workers == 1)
        return f"row {number}" if alone else f"row {number} of worker {worker} of process {self.share.rank}"


def beginning(number: int = 0) -> Place:
    """Of the `number`-th pass."""
    return Place(number=number, rows=None, row=0, block=0, used=0)
