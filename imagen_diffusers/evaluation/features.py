"""Features of many images in one memory-mapped file, by index: a folder of images, or batches as they come.

Images go in fixed groups, shared out among the processes and written one file a group, so that a killed program goes on and the features
are the same bits whoever made them.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from imagen_diffusers.images import image_files, read_image
from imagen_diffusers.pipelines.image_inputs import images_to_tensor
from imagen_diffusers.training.folders import LOCK, in_one_rename, one_run_at
from imagen_diffusers.training.processes import as_main_says, main_decides, this_process

from .asked import read_notes
from .digests import file_digest, text_digest
from .extractors import Extractor
from .groups import UNJOINED, Measured, fill, stored
from .statistics import differences


def write_folder_features(folder: Path, extractor: Extractor, path: Path, batch_size: int = 16) -> Tensor:
    """Features of all images of a folder, in the order of their names; what another call, or a killed one, has made is used.

    All processes must call it together, inside a `process_group` where there are several; another program that writes the same file is
    kept out.

    Args:
        folder: of images, in folders of their own or not, of any sizes.
        extractor: of the features.
        path: of the file, which numpy's `load` opens, too; notes beside it say what it was made of.
        batch_size: images that go through the extractor together, where they have one size.

    Returns:
        (N, D), float32, memory-mapped.

    Raises:
        ValueError: for a folder without images, an image that cannot be read, a file of other images or another extractor, notes that are
            damaged, and where another program writes the file.
        OSError: for a file that is damaged.
    """
    images = images_of(folder)
    groups = path.with_name(path.name + UNJOINED)

    def measure(chosen: range) -> Measured:
        return {"features": features_of([images[i] for i in chosen], extractor)}

    with one_run_at(path, path.with_name(path.name + LOCK)):
        _keep_or_refuse(path, lambda: {**extractor.fingerprint, **_contents(folder, images), "batch_size": batch_size})
        if not as_main_says(path.exists()):
            fill(groups, len(images), batch_size, measure, folder.name)
            if this_process().is_main_process:
                write_features(path, (group["features"] for group in stored(groups, len(images), batch_size)), len(images))
                shutil.rmtree(groups)
            this_process().wait_for_everyone()
    return open_features(path, len(images))


def remove_features(path: Path) -> None:
    """Remove what `write_folder_features` left, done or not."""
    for left in (path, _notes(path), path.with_name(path.name + LOCK)):
        left.unlink(missing_ok=True)
    shutil.rmtree(path.with_name(path.name + UNJOINED), ignore_errors=True)


def write_features(path: Path, batches: Iterable[Tensor], count: int) -> None:
    """Write features (B, D) as they come into a file of `count` rows, which is there in whole or not at all.

    Raises:
        ValueError: for another number of rows.
    """
    rows, done = None, 0
    with in_one_rename(path) as part:
        for batch in batches:
            if rows is None:
                rows = open_memmap(part, mode="w+", dtype=np.float32, shape=(count, batch.shape[1]))
            if done + len(batch) <= count:
                rows[done : done + len(batch)] = batch.cpu().numpy()
            done += len(batch)
        if rows is None or done != count:
            raise ValueError(f"{done} features came for the {count} rows of {path}; give as many as were announced, and at least one")
        rows.flush()
        del rows  # Windows renames no file that is open


def open_features(path: Path, count: int | None = None) -> Tensor:
    """(N, D), float32: what `write_features` wrote, read from the disk as it is used; changes stay in memory.

    Raises:
        OSError: for a file that is missing, damaged or of something else, or not of `count` rows, naming it.
    """
    try:
        rows = np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError):
        rows = None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype != np.float32 or count not in (None, len(rows)):
        raise OSError(f"{path} is damaged, or a file of something else; delete it, and run the command again")
    return torch.from_numpy(rows)


def features_of(paths: Sequence[Path], extractor: Extractor) -> Tensor:
    """(N, D) of image files: in one batch where they have one size, else one by one."""
    images = [images_to_tensor(str(path), read_image(path)) for path in paths]
    if len({image.shape for image in images}) == 1:
        return extractor(torch.cat(images))
    return torch.cat([extractor(image) for image in images])


def images_of(folder: Path) -> list[Path]:
    """The images in a folder and in its folders, sorted by their paths.

    Raises:
        ValueError: where there are none.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give a folder of images, or statistics that `imagen-diffusers evaluate-stats` wrote")
    found = image_files(folder.rglob("*"))
    if not found:
        raise ValueError(f"{folder} holds no images; give a folder with PNG, JPEG or WebP files")
    return found


def _contents(folder: Path, images: Sequence[Path]) -> dict[str, Any]:
    """Which images these are, by their names and bytes."""
    told = [[image.relative_to(folder).as_posix(), file_digest(str(image))] for image in images]
    return {"images": len(images), "names and contents": text_digest(json.dumps(told))}


def _notes(path: Path) -> Path:
    """Of the file of what features are made of."""
    return path.with_name(path.name + ".json")


def _keep_or_refuse(path: Path, told: Callable[[], dict[str, Any]]) -> None:
    """Note what features are made of before any is made; notes that are there must say the same."""
    main_decides(lambda: _keep(path, told()))


def _keep(path: Path, asked: dict[str, Any]) -> None:
    notes = _notes(path)
    if notes.exists():
        try:
            differing = differences(read_notes(notes), asked)
        except OSError as damaged:
            raise ValueError(str(damaged)) from None
        if differing:
            raise ValueError(f"{path} is of other images, or by another extractor ({differing}); delete {notes}, or choose another place")
        return
    # Features without notes may be of anything.
    path.unlink(missing_ok=True)
    shutil.rmtree(path.with_name(path.name + UNJOINED), ignore_errors=True)
    with in_one_rename(notes) as part:
        part.write_text(json.dumps(asked))
