"""What saved configurations say of where weights came from: the Hub id they were loaded from, and no folder of this machine."""

import json
import os
from collections.abc import Iterable
from pathlib import Path


def leave_out_local_paths(files: Iterable[Path]) -> None:
    """Take `_name_or_path`, which diffusers writes into each configuration, out of those of these JSON files where it is a path."""
    for file in files:
        config = json.loads(file.read_text()) if file.exists() else {}
        name = config.pop("_name_or_path", None)
        if name is not None and (os.path.isabs(name) or os.path.exists(name)):
            file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
