"""A trained stage, adapter or cascade to the Hub."""

from dataclasses import dataclass, field
from pathlib import Path

LEFT_HERE = ["checkpoint-*", "checkpoint-*/**", "logs/**", "stage-*/**", "*.part/**", "*.deleted/**", ".lock", "skipped.txt"]


@dataclass(frozen=True)
class HubSettings:
    """Field names are the flags of diffusers' training scripts."""

    push_to_hub: bool = field(default=False, metadata={"help": "Upload the result when it is done."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository; the name of output_dir by default."})
    license: str | None = field(default=None, metadata={"help": "Of the result, for its card; the base's own by default."})
    hub_token: str | None = field(default=None, metadata={"help": "The one you are logged in with by default."})


def push_folder(folder: Path, settings: HubSettings) -> str:
    """Upload the result, without checkpoints and logs; returns its address."""
    from huggingface_hub import HfApi

    api = HfApi(token=settings.hub_token)
    repo = api.create_repo(settings.hub_model_id or folder.resolve().name, exist_ok=True).repo_id
    told = api.upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=LEFT_HERE, commit_message="Upload trained weights")
    return str(told)
