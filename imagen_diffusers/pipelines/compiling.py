"""Compiled networks: each stage has graphs of its own, one for each shape, whatever the prompt."""

from collections.abc import Iterable
from typing import Any

from imagen_diffusers.models.graphs import own_graphs
from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.text.encoding import TextEmbedding, pad_to


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
