"""What a script sees to before it loads a cascade: mistakes that would otherwise show after minutes, or after the training."""

from collections.abc import Iterable
from pathlib import Path

from imagen_diffusers.hub.upload import HubSettings, reserve
from imagen_diffusers.training.checkpoints import find_checkpoint
from imagen_diffusers.training.processes import as_main_says, this_process
from imagen_diffusers.training.rows import check_folder
from imagen_diffusers.training.run_settings import TrainSettings


def check_beginning(train: TrainSettings, hub: HubSettings, runs: Iterable[Path], **folders: Path | None) -> None:
    """See that there are images, that no earlier run is in the way, and that the Hub takes the result; all processes ask together.

    Args:
        train, hub: the script's.
        runs: the folders of its runs, one for each stage.
        folders: of images, by flag; None where it was not given.

    Raises:
        ValueError: saying what is wrong, on all processes.
    """
    refusal = None
    if this_process().is_main_process:
        try:
            for flag, folder in folders.items():
                if folder is not None:
                    check_folder(folder, flag)
            if train.resume_from_checkpoint is None:
                for run in runs:
                    find_checkpoint(run, None)
            if hub.push_to_hub:
                reserve(train.output_dir, hub)
        except ValueError as error:
            refusal = str(error)
    refusal = as_main_says(refusal)
    if refusal is not None:
        raise ValueError(refusal)
