"""The former name of `encoding`, `tokens` and `words`, from when every encoder was a T5; it will go."""

import warnings
from typing import Any

from . import encoding, tokens, words


def __getattr__(name: str) -> Any:
    for module in (encoding, tokens, words):
        if not name.startswith("_") and hasattr(module, name):
            warnings.warn(f"imagen_diffusers.text.t5 will go; import {name} from {module.__name__}", FutureWarning, stacklevel=2)
            return getattr(module, name)
    raise AttributeError(f"{__name__} has no {name}")
