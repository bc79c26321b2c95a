"""Compiled networks: each stage has graphs of its own, one for each shape, whatever the prompt."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch

from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.text.encoding import TextEmbedding, pad_to

GRAPHS = 64  # a stage: numbers of images and sizes, guided and not


def compile_stages(pipe: Any, **options: Any) -> None:
    """Compile the network of every stage; `options` of `torch.compile` go before whole graphs of fixed shapes."""
    for number in pipe.stage_numbers:
        given = {"fullgraph": True, "dynamic": False, **own_graphs(), **options}
        pipe.unet_of(number).compile(**given)


def as_compiled(text: TextEmbedding | None, networks: Iterable[StageNetwork], length: int) -> TextEmbedding | None:
    """The text as long as compiled networks have met it, `length` tokens at least; as it is where none is compiled."""
    if text is None or not any(network.compiled for network in networks):
        return text
    return pad_to(text, max(length, text.mask.shape[1]))


def own_graphs() -> dict[str, Any]:
    """Options that let networks of one class have graphs of their own: they share their code, and torch counts graphs by code.

    Before torch 2.12 there are none, and all stages share `torch._dynamo.config.recompile_limit`, 8 graphs, which may be raised.
    """
    wanted = {"isolate_recompiles": True, "recompile_limit": GRAPHS}
    return wanted if wanted.keys() <= inspect.signature(torch.compile).parameters.keys() else {}
