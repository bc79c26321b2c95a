"""A graph of ONNX run by JAX, compiled by `jax.jit`: jaxonnxruntime makes a function of JAX of it, one for each shape."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """

    computes_in = "f32"

    def __init__(self, path: Path, dtype: torch.dtype):
        self.jax = runtime_module("jax", "jax")
        runtime_module("jaxonnxruntime", "jax")
        from onnx import helper, load  # pyright: ignore[reportMissingImports] (an extra)

        from .jax_operators import register

        register()
        self.model = load(str(path))
        kinds = {one.name: one.type.tensor_type.elem_type for one in self.model.graph.input}
        self.inputs = {name: torch.from_numpy(np.empty(0, helper.tensor_dtype_to_np_dtype(kind))).dtype for name, kind in kinds.items()}
        self._made: dict[Any, tuple[Function, Any]] = {}

    def __call__(self, given: dict[str, Tensor]) -> Tensor:
        function, weights = self.function(given)
        with whole_numbers(self.jax):
            (output,) = function(weights, [value.numpy() for value in given.values()])
        return torch.from_numpy(np.array(output))

    def function(self, given: dict[str, Tensor]) -> tuple[Function, Any]:
        """The graph for inputs of these shapes, as a jit-compiled function of JAX of (weights, list of inputs), and the weights."""
        shapes = tuple((name, tuple(value.shape)) for name, value in given.items())
        if shapes not in self._made:
            from jaxonnxruntime import call_onnx, config  # pyright: ignore[reportMissingImports]

            config.update("jaxort_only_allow_initializers_as_static_args", False)  # the shapes that it computes with are these
            with whole_numbers(self.jax):
                made, weights = call_onnx.call_onnx_model(self.model, {name: value.numpy() for name, value in given.items()})
                self._made[shapes] = self.jax.jit(made), weights
        return self._made[shapes]


@contextmanager
def whole_numbers(jax: Any) -> Iterator[None]:
    """Shapes are computed in 64 bits, of which JAX by default cuts off half; floats stay of 32."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
