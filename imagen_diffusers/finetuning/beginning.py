"""What a script sees to before it loads a cascade: mistakes that would otherwise show after minutes, or after the training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from imagen_diffusers.hub.upload import HubSettings, reserve
from imagen_diffusers.training.checkpoints import LATEST, find_checkpoint
from imagen_diffusers.training.image_folders import LISTS, check_folder, read_in_whole
from imagen_diffusers.training.processes import main_decides
from imagen_diffusers.training.run_settings import TrainSettings


def check_beginning(
    train: TrainSettings, hub: HubSettings, runs: Sequence[Path], apart: Mapping[str, Path | None] | None = None, **folders: Path | None
) -> None:
    """See that there are images, that no earlier run is in the way, and that the Hub takes the result; all processes ask together.

    Args:
        train, hub: the script's.
        runs: the folders of its runs, one for each stage.
        apart: folders whose images are not to be trained on as those of `folders` are, by flag, beside `output_dir`.
        folders: of images that are trained on, by flag; None where it was not given.

    Raises:
        ValueError: saying what is wrong, on all processes.
    """

    def check() -> None:
        for flag, folder in folders.items():
            if folder is not None:
                check_folder(folder, flag)
                _check_apart(folder, flag, {"output_dir": train.output_dir, **(apart or {})})
        for run in runs if train.resume_from_checkpoint in (None, LATEST) else runs[:1]:
            find_checkpoint(run, train.resume_from_checkpoint)
        if hub.push_to_hub:
            reserve(train.output_dir, hub)

    main_decides(check)


def _check_apart(folder: Path, flag: str, others: Mapping[str, Path | None]) -> None:
    """Refuse another folder whose images would be read with this one's, and one of images that this one's would be read with."""
    read = read_in_whole(folder)
    for name, other in others.items():
        if read is None or other is None:
            continue
        of_images = name != "output_dir" and other.is_dir()
        theirs = read_in_whole(other) if of_images else None
        if _are_read_with(theirs or other, read) or theirs is not None and _are_read_with(read, theirs):
            raise ValueError(
                f"{name} is {other} and {flag} {folder}, and where one folder holds the other its images are read with those: "
                "put them beside each other"
            )


def _are_read_with(place: Path, read: Path) -> bool:
    """Whether a folder's images are read with those of another, which holds it: where there are lists of images, these alone."""
    if read.resolve() not in (place.resolve(), *place.resolve().parents):
        return False
    return any(place.rglob(LISTS)) or not any(read.rglob(LISTS))
