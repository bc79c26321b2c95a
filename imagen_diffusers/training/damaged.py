"""Files of a stream that cannot be read to their end: the rest of one is passed over, and told of."""

import gzip
import logging
import lzma
import tarfile
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import Any

logger = logging.getLogger(__name__)

CUT_SHORT, LACKING = "the rest of it cannot be read", "it lacks a column that is read"  # what is told of shards
_OF_FILES = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


class Told:
    """What the reading of some shards tells, in each process for itself; copies of a stream tell it in one place."""

    def __init__(self) -> None:
        self._damage: list[str] = []  # since it was last asked for
        self._logged: set[str] = set()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Told":
        return self  # each pass is read by a copy of the stream

    def log_once(self, about: str, line: str) -> None:
        """A warning, and no other one about the same thing."""
        if about not in self._logged:
            self._logged.add(about)
            logger.warning(line)

    def add_damage(self, line: str) -> None:
        self._damage.append(line)
        self.log_once(line, line)

    def damage(self) -> list[str]:
        """Which shards were found damaged in this process, since it was last asked, and what is wrong with them."""
        told, self._damage = self._damage, []
        return told


class UpToDamage:
    """What reads a shard for `datasets`, which calls it for one after the other: a damaged one ends early, each time at the same row.

    So the state of a stream, which counts shards and rows of them, says where it is with damaged shards as with others.

    Args:
        read: a builder's `_generate_examples` or `_generate_tables`.
        told: gets the damage.
    """

    def __init__(self, read: Callable[..., Iterator[Any]], told: Told):
        self.read, self.told = read, told

    def __call__(self, **shard: Any) -> Iterator[Any]:
        try:
            yield from self.read(**shard)
        except Exception as error:
            files = shard.get("files") or shard.get("tar_paths") or ["a file"]  # of Parquet, of WebDataset
            name = files[0] if isinstance(files[0], str) else next(iter(files[0]))
            if is_of_types(error):
                raise of_other_types(name, error) from None
            if not is_damage(error):
                raise
            lacking = on_one_line(error).startswith("No match for FieldRef")  # pyarrow's words for columns; its schema follows
            said = on_one_line(error).partition(" in ")[0] if lacking else on_one_line(error)
            why = LACKING if lacking else CUT_SHORT
            self.told.add_damage(f"{name}: {why} ({said})")


def stream_of(builder: Any, told: Told) -> Any:
    """The training split of a builder of `datasets` as a stream, in which damaged shards end early, and are told of."""
    import datasets

    name = "_generate_tables" if isinstance(builder, datasets.ArrowBasedBuilder) else "_generate_examples"
    setattr(builder, name, UpToDamage(getattr(builder, name), told))
    try:
        return builder.as_streaming_dataset(split="train")
    finally:
        delattr(builder, name)  # the stream holds it; a worker's copy of the builder must find its own


def tells_of_shard(line: str) -> bool:
    """Whether what was passed over is a shard, or the rest of one, and not an image."""
    return any(f": {why} (" in line for why in (CUT_SHORT, LACKING))


def empty_stream(told: Told, said: str = "the training stream is empty") -> ValueError:
    """What to raise where no row was read, with the first of the shards that are damaged."""
    return ValueError("; ".join([said, *told.damage()[:3]]))


def is_damage(error: BaseException | None) -> bool:
    """Whether an error tells of a file's contents, and not of a disk or a network, which may give them another time."""
    of_arrow = type(error).__name__ == "ArrowInvalid" or type(error) is OSError and error.errno is None  # the second of packed pages
    return not is_of_types(error) and (of_arrow or isinstance(error, _OF_FILES))


def is_of_types(error: BaseException | None) -> bool:
    """Whether `datasets` read what a file holds, and could not cast its columns to the types of the first file's."""
    return error is not None and any(frame.f_code.co_name == "table_cast" for frame, _ in traceback.walk_tb(error.__traceback__))


def of_other_types(files: str, error: BaseException | None) -> ValueError:
    """What to raise for files whose columns have other types than those of the first one."""
    return ValueError(f"{files}: its columns have other types than those of the first file ({on_one_line(error)}); write all with the same")


def unreadable(file: str, error: BaseException) -> ValueError:
    """What to raise for a file that says how all are read."""
    return ValueError(f"{file} cannot be read ({on_one_line(error)}); write it anew, or leave it out of the data")


def on_one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())
