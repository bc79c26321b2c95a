"""Networks and text encoders as programs of torch.export: one each, for any batch, height, width and number of tokens."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.text.encoders import readable
from imagen_diffusers.text.encoding import last_hidden_state

from .inputs import Inputs, dynamic, example

# Of the example that is traced: no two sides alike, and none of them 1, so that no side is taken for another, or for a constant.
ROWS, PATCHES, TOKENS = 3, (4, 6), 5


def trace_network(network: StageNetwork) -> tuple[ExportedProgram, Inputs]:
    """The program of a network, and the example it was traced with, whose names are those of the program's inputs."""
    inputs = example(network, ROWS, PATCHES, TOKENS)
    with _evaluating(network.module):
        return _trace(_Network(network.module, list(inputs)), inputs, dynamic(inputs, network.stride)), inputs


def trace_text_encoder(encoder: Any) -> tuple[ExportedProgram, Inputs]:
    """The program of a text encoder: token ids (B, L) and what it attends to (B, L), 1 or 0, to embeddings (B, L, D).

    L is at most the number of places that the encoder has.
    """
    ids = torch.arange(ROWS * TOKENS).view(ROWS, TOKENS) % encoder.config.get_text_config().vocab_size
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with _evaluating(encoder), _plain(encoder):
        return _trace(_TextEncoder(encoder), inputs, dynamic(inputs, most_tokens=readable(sys.maxsize, encoder))), inputs


class _Network(nn.Module):
    """A network called by position for its first two inputs, whose names differ by kind, and by name for the others; one output."""

    def __init__(self, module: nn.Module, names: list[str]):
        super().__init__()
        self.module, self.others = module, names[2:]

    def forward(self, first: Tensor, second: Tensor, *others: Tensor) -> Tensor:
        return self.module(first, second, **dict(zip(self.others, others, strict=True)), return_dict=False)[0]


class _TextEncoder(nn.Module):
    """A text encoder called as `encode` calls it."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder: Any = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return last_hidden_state(self.encoder, input_ids, attention_mask)


def _trace(called: nn.Module, inputs: Inputs, sides: dict[str, dict[int, Any]]) -> ExportedProgram:
    first, second, *others = (sides[name] for name in inputs)
    more = (tuple(others),) if others else ()  # which stands for no argument where there are two inputs
    with torch.no_grad():
        # What is only asserted of the sides stays out of the graph: it holds for other sizes than the example's.
        return torch.export.export(
            called,
            tuple(inputs.values()),
            dynamic_shapes=(first, second, *more),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


@contextmanager
def _plain(encoder: Any) -> Iterator[None]:
    """With attention written out, since torch's fused one gives out strides that ONNX's exporter stumbles over."""
    attention = encoder.config._attn_implementation
    encoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        encoder.set_attn_implementation(attention)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    try:
        module.eval()
        yield
    finally:
        module.train(training)
