"""What runs the graph in a folder."""

import os
from pathlib import Path
from typing import Any

import torch

from .graphs import ONNX, OPENVINO, Graph, OnnxGraph, OpenVinoGraph
from .jax_graph import JaxGraph

RUNTIMES: dict[str, tuple[str, Any]] = {"openvino": (OPENVINO, OpenVinoGraph), "onnxruntime": (ONNX, OnnxGraph), "jax": (ONNX, JaxGraph)}
"""By name, what runs a graph, and the file it reads; the first that finds its file does, where none is asked for."""


def open_graph(folder: str | os.PathLike, dtype: torch.dtype, runtime: str | None = None) -> Graph:
    """The graph in a folder.

    Args:
        dtype: to compute in, where the runtime has a choice.
        runtime: of `RUNTIMES`; by default that of the file which is there.

    Raises:
        ValueError: for a runtime that is not there, for one that reads other files than the folder's, and for one that lacks operators.
        OSError: for a folder without a file that it reads, and for a file that it cannot read.
        ImportError: saying what to install, where the runtime is not there.
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise ValueError(f'runtime "{runtime}" is unknown; use one of {", ".join(RUNTIMES)}')
    there = {name: kind for name, (file, kind) in RUNTIMES.items() if Path(folder, file).is_file()}
    if not there:
        raise OSError(f"{folder} holds no graph: {' or '.join({file: None for file, _ in RUNTIMES.values()})} is missing; export it again")
    name = next(iter(there)) if runtime is None else runtime
    if name not in there:
        wanted, to = RUNTIMES[name][0], " --to openvino" if RUNTIMES[name][0] == OPENVINO else " without --to openvino"
        raise ValueError(
            f"{folder} holds a graph for {' or '.join(there)}, and {name} reads {wanted}; export the cascade{to}, into another folder"
        )
    return _opened(there[name], Path(folder, RUNTIMES[name][0]), dtype)


def _opened(kind: Any, path: Path, dtype: torch.dtype) -> Graph:
    try:
        return kind(path, dtype)
    except (ImportError, OSError, ValueError):
        raise
    except Exception as error:  # each runtime has classes of its own
        said = " ".join(str(error).split())[:200]
        raise OSError(f"{path} is damaged, or lacks the weights beside it; export it again ({type(error).__name__}: {said})") from error
