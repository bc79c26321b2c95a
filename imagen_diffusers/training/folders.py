"""Folders of a run: one run in each, and contents that are there in whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .processes import main_decides

LOCK = ".lock"
PART, OLD = ".part", ".deleted"  # endings of what is not yet, or no longer, at its place


@contextmanager
def one_run_in(folder: Path) -> Iterator[None]:
    """Keep every other run out of `folder` until the block ends.

    Raises:
        ValueError: on all processes, when another run is in the folder.
    """
    with one_run_at(folder, folder / LOCK):
        yield


@contextmanager
def one_run_at(place: Path, lock_file: Path) -> Iterator[None]:
    """The same of any place that one run alone may write, by a file that tells of it.

    The main process holds a lock of the operating system, which is free again when the process is gone, however it ended.

    Raises:
        ValueError: on all processes, when another run is there.
    """
    lock = FileLock(lock_file)

    def acquire() -> None:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            raise ValueError(f"another run is writing into {place}; wait until it has ended, or choose another folder") from None

    main_decides(acquire)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def in_one_rename(path: Path) -> Iterator[Path]:
    """Where to write what is to be the file `path`: it is there under its name when the block has ended, in whole, and not before.

    The power may fail, too: what was written is on the disk before the rename is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    yield part
    _sync(part)
    os.replace(part, path)
    _sync(path.parent)


def put_in_place(part: Path, place: Path) -> None:
    """Move the finished folder `part` to `place`, in one rename where nothing is there yet.

    A folder that is there is renamed first and removed last. No system renames one folder over another that holds files, so between
    two renames nothing is at `place`; a program that is killed just there leaves the new folder as `part` and the old one beside it.
    """
    to_disk(part)
    old = place.with_name(place.name + OLD)
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(place, old)
    os.replace(part, place)
    _sync(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a folder so that a program that is killed here leaves no half of it under its name; of a link the link alone."""
    if folder.is_symlink():
        return folder.unlink()
    old = folder.with_name(folder.name + OLD)
    shutil.rmtree(old, ignore_errors=True)  # left by a program that was killed
    os.replace(folder, old)
    shutil.rmtree(old)


def to_disk(folder: Path) -> None:
    """Wait until the contents are on the disk: a rename may overtake them when the power fails."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    file = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # what Windows writes out it must be allowed to write
    try:
        os.fsync(file)
    finally:
        os.close(file)
