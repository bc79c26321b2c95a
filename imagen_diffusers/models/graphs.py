"""Graphs of compiled networks: torch counts them by code, which blocks and networks of one class share."""

import inspect
from typing import Any

import torch

GRAPHS = 64  # a network or block: numbers of images and sizes, guided and not


def own_graphs() -> dict[str, Any]:
    """Options that let networks or blocks of one class have graphs of their own: they share their code, and torch counts graphs by code.

    Before torch 2.12 there are none, and all of them share `torch._dynamo.config.recompile_limit`, 8 graphs, which may be raised.
    """
    wanted = {"isolate_recompiles": True, "recompile_limit": GRAPHS}
    return wanted if wanted.keys() <= inspect.signature(torch.compile).parameters.keys() else {}


class OwnGraphsMixin:
    """A base of a network, before diffusers' own."""

    def compile_repeated_blocks(self, *args: Any, **options: Any) -> None:
        """As in diffusers, and each block has graphs of its own; `options` of `torch.compile` go before that."""
        super().compile_repeated_blocks(*args, **{**own_graphs(), **options})  # type: ignore[misc]
