"""A trained stage, adapter or cascade to the Hub."""

from dataclasses import dataclass, field
from pathlib import Path

BY_DIFFUSERS_ALONE = "DiffusionPipeline.from_pretrained(repo, custom_pipeline=repo, trust_remote_code=True)"
CUSTOM_PIPELINE = f'''"""For programs that import diffusers alone: {BY_DIFFUSERS_ALONE}."""

from imagen_diffusers import ImagenCascadePipeline  # noqa: F401
'''
LEFT_HERE = [
    "checkpoint-*",
    "checkpoint-*/**",
    "stage-*/**",
    "*.part/**",
    "*.deleted/**",
    ".lock",
    "skipped.txt",
    "wandb_id.txt",
]


@dataclass(frozen=True)
class HubSettings:
    """Field names are the flags of diffusers' training scripts."""

    push_to_hub: bool = field(default=False, metadata={"help": "Upload the result when it is done."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository; the name of output_dir by default."})
    license: str | None = field(default=None, metadata={"help": "Of the result, for its card; the base's own by default."})
    hub_token: str | None = field(default=None, metadata={"help": "The one you are logged in with by default."})


def reserve(folder: Path, settings: HubSettings) -> str:
    """The repository of the result, made where it is not there yet: so that one who may not upload knows before the training.

    Raises:
        ValueError: where the Hub cannot be reached, knows no such user, or lets this one not write there.
    """
    from huggingface_hub import HfApi

    name = settings.hub_model_id or folder.resolve().name
    try:
        return HfApi(token=settings.hub_token).create_repo(name, exist_ok=True).repo_id
    except Exception as error:  # where there is no network its class is that of httpx, httpx2 or requests, by release
        raise ValueError(f"push_to_hub is set, and {not_reserved(name, error)} hub_model_id, or leave push_to_hub out") from None


def not_reserved(name: str, error: Exception) -> str:
    """The sentence up to the name of what else may be given."""
    return f'the repository "{name}" cannot be made or written ({_first_line(error)}); go online, log in with hf auth login, give another'


def push_folder(folder: Path, settings: HubSettings, logs: str = "logs") -> str:
    """Upload the result, without checkpoints and logs, and a cascade with the `pipeline.py` of its own `push_to_hub`; returns its address.

    Args:
        folder: of the result.
        settings: of the upload.
        logs: the tracker's folder in it.

    Raises:
        OSError: where that fails; it says what is left to do.
    """
    from huggingface_hub import HfApi

    try:
        repo, hub = reserve(folder, settings), HfApi(token=settings.hub_token)
        custom = folder / "pipeline.py"
        if (folder / "model_index.json").exists() and not custom.exists() and not hub.file_exists(repo, custom.name):
            custom.write_text(CUSTOM_PIPELINE)
        left = [*LEFT_HERE, f"{Path(logs).as_posix()}/**"]
        told = hub.upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=left, commit_message="Upload trained weights")
    except Exception as error:  # as above; whatever it is, the training was not in vain
        raise OSError(
            f"the result is whole in {folder}, but it could not be uploaded: {_first_line(error)}. Run the script again with "
            "--resume_from_checkpoint latest, which only uploads it"
        ) from None
    return str(told)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
