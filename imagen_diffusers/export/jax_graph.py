"""A graph of ONNX run by JAX, compiled by `jax.jit`: jaxonnxruntime makes a function of JAX of it, one for each shape."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .graphs import runtime_module

Function = Callable[[Any, list[Any]], list[Any]]


class JaxGraph:
    """A graph that JAX runs, where JAX runs: on a TPU, a GPU or the processor, in float32.

    The first call of a shape takes long: the function is made, operator by operator, and compiled.

    Args:
        path: of a file of ONNX.
        dtype: is not read.

    Raises:
        ValueError: for a graph with operators that jaxonnxruntime lacks, such as that of a text encoder.
    """

    computes_in = "f32"

    def __init__(self, path: Path, dtype: torch.dtype):
        self.jax = runtime_module("jax", "jax")
        runtime_module("jaxonnxruntime", "jax")
        from onnx import helper, load  # pyright: ignore[reportMissingImports] (an extra)

        from .jax_operators import lacking, register

        register()
        self.model = load(str(path))
        lacks = lacking(node.op_type for node in self.model.graph.node)
        if lacks:
            raise ValueError(
                f"JAX cannot run {path}: jaxonnxruntime lacks its operators {', '.join(lacks)}. It runs this package's networks alone; "
                "leave text encoders and other networks to onnxruntime"
            )
        told = {one.name: one.type.tensor_type for one in self.model.graph.input}
        self.sides = {name: tuple(side.dim_value or None for side in one.shape.dim) for name, one in told.items()}
        kinds = {name: one.elem_type for name, one in told.items()}
        self.inputs = {name: torch.from_numpy(np.empty(0, helper.tensor_dtype_to_np_dtype(kind))).dtype for name, kind in kinds.items()}
        self._made: dict[Any, tuple[Function, Any]] = {}

    def __call__(self, given: dict[str, Tensor]) -> Tensor:
        function, weights = self.function(given)
        (output,) = function(weights, [value.numpy() for value in given.values()])
        return torch.from_numpy(np.array(output))

    def function(self, given: dict[str, Tensor]) -> tuple[Function, Any]:
        """The graph for inputs of these shapes, as a jit-compiled function of JAX of (weights, list of inputs), and the weights.

        Programs of JAX call it as any other, also from functions that they compile themselves; not all can be differentiated. Shapes are
        computed in 64 bits within it, of which JAX by default cuts off half; floats stay of 32.
        """
        shapes = tuple((name, tuple(value.shape)) for name, value in given.items())
        if shapes not in self._made:
            from jaxonnxruntime import call_onnx, config  # pyright: ignore[reportMissingImports]

            config.update("jaxort_only_allow_initializers_as_static_args", False)  # the shapes that it computes with are these
            with self.jax.enable_x64(True):
                made, weights = call_onnx.call_onnx_model(self.model, {name: value.numpy() for name, value in given.items()})
            self._made[shapes] = self._in_64_bits(self.jax.jit(made), [value.numpy().dtype for value in given.values()]), weights
        return self._made[shapes]

    def _in_64_bits(self, compiled: Function, kinds: list[Any]) -> Function:
        def run(weights: Any, inputs: list[Any]) -> list[Any]:
            with self.jax.enable_x64(True):
                cast = [self.jax.numpy.asarray(value, kind) for value, kind in zip(inputs, kinds, strict=True)]  # of NumPy's, float64
                return compiled(weights, cast)

        return run
