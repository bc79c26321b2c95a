"""What is measured of many images, in groups of fixed size: a file each, there in whole or not at all, so that a killed run goes on.

Which images are in a group does not depend on the processes, nor what is measured of them; reading the files in order gives the same bits
whoever wrote them, and when.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from imagen_diffusers.training.folders import PART
from imagen_diffusers.training.processes import as_main_says, this_process

Measured = dict[str, Tensor]  # by name, one row an image


def groups(count: int, size: int) -> list[range]:
    """The images 0 to `count` - 1 in runs of `size`; the last may be shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def fill(folder: Path, count: int, size: int, measure: Callable[[range], Measured], title: str = "") -> None:
    """Write what is measured of every group that is not there yet; the processes take turns, and leave together.

    Args:
        folder: of the groups' files.
        count, size: of images, and of a group.
        measure: called with the images of a group, by number, what is measured of them.
        title: of the progress bar, which the main process shows.
    """
    state, every = this_process(), groups(count, size)
    folder.mkdir(parents=True, exist_ok=True)
    missing = as_main_says([i for i in range(len(every)) if not _file(folder, i).exists()])
    mine = missing[state.process_index :: state.num_processes]
    for i in tqdm(mine, desc=title, disable=not (title and state.is_main_process), mininterval=5):
        part = _file(folder, i).with_suffix(PART)
        save_file({name: values.contiguous().cpu() for name, values in measure(every[i]).items()}, part)
        os.replace(part, _file(folder, i))
    state.wait_for_everyone()


def stored(folder: Path, count: int, size: int) -> Iterator[Measured]:
    """The groups' files, first to last.

    Raises:
        OSError: for a file that is missing or damaged, naming it.
    """
    for i in range(len(groups(count, size))):
        try:
            yield load_file(_file(folder, i))
        except SafetensorError as error:
            raise OSError(f"{_file(folder, i)} is damaged ({error}); delete it, and run the command again") from None


def gathered(folder: Path, count: int, size: int) -> Measured:
    """All rows of every name, in the order of the images."""
    parts = list(stored(folder, count, size))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _file(folder: Path, index: int) -> Path:
    return folder / f"group-{index:06d}.safetensors"
