"""What a user has put into the folders of a cascade's components, which an export leaves there."""

import shutil
from pathlib import Path

from imagen_diffusers.training.folders import discard

from .exported import CONFIG
from .graphs import ONNX, OPENVINO

TOKENIZERS = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "chat_template.*", "vocab.*", "merges.txt", "*.model")
WRITTEN = (CONFIG, "scheduler_config.json", f"{ONNX}*", f"{Path(OPENVINO).stem}.*", *TOKENIZERS)
"""What an export writes into the folder of a component, and transformers into that of a tokenizer."""


def keep_own_files(former: Path, folder: Path) -> None:
    """Copy what no export has written from the folder of a component to the one that will take its place."""
    for path in _own(former):
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, folder / path.name)


def discard_what_was_written(folder: Path) -> None:
    """Remove the folder of a component, or, where there is more in it, what exports have written there."""
    own = _own(folder)
    if not own or folder.is_symlink():
        return discard(folder)
    for path in set(folder.iterdir()) - set(own):
        path.unlink()


def _own(folder: Path) -> list[Path]:
    """Files and folders in it of other names than those of what exports write."""
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in there if path.is_dir() or not any(path.match(name) for name in WRITTEN)]
