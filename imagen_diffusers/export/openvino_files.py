"""Graphs of ONNX to OpenVINO's own files, and to whole numbers of eight bits."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from .files import quiet
from .graphs import ONNX, OPENVINO, Graph, openvino_module

ROUNDED = ("Convolution", "GroupConvolution")
"""What is done in eight bits. The quantiser would round attention, embeddings, sums and norms as well, by which the outputs
of the bundled base move by half their size."""


def to_openvino(folder: Path) -> None:
    """Put OpenVINO's files into a folder in place of those of ONNX, in float32.

    Raises:
        ImportError: where OpenVINO is not installed.
    """
    openvino = openvino_module("openvino")
    model = openvino.convert_model(str(folder / ONNX))
    openvino.save_model(model, str(folder / OPENVINO), compress_to_fp16=False)
    for path in folder.glob(f"{ONNX}*"):
        path.unlink()


def to_int8(folder: Path, samples: list[dict[str, Tensor]]) -> None:
    """Let the convolutions of the graph in a folder multiply in eight bits, weights and activations, by OpenVINO's quantiser.

    Args:
        folder: of OpenVINO's files, which are replaced.
        samples: what the graph was given while it made images; the ranges of its activations are measured on them.

    Raises:
        ImportError: where the quantiser, nncf, is not installed.
    """
    openvino, nncf = openvino_module("openvino"), openvino_module("nncf")
    model: Any = openvino.Core().read_model(str(folder / OPENVINO))
    given = [{name: value.numpy() for name, value in one.items()} for one in samples]
    others = sorted({operator.get_type_name() for operator in model.get_ops()} - set(ROUNDED))
    with quiet("nncf"):  # which tells of each operator that is left as it is
        small = nncf.quantize(
            model,
            nncf.Dataset(given),
            subset_size=len(given),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(types=others, validate=False),
        )
    with TemporaryDirectory(dir=folder) as place:  # the weights are read from the files that this replaces
        openvino.save_model(small, str(Path(place, OPENVINO)), compress_to_fp16=False)
        for path in Path(place).iterdir():
            path.replace(folder / path.name)


class Recording:
    """A graph that keeps of every image it takes part in the inputs of some steps, and of all images those of all steps.

    Args:
        graph: that runs.
        images: how many there will be, one after the other.
    """

    def __init__(self, graph: Graph, images: int):
        self.graph, self.images = graph, images
        self.image = self.step = 0
        self.samples: list[dict[str, Tensor]] = []

    @property
    def inputs(self) -> Mapping[str, torch.dtype]:
        return self.graph.inputs

    @property
    def sides(self) -> Mapping[str, tuple[int | None, ...]]:
        return self.graph.sides

    @property
    def computes_in(self) -> str:
        return self.graph.computes_in

    def __call__(self, given: dict[str, Tensor]) -> Tensor:
        if self.step % self.images == self.image:
            self.samples.append(given)
        self.step += 1
        return self.graph(given)

    def next_image(self) -> None:
        self.image, self.step = self.image + 1, 0
