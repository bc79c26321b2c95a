"""Digests of what decides features and scores: a network's weights, and the source of a user's own function."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

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


def text_digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
