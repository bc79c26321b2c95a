"""Compiled networks: each stage has graphs of its own, one for each shape, whatever the prompt."""

import inspect
from typing import Any

import torch

from imagen_diffusers.text.t5 import TextEmbedding, pad_to

GRAPHS = 64  # a stage: numbers of images and sizes, guided and not


class CompilingMixin:
    """`pipe.compile()`."""

    config: Any
    networks: Any
    stage_numbers: Any
    slots: Any

    def compile(self, **options: Any) -> None:
        """Compile the network of every stage, as whole graphs for fixed shapes.

        Text is then padded to `max_sequence_length`, and masked there, so that all prompts run the same graphs. Each stage has
        one graph for a size and a number of images without guidance and one with it; the first call that needs one compiles it.
        `pipe.unet = torch.compile(pipe.unet)` works, too.

        Args:
            options: of `torch.compile`, in place of `fullgraph=True, dynamic=False`; `mode="reduce-overhead"` records CUDA graphs.
        """
        for number in self.stage_numbers:
            given = {"fullgraph": True, "dynamic": False, **own_graphs(), **options}
            getattr(self, self.slots(number)[0]).compile(**given)

    def as_compiled(self, text: TextEmbedding) -> TextEmbedding:
        """The text as long as the compiled networks have met it; as it is where none is compiled."""
        if not any(network.compiled for network in self.networks.values()):
            return text
        return pad_to(text, max(self.config["max_sequence_length"], text.mask.shape[1]))


def own_graphs() -> dict[str, Any]:
    """Options that let networks of one class have graphs of their own: they share their code, and torch counts graphs by code.

    Before torch 2.12 there are none, and all stages share `torch._dynamo.config.recompile_limit`, 8 graphs, which may be raised.
    """
    wanted = {"isolate_recompiles": True, "recompile_limit": GRAPHS}
    return wanted if wanted.keys() <= inspect.signature(torch.compile).parameters.keys() else {}
