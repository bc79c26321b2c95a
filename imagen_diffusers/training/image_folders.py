"""What of a folder is trained on: its images or its shards, and of one that is divided into `train` and `validation` the first."""

from collections.abc import Sequence
from pathlib import Path

from .library import library
from .shards import is_hidden, shards_below, shards_in

LISTS = "metadata.*"  # of a folder's images, which alone are read then
TRAIN_FOLDERS = ("train", "training")  # these and the next as `datasets` has them
HELD_OUT_FOLDERS = ("validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")


def images_in(folder: Path) -> list[Path]:
    """The files in `folder`, and in folders in it, that `datasets` reads as images: by their names, and none that is hidden."""
    kinds = {*library().packaged_modules.imagefolder.ImageFolder.EXTENSIONS}
    return [path for path in folder.rglob("*") if path.suffix.lower() in kinds and not is_hidden(path.relative_to(folder))]


def read_in_whole(folder: Path) -> Path | None:
    """The folder all images in which, at any depth, are read: this one, or its `train`; None where shards alone are read."""
    if shards_of(folder):
        return None
    images = images_in(folder)
    return trained_on(folder, images) if images else folder


def check_folder(folder: Path, flag: str = "train_data_dir") -> None:
    """See that a folder is there and holds images.

    Args:
        folder: of images.
        flag: that named it.

    Raises:
        ValueError: where it does not.
    """
    if not folder.is_dir():
        raise ValueError(f"{flag} is {folder}, which is no folder")
    if not images_in(folder) and not shards_of(folder):
        raise ValueError(
            f"{flag}: no images in {folder}; put images there (.png, .jpg, ...), with metadata.jsonl, Parquet files (.parquet) or shards "
            "of WebDataset (.tar, not compressed), in it or in folders in it"
        )


def shards_of(folder: Path) -> list[Path]:
    """Those in a folder; where it holds none and no images, those in folders in it, of which `trained_on` says which."""
    if shards := shards_in(folder):
        return shards
    below = [] if images_in(folder) else shards_below(folder)
    place = trained_on(folder, below)
    return [path for path in below if place in path.parents]


def trained_on(folder: Path, paths: Sequence[Path]) -> Path:
    """A folder that holds images or shards, `paths`; its `train` where all of them are there and in `validation`, `test` and the like.

    Raises:
        ValueError: for a folder that is divided so in part.
    """
    places = {path.relative_to(folder).parts[0] for path in paths}
    train, held_out = ([p for p in sorted(places) if p.lower() in names] for names in (TRAIN_FOLDERS, HELD_OUT_FOLDERS))
    if not train or not held_out:
        return folder
    others = {*places, *(path.name for path in folder.glob(LISTS))} - {*train, *held_out}
    if others or len(train) > 1:
        shown = sorted(others) or train[1:]
        raise ValueError(
            f"{folder} holds {train[0]} and {held_out[0]}, of which only the first is for training, and beside them "
            f"{', '.join(shown[:3])}{', ...' * (len(shown) > 3)}: give train_data_dir={folder / train[0]}, with a metadata.jsonl of its own"
        )
    return folder / train[0]
