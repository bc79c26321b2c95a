"""What saved configurations say: of which classes components are, and the Hub id that weights came from, but no folder of this machine."""

import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any


def leave_out_local_paths(files: Iterable[Path]) -> None:
    """Take `_name_or_path`, which diffusers writes into each configuration, out of those of these JSON files where it is a path."""
    for file in files:
        config = json.loads(file.read_text()) if file.exists() else {}
        name = config.pop("_name_or_path", None)
        if name is not None and (os.path.isabs(name) or os.path.exists(name)):
            file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def components_of(index: Any, classes: Collection[str]) -> list[str]:
    """The components of a `model_index.json` that are of one of these classes, by name."""
    return [name for name, kind in index.items() if isinstance(kind, list | tuple) and kind[-1:] and kind[-1] in classes]
