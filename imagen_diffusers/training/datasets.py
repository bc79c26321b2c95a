"""Captioned pictures from wherever Hugging Face `datasets` reads them, as training sets for a stage.

A folder of pictures with `metadata.jsonl`, Parquet files, tar shards in WebDataset's layout or a Hub id; in whole or as a
stream. Pictures that cannot be used are passed over and told of; see `Example.skipped`.
"""

import copy
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset
from tqdm import tqdm

from .data import Example, VisitedDataset
from .pyramid import PictureSettings, UnusableError
from .reading import Columns, Pyramid, RowReader, as_next
from .sampling import Share

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp")
CAPTION_COLUMNS = ("text", "caption", "txt", "prompt")


@dataclass(frozen=True)
class DataSettings:
    """Where captioned pictures are. Field names are the flags of diffusers' training scripts."""

    train_data_dir: Path | None = field(
        default=None, metadata={"help": "Folder of pictures with metadata.jsonl, of Parquet, or of tar shards."}
    )
    dataset_name: str | None = field(default=None, metadata={"help": "Hub id, in place of train_data_dir."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Which configuration of the Hub dataset."})
    image_column: str | None = field(default=None, metadata={"help": f"By default the first there of: {', '.join(IMAGE_COLUMNS)}."})
    caption_column: str | None = field(default=None, metadata={"help": f"By default the first there of: {', '.join(CAPTION_COLUMNS)}."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use the first so many."})
    streaming: bool = field(default=False, metadata={"help": "Read as a stream, in its own order, without unpacking it first."})
    shuffle_buffer: int = field(default=1000, metadata={"help": "Of a stream: rows shuffled among each other; 0 keeps their order."})
    exact_stream: bool = field(
        default=False,
        metadata={
            "help": "Of a stream: steps are the same on any number of processes, each of which then reads everything, by one worker."
        },
    )
    text_cache: Path | None = field(default=None, metadata={"help": "Folder written by `imagen-diffusers encode-text`."})
    cache_dir: Path | None = field(default=None, metadata={"help": "Where `datasets` keeps what it unpacks."})

    def __post_init__(self) -> None:
        if (self.train_data_dir is None) == (self.dataset_name is None):
            raise ValueError("give exactly one of train_data_dir and dataset_name")


def load_rows(settings: DataSettings, *, captions: bool = True) -> tuple[Any, Columns]:
    """The rows, pictures still encoded, as `datasets` gives them, and which columns to read.

    Raises:
        ValueError: for a place without pictures, or pictures without captions.
    """
    import datasets

    rows, there = _rows(settings)
    image = _column("image", settings.image_column, IMAGE_COLUMNS, there)
    caption = _column("caption", settings.caption_column, CAPTION_COLUMNS, there) if captions else None
    return rows.cast_column(image, datasets.Image(decode=False)), Columns(image, caption)


def load_captions(settings: DataSettings) -> tuple[Iterator[str], int]:
    """Every caption, pictures unread, and how many there are.

    Raises:
        ValueError: as `load_rows`.
    """
    rows, there = _rows(settings)
    column = _column("caption", settings.caption_column, CAPTION_COLUMNS, there)
    captions = rows.select_columns([column])
    return (row[column] for row in captions if isinstance(row[column], str) and row[column].strip()), len(rows)


class PictureDataset(VisitedDataset):
    """Captioned pictures by index.

    Args:
        rows, columns: from `load_rows`.
        settings: what pictures are made into.
        embed: caption to unpadded embeddings, from a `TextCache`; None to yield captions.
        prompt: the same caption for all pictures, where `columns` names none.
        seed: of the windows and mirrorings.
        cache_bytes: pyramids are kept in memory up to this many bytes, so that small sets are decoded and resized once.
        first: number of the first row, for telling of rows without a name.
    """

    def __init__(
        self,
        rows: Any,
        columns: Columns,
        settings: PictureSettings,
        *,
        embed: Callable[[str], Tensor] | None = None,
        prompt: str | None = None,
        seed: int = 0,
        cache_bytes: int = 2**30,
        first: int = 0,
    ):
        if not len(rows):
            raise ValueError("the training set is empty")
        self.rows, self.seed, self.first, self._free = rows, seed, first, cache_bytes
        self.reader = RowReader(columns, settings, embed, prompt)
        self._kept: dict[tuple[int, int | None], Pyramid] = {}
        self._unusable: dict[tuple[int, int | None], str] = {}
        self._buckets: list[int] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def visit(self, index: int, number: int) -> Example:
        """The example, or the next one that can be used, cut to the shape of the one it stands for.

        Raises:
            ValueError: when none of the whole set can.
        """
        buckets, skipped = self.buckets(), []
        shape = None if buckets is None else buckets[index]
        for place in (*range(index, len(self)), *range(index)):
            try:
                pyramid = self._pyramid(place, shape)
            except UnusableError as error:
                skipped.append(str(error))
                continue
            return self.reader.example(pyramid, np.random.default_rng((self.seed, index, number)), skipped)
        raise ValueError(f"none of the {len(self)} pictures can be used: {'; '.join(skipped[:3])}{', ...' * (len(skipped) > 3)}")

    def buckets(self) -> list[int] | None:
        """Which of `PictureSettings.shapes` each picture has; None where they are all square, or cut to squares.

        Read from the files' headers, once. What cannot be used has the shape of the next that can, which will stand in its place.
        """
        if not self.reader.settings.has_buckets:
            return None
        if self._buckets is None:
            places = tqdm(range(len(self)), desc="reading sizes", disable=len(self) < 10_000)
            self._buckets = as_next([self.reader.bucket(self.rows[i]) for i in places])
        return self._buckets

    def _pyramid(self, index: int, shape: int | None) -> Pyramid:
        key = index, shape
        if key in self._unusable:
            raise UnusableError(self._unusable[key])
        if key in self._kept:
            return self._kept[key]
        try:
            pyramid = self.reader.pyramid(self.rows[index], self.first + index, shape)
        except UnusableError as error:
            self._unusable[key] = str(error)
            raise
        if pyramid.size <= self._free:
            self._free -= pyramid.size
            self._kept[key] = pyramid
        return pyramid


class PictureStream(IterableDataset):
    """Captioned pictures in the order of a stream, over and over; one process's share of them, each process reading all.

    The example at a position of the run is the row at that position, or the next that can be used; so a stream too resumes where
    it was, and is the same on any number of processes.

    Args:
        rows, columns: from `load_rows` with `streaming`.
        settings, embed, seed: as for `PictureDataset`.
        shuffle_buffer: rows that are held to draw the next one from; 0 keeps their order.

    Raises:
        ValueError: for images of several shapes, which `streams.ShardedStream` can sort.
    """

    def __init__(
        self,
        rows: Any,
        columns: Columns,
        settings: PictureSettings,
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

    def at(self, share: Share, start: int) -> "PictureStream":
        """The same stream, as one process reads its share of it from step `start` on."""
        stream = copy.copy(self)
        stream.share, stream.start = share, start
        return stream

    def __iter__(self) -> Iterator[Example]:
        ahead: deque[dict[str, Any]] = deque()  # rows from `first` on that were read already
        rows, first = self._forever(), 0
        for step in itertools.count(self.start):
            for micro in range(self.share.accumulation):
                for position in self.share.positions(step, micro):
                    while first < position:
                        ahead.popleft() if ahead else next(rows)
                        first += 1
                    yield self._first_usable(position, ahead, rows)

    def _first_usable(self, position: int, ahead: "deque[dict[str, Any]]", rows: Iterator[dict[str, Any]], limit: int = 1000) -> Example:
        skipped = []
        for offset in range(limit):
            if offset == len(ahead):
                ahead.append(next(rows))
            try:
                pyramid = self.reader.pyramid(ahead[offset], position + offset)
            except UnusableError as error:
                skipped.append(str(error))
                continue
            return self.reader.example(pyramid, np.random.default_rng((self.seed, position)), skipped)
        raise ValueError(f"none of {limit} pictures in a row can be used: {'; '.join(skipped[:3])}, ...")

    def _forever(self) -> Iterator[dict[str, Any]]:
        for number in itertools.count():
            self.rows.set_epoch(number)
            empty = True
            for row in self.rows:
                empty = False
                yield row
            if empty:
                raise ValueError("the training stream is empty")


def _column(kind: str, wanted: str | None, usual: tuple[str, ...], there: list[str]) -> str:
    if wanted is not None and wanted not in there:
        raise ValueError(f'{kind}_column is "{wanted}"; the columns are {", ".join(there)}')
    found = [wanted] if wanted is not None else [c for c in usual if c in there]
    if not found:
        hint = "a folder of pictures needs metadata.jsonl beside them, with file_name and text in each line" if kind == "caption" else ""
        raise ValueError(f"no {kind} column among {', '.join(there)}; name it with {kind}_column. {hint}".strip())
    return found[0]


def _rows(settings: DataSettings) -> tuple[Any, list[str]]:
    """The rows as `datasets` gives them, and the names of their columns."""
    import datasets
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    kind, arguments = _builder(settings)
    arguments |= {"split": "train", "streaming": settings.streaming}
    arguments |= {"cache_dir": None if settings.cache_dir is None else str(settings.cache_dir)}
    try:
        rows: Any = datasets.load_dataset(kind, **arguments)
    except (DatasetNotFoundError, DataFilesNotFoundError) as error:
        raise ValueError(f"no pictures found at {settings.train_data_dir or settings.dataset_name}: {error}") from None
    if settings.max_train_samples is not None:
        rows = rows.take(settings.max_train_samples)
    return rows, rows.column_names or list(next(iter(rows)))


def _builder(settings: DataSettings) -> tuple[str, dict[str, Any]]:
    """The arguments of `datasets.load_dataset` for a Hub id or a folder."""
    if settings.dataset_name is not None:
        return settings.dataset_name, {"name": settings.dataset_config_name}
    folder = settings.train_data_dir
    assert folder is not None
    if not folder.is_dir():
        raise ValueError(f"train_data_dir is {folder}, which is no folder")
    for suffix, kind in ((".tar", "webdataset"), (".parquet", "parquet")):
        files = sorted(str(path) for path in folder.glob(f"*{suffix}"))
        if files:
            return kind, {"data_files": {"train": files}}
    if not any(path.suffix.lower() in Image.registered_extensions() for path in folder.rglob("*")):
        raise ValueError(f"no pictures in {folder}; put pictures there with metadata.jsonl, Parquet files, or tar shards")
    return "imagefolder", {"data_dir": str(folder)}
