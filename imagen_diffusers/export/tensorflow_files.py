"""Graphs to TensorFlow's SavedModel, by way of JAX."""

from pathlib import Path
from typing import Any

from torch import Tensor

from .exported import ExportedModel
from .graphs import ONNX, runtime_module
from .jax_graph import JaxGraph


def save_for_tensorflow(exported: ExportedModel, given: dict[str, Tensor], folder: Path) -> None:
    """Write a graph as a SavedModel, whose `run` takes what the graph takes, by name, in the shapes of one example.

    Args:
        exported: a network of this package, from a folder with a file of ONNX.
        given: the example, such as `inputs.example` makes for a network.
        folder: to write.

    Raises:
        ImportError: naming what is missing, of TensorFlow and JAX.
        ValueError: for a graph that JAX cannot run.
    """
    tensorflow = runtime_module("tensorflow", "tensorflow")
    graph = JaxGraph(exported.folder / ONNX, exported.dtype)
    jax2tf = runtime_module("jax.experimental.jax2tf", "jax")
    given = {name: given[name] for name in graph.inputs}
    function, weights = graph.function(given)
    with graph.jax.enable_x64(True):  # as the function is made
        made = jax2tf.convert(lambda inputs: function(weights, [inputs[name] for name in given])[0], with_gradient=False)
        kinds = {name: tensorflow.TensorSpec(v.shape, v.numpy().dtype, name=name) for name, v in given.items()}
        module: Any = tensorflow.Module()
        module.run = tensorflow.function(made, autograph=False, input_signature=[kinds])
        tensorflow.saved_model.save(module, str(folder))
