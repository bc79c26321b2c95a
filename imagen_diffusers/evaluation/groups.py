"""What is measured of many images, in groups of fixed size: a file each, there in whole or not at all, so that a killed run goes on.

Which images are in a group does not depend on the processes, nor what is measured of them; reading the files in order gives the same bits
whoever wrote them, and when.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from imagen_diffusers.training.folders import in_one_rename
from imagen_diffusers.training.processes import as_main_says, this_process

Measured = dict[str, Tensor]  # by name, one row an image
GROUP_FILES = "group-*.safetensors"
UNJOINED = ".groups"  # ending of the folder of features that are not yet in one file


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

    Raises:
        ValueError: for a group of other names than those that are there.
        OSError: for a damaged file, naming it.
    """
    state, every, names = this_process(), groups(count, size), set()
    folder.mkdir(parents=True, exist_ok=True)
    missing = as_main_says([i for i in range(len(every)) if not _file(folder, i).exists()])
    mine = missing[state.process_index :: state.num_processes]
    for i in tqdm(mine, desc=title, disable=not (title and state.is_main_process), mininterval=5):
        measured = measure(every[i])
        _check_names(folder, i, measured, names := names or _names_there(folder, len(every)) or set(measured))
        with in_one_rename(_file(folder, i)) as part:
            save_file({name: values.contiguous().cpu() for name, values in measured.items()}, part)
    state.wait_for_everyone()


def is_whole(folder: Path, count: int, size: int) -> bool:
    """Whether every group is there."""
    return all(_file(folder, i).exists() for i in range(len(groups(count, size))))


def stored(folder: Path, count: int, size: int) -> Iterator[Measured]:
    """The groups' files, first to last.

    Raises:
        OSError: for a file that is missing, damaged or of other images, naming it.
    """
    for i, images in enumerate(groups(count, size)):
        try:
            part = load_file(_file(folder, i))
        except (SafetensorError, OSError) as error:
            raise _damaged(_file(folder, i), error) from None
        if any(values.shape[:1] != (len(images),) for values in part.values()):
            raise _damaged(_file(folder, i), f"it is of other images than these {len(images)}")
        yield part


def gathered(folder: Path, count: int, size: int) -> Measured:
    """All rows of every name, in the order of the images.

    Raises:
        OSError: as `stored`.
        ValueError: for groups of differing names.
    """
    parts = list(stored(folder, count, size))
    for i, part in enumerate(parts):
        _check_names(folder, i, part, set(parts[0]))
        if any(values.shape[1:] != parts[0][name].shape[1:] for name, values in part.items()):
            raise _damaged(_file(folder, i), f"its values are of another shape than those of {_file(folder, 0).name}")
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _names_there(folder: Path, count: int) -> set[str]:
    """What was measured of the first group that is there; none where there is none."""
    for path in (_file(folder, i) for i in range(count)):
        if path.exists():
            try:
                with safe_open(path, "pt") as file:
                    return set(file.keys())
            except (SafetensorError, OSError) as error:
                raise _damaged(path, error) from None
    return set()


def _damaged(path: Path, error: object) -> OSError:
    return OSError(f"{path} is damaged ({error}); delete it, and run the command again")


def _check_names(folder: Path, index: int, measured: Iterable[str], names: set[str]) -> None:
    differing = sorted(names ^ set(measured))
    if differing:
        raise ValueError(
            f'{folder} holds groups in which "{differing[0]}" was measured and groups without it ({_file(folder, index).name} differs from '
            "the others); every metric gives the same names, in the same order, for all images: mend it, delete the folder, and run again"
        )


def _file(folder: Path, index: int) -> Path:
    return folder / f"group-{index:06d}.safetensors"
