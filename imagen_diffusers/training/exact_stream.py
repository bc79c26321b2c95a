"""Captioned images in the very order of a stream, the same on any number of processes."""

import copy
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset

from .damaged import empty_stream
from .examples import Example
from .order import Share
from .pyramid import MOST_UNUSABLE, ImageSettings, UnusableError, none_usable
from .reading import Columns, Numbered, RowReader


class ImageStream(IterableDataset):
    """Captioned images in the order of a stream, over and over; one process's share of them, each process reading all.

    The example at a position of the run is the row at that position, or the next that can be used; so a stream too resumes where
    it was, and is the same on any number of processes.

    Args:
        rows, columns: from `load_rows` with `streaming`.
        settings, embed, seed: as for `ImageDataset`.
        shuffle_buffer: rows that are held to draw the next one from; 0 keeps their order.

    Raises:
        ValueError: for images of several shapes, which `ShardedStream` can sort.
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
        if settings.has_buckets:
            raise ValueError("exact_stream takes images in their order and cannot sort them by shape; leave it or aspect_buckets out")
        self.rows = rows.shuffle(seed=seed, buffer_size=shuffle_buffer) if shuffle_buffer else rows
        self.reader = RowReader(columns, settings, embed)
        self.seed, self.share, self.start = seed, Share(1), 0

    def at(self, share: Share, start: int) -> "ImageStream":
        """The same stream, as one process reads its share of it from step `start` on."""
        stream = copy.copy(self)
        stream.share, stream.start = share, start
        return stream

    def __iter__(self) -> Iterator[Example]:
        ahead: deque[Numbered] = deque()  # rows from `first` on that were read already
        rows, first = self._forever(), 0
        for step in itertools.count(self.start):
            for micro in range(self.share.accumulation):
                for position in self.share.positions(step, micro):
                    while first < position:
                        ahead.popleft() if ahead else next(rows)
                        first += 1
                    yield self._first_usable(position, ahead, rows)

    def _first_usable(self, position: int, ahead: deque[Numbered], rows: Iterator[Numbered]) -> Example:
        skipped = []
        for offset in range(MOST_UNUSABLE):
            if offset == len(ahead):
                ahead.append(next(rows))
            number, row = ahead[offset]
            try:
                pyramid = self.reader.pyramid(row, f"row {number}")
            except UnusableError as error:
                skipped.append(str(error))
                continue
            return self.reader.example(
                pyramid, np.random.default_rng((self.seed, position)), [*self.reader.columns.told.damage(), *skipped]
            )
        raise none_usable(f"{MOST_UNUSABLE} images in a row", skipped)

    def _forever(self) -> Iterator[Numbered]:
        for number in itertools.count():
            self.rows.set_epoch(number)
            empty = True
            for numbered in enumerate(self.rows):
                empty = False
                yield numbered
            if empty:
                raise empty_stream(self.reader.columns.told)
