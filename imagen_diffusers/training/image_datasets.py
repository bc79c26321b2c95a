"""Captioned images as training sets for a stage, by index. Images that cannot be used are passed over; see `Example.skipped`."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from .examples import Example, VisitedDataset
from .pyramid import ImageSettings, UnusableError, none_usable
from .reading import Columns, Pyramid, RowReader, as_next


class HeldOutImages(Sequence[Example]):
    """Images of a set that can be used, with their first captions; each is read when it is first asked for, and kept.

    So of several processes each holds those alone that it measures on.
    """

    def __init__(self, dataset: "ImageDataset", indices: list[int]):
        self.dataset, self.indices = dataset, indices
        self._kept: dict[int, Example] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Example:  # pyright: ignore[reportIncompatibleMethodOverride]
        if place not in self._kept:
            self._kept[place] = self.dataset.first(self.indices[place])
        return self._kept[place]


class ImageDataset(VisitedDataset):
    """Captioned images by index.

    Args:
        rows, columns: from `load_rows`.
        settings: what images are made into.
        embed: caption to unpadded embeddings, from a `TextCache`; None to yield captions.
        prompt: the same caption for all images, where `columns` names none.
        seed: of the windows and mirrorings.
        cache_bytes: pyramids are kept in memory up to this many bytes, so that small sets are decoded and resized once.
        names: of the rows whose images have none, to tell of them by; their numbers by default.
    """

    def __init__(
        self,
        rows: Any,
        columns: Columns,
        settings: ImageSettings,
        *,
        embed: Callable[[str], Tensor] | None = None,
        prompt: str | None = None,
        seed: int = 0,
        cache_bytes: int = 2**30,
        names: Sequence[str] | None = None,
    ):
        if not len(rows):
            raise ValueError("the training set is empty")
        self.rows, self.seed, self.names, self._free = rows, seed, names, cache_bytes
        self.reader = RowReader(columns, settings, embed, prompt)
        self._kept: dict[tuple[int, int | None], Pyramid] = {}
        self._unusable: dict[tuple[int, int | None], str] = {}
        self._buckets: list[int] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def visit(self, index: int, number: int) -> Example:
        """The example, or the next one that can be used, cut to the shape of the one it stands for.

        Where none can be cut to that shape, it has the most frequent shape that one can be cut to, as all examples of its batch have then.

        Raises:
            UnusableError: a `ValueError`, when none of the whole set can be used.
        """
        skipped = []
        for shape in self._shapes(index):
            try:
                return self._cut_to(shape, index, number, skipped)
            except UnusableError:
                continue
        raise none_usable(f"the {len(self)} images", skipped)

    def of_shape(self, index: int, number: int) -> Example:
        """As `visit`, of the shape that `buckets` says; raises `UnusableError` where none can be cut to it."""
        return self._cut_to(next(self._shapes(index)), index, number, [])

    def usable(self) -> list[int]:
        """The indices of all images that can be used; `unusable` tells of the others afterwards. Each is decoded."""
        found = []
        for index in range(len(self)):
            try:
                self._pyramid(index, None)
            except UnusableError:
                continue
            found.append(index)
        return found

    def first(self, index: int) -> Example:
        """The example at `index` with its first caption; raises `UnusableError` where it cannot be used."""
        pyramid = self._pyramid(index, None)
        first = replace(pyramid, captions=pyramid.captions[:1])
        return self.reader.example(first, np.random.default_rng((self.seed, index)), [])

    @property
    def unusable(self) -> list[str]:
        """Why images cannot be used, of those that were asked for so far; one that is too small for another shape than its own can be."""
        return [why for (index, shape), why in self._unusable.items() if self._is_of(index, shape)]

    def buckets(self) -> list[int] | None:
        """Which of `ImageSettings.shapes` each image has; None where they are all square, or cut to squares.

        Read from the files' headers, once. What cannot be used has the shape of the next that can, which will stand in its place.
        """
        if not self.reader.settings.has_buckets:
            return None
        if self._buckets is None:
            rows = tqdm(self.rows, total=len(self), desc="reading sizes", disable=len(self) < 10_000)  # one after the other is faster
            self._buckets = as_next([self._bucket(i, row) for i, row in enumerate(rows)])
        return self._buckets

    def _shapes(self, index: int) -> Iterator[int | None]:
        """That of the image at `index`, and then those of the others, the most frequent first; None alone where all have one."""
        buckets = self.buckets()
        yield None if buckets is None else buckets[index]
        for shape, _ in Counter(buckets).most_common():
            yield shape

    def _is_of(self, index: int, shape: int | None) -> bool:
        return shape is None or self._buckets is None or self._buckets[index] == shape

    def _cut_to(self, shape: int | None, index: int, number: int, skipped: list[str]) -> Example:
        """The example at `index`, or the next that can be cut to this shape; `skipped` gets those of this shape that cannot be used."""
        for place in chain(range(index, len(self)), range(index)):
            try:
                pyramid = self._pyramid(place, shape)
            except UnusableError as error:
                skipped += [str(error)] * self._is_of(place, shape)
                continue
            return self.reader.example(pyramid, np.random.default_rng((self.seed, index, number)), skipped)
        raise UnusableError(f"no image can be cut to the shape of image {index}")

    def _bucket(self, index: int, row: dict[str, Any]) -> int | None:
        try:
            return self.reader.bucket(row, self._name(index))
        except UnusableError:
            return None  # as asking for its example will say

    def _name(self, index: int) -> str:
        return f"row {index}" if self.names is None else self.names[index]

    def _pyramid(self, index: int, shape: int | None) -> Pyramid:
        key = index, shape
        if key in self._unusable:
            raise UnusableError(self._unusable[key])
        if key in self._kept:
            return self._kept[key]
        try:
            pyramid = self.reader.pyramid(self.rows[index], self._name(index), shape)
        except UnusableError as error:
            self._unusable[key] = str(error)
            raise
        if pyramid.size <= self._free:
            self._free -= pyramid.size
            self._kept[key] = pyramid
        return pyramid
