"""Graphs that ONNX Runtime and OpenVINO run; each is imported when the first of its graphs is opened."""

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from imagen_diffusers.extras import install

ONNX, OPENVINO = "model.onnx", "openvino_model.xml"  # as optimum names them


class Graph(Protocol):
    """An opened graph: tensors by name to its one output."""

    inputs: Mapping[str, torch.dtype]
    sides: Mapping[str, tuple[int | None, ...]]
    """Of each input; None is a side that may be of any size."""
    computes_in: str
    """The precision that its runtime multiplies in."""

    def __call__(self, given: dict[str, Tensor]) -> Tensor: ...


class OnnxGraph:
    """A graph that ONNX Runtime runs, on as many threads as torch does. It computes in float32, whatever is asked for.

    Args:
        path: of a file of ONNX.
        dtype: is not read.
    """

    computes_in = "f32"
    TYPES: ClassVar = {"tensor(float)": torch.float32, "tensor(int64)": torch.int64, "tensor(bool)": torch.bool}

    def __init__(self, path: Path, dtype: torch.dtype):
        runtime = _onnx_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = {one.name: self.TYPES[one.type] for one in self.session.get_inputs()}
        self.sides = {one.name: tuple(n if isinstance(n, int) else None for n in one.shape) for one in self.session.get_inputs()}

    def __call__(self, given: dict[str, Tensor]) -> Tensor:
        (output,) = self.session.run(None, {name: value.numpy() for name, value in given.items()})
        return torch.from_numpy(output)


class OpenVinoGraph:
    """A graph that OpenVINO runs, on as many threads as torch does.

    Args:
        path: of its .xml; the weights lie beside it.
        dtype: bfloat16 lets the processor multiply in it; inputs and the output stay in float32.
    """

    HINTS: ClassVar = {torch.bfloat16: "bf16", torch.float16: "f16"}

    def __init__(self, path: Path, dtype: torch.dtype):
        core = openvino_module("openvino").Core()
        hints = {"INFERENCE_PRECISION_HINT": self.HINTS.get(dtype, "f32"), "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self.compiled = core.compile_model(str(path), "CPU", hints)
        self.computes_in = self.compiled.get_property("INFERENCE_PRECISION_HINT").to_string()  # which the processor has a say in
        kinds = {one.any_name: one.element_type.to_dtype() for one in self.compiled.inputs}
        self.inputs = {name: torch.from_numpy(np.empty(0, kind)).dtype for name, kind in kinds.items()}
        shapes = {one.any_name: one.partial_shape for one in self.compiled.inputs}
        self.sides = {name: tuple(n.get_length() if n.is_static else None for n in shape) for name, shape in shapes.items()}

    def __call__(self, given: dict[str, Tensor]) -> Tensor:
        return torch.from_numpy(self.compiled({name: value.numpy() for name, value in given.items()})[0])


def graph_files(folder: Path) -> list[Path]:
    """Those of all graphs in a folder, with the weights that lie beside them."""
    names = (ONNX, f"{ONNX}.data", OPENVINO, str(Path(OPENVINO).with_suffix(".bin")))
    return [folder / name for name in names if (folder / name).is_file()]


def _onnx_runtime() -> Any:
    """ONNX Runtime, which reports to its makers on what it runs unless it is told not to, before it is imported and after."""
    for name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):  # releases differ in which they read
        os.environ.setdefault(name, "1")
    runtime = runtime_module("onnxruntime", "onnx")
    runtime.disable_telemetry_events()
    return runtime


def openvino_module(name: str) -> Any:
    """OpenVINO, or its quantiser. Both report to their makers through a package beside them unless it cannot be imported.

    Raises:
        ImportError: naming the extra that brings it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] (so it is said that there is none)
    return runtime_module(name, "openvino")


def runtime_module(name: str, extra: str) -> Any:
    """A package that only exported graphs need.

    Raises:
        ImportError: naming the extra that brings it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is needed for this and cannot be imported ({error}): {install(extra)}") from None
