"""Networks and text encoders as programs of torch.export: one each, for any batch, height, width and number of tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from imagen_diffusers.sampling.network import StageNetwork

from .inputs import Inputs, dynamic, example

# Of the example that is traced: no two sides alike, and none of them 1, so that no side is taken for another, or for a constant.
ROWS, PATCHES, TOKENS = 3, (4, 6), 5


def trace_network(network: StageNetwork) -> tuple[ExportedProgram, Inputs]:
    """The program of a network, and the example it was traced with, whose names are those of the program's inputs."""
    inputs = example(network, ROWS, PATCHES, TOKENS)
    return _trace(network.module, inputs, network.stride), inputs


def trace_text_encoder(encoder: Any) -> tuple[ExportedProgram, Inputs]:
    """The program of a text encoder: token ids (B, L) and what it attends to (B, L), 1 or 0, to embeddings (B, L, D)."""
    ids = torch.arange(ROWS * TOKENS).view(ROWS, TOKENS) % encoder.config.get_text_config().vocab_size
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    attention = encoder.config._attn_implementation
    encoder.set_attn_implementation("eager")  # torch's fused attention gives out strides that ONNX's exporter stumbles over
    try:
        return _trace(encoder, inputs), inputs
    finally:
        encoder.set_attn_implementation(attention)


class _Called(nn.Module):
    """A module called by position for its first two inputs, whose names differ by kind, and by name for the others; one output."""

    def __init__(self, module: nn.Module, names: list[str]):
        super().__init__()
        self.module, self.others = module, names[2:]

    def forward(self, first: Tensor, second: Tensor, *others: Tensor) -> Tensor:
        return self.module(first, second, **dict(zip(self.others, others, strict=True)), return_dict=False)[0]


def _trace(module: nn.Module, inputs: Inputs, stride: int = 1) -> ExportedProgram:
    names, sides = list(inputs), dynamic(inputs, stride)
    first, second, *others = (sides[name] for name in names)
    more = (tuple(others),) if others else ()  # which stands for no argument where there are two inputs
    with _evaluating(module), torch.no_grad():
        # What is only asserted of the sides stays out of the graph: it holds for other sizes than the example's.
        return torch.export.export(
            _Called(module, names),
            tuple(inputs.values()),
            dynamic_shapes=(first, second, *more),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    try:
        module.eval()
        yield
    finally:
        module.train(training)
