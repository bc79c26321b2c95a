"""Digests of what decides features and scores: a network's weights, and the source of a user's own function."""

import functools
import hashlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Of every bit of a network's weights, by name."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_digest(path: str | None) -> str:
    """Of a file's bytes; of what is in no file, "none"."""
    return "none" if path is None else hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()


def source_digest(made: Any, name: str) -> str | list[str]:
    """Of the source of a callable of one's own, whatever decorates it: the file that it is written in, and that of its name.

    Args:
        made: a function, a class, or an object.
        name: in reports; of the form module:name where the module says what the object is made of.
    """
    while isinstance(made, functools.partial):
        made = made.func
    made = inspect.unwrap(made)
    module = sys.modules.get(name.partition(":")[0]) if ":" in name else None
    kind = made if inspect.isroutine(made) or isinstance(made, type) else type(made)
    source = None if inspect.isbuiltin(kind) else inspect.getsourcefile(kind)
    files = dict.fromkeys((source, getattr(module, "__file__", source)))
    digests = [file_digest(file) for file in files]
    return digests[0] if len(digests) == 1 else digests


def text_digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
