"""The end of a script: it says where the result is and what was passed over, and uploads it if asked."""

from pathlib import Path

from imagen_diffusers.hub.upload import HubSettings, push_folder
from imagen_diffusers.training.reports import say_skipped


def say_written(folder: Path, hub: HubSettings, logs: str = "logs") -> None:
    """Of a result that is in `folder` with its card, and beside it the tracker's `logs`; the main process alone does this.

    Raises:
        OSError: where the upload fails; the result is whole then.
    """
    print(f"written to {folder}")
    say_skipped(folder)
    if hub.push_to_hub:
        print(f"uploaded to {push_folder(folder, hub, logs)}")
