"""Programs to files of ONNX."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from .graphs import runtime_module
from .inputs import Inputs, names_of_sides

OPSET = 18  # of attention written out, which every runtime has; the operator for it (23) is not in all of them


def write_onnx(program: ExportedProgram, inputs: Inputs, output: str, path: Path) -> None:
    """Write a program as ONNX; weights of more than 2 GB lie beside the file.

    Args:
        program: traced.
        inputs: the example it was traced with.
        output: the name of its output.
        path: of the file.

    Raises:
        ImportError: where what writes ONNX is not installed.
    """
    runtime_module("onnxscript", "onnx")
    with quiet("torch.onnx"):  # which tells of packages that are no part of this
        made: Any = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=list(inputs), output_names=[output], verbose=False
        )
    named = [names_of_sides(value.ndim) for value in inputs.values()]
    sides = {one.shape[i]: name for one, names in zip(made.model.graph.inputs, named, strict=True) for i, name in names.items()}
    made.rename_axes(sides)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save(str(path))


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Without what a package tells of its work, and warns of in its own future; errors are logged still.

    Args:
        name: of its logger.
    """
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
