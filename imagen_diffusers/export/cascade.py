"""A whole cascade as graphs, in a folder of diffusers' layout."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.torch_utils import unwrap_module
from torch.export import ExportedProgram

from imagen_diffusers.sampling.network import adapt

from .checks import check_exportable
from .exported import ExportedModel, ExportedNetwork, ExportedTextEncoder
from .files import write_onnx
from .graphs import ONNX, OPENVINO
from .inputs import Inputs
from .openvino_files import Recording, to_int8, to_openvino
from .tracing import trace_network, trace_text_encoder

TEXT_ENCODER = "text_encoder"


def export_cascade(pipe: Any, folder: str | Path, *, openvino: bool = False) -> Iterator[str]:
    """Write every network and the text encoder as a graph, with all that a pipeline needs beside them; the name of each, as it is done.

    The folder loads as any other: `ImagenCascadePipeline.from_pretrained(folder)`.

    Args:
        pipe: a cascade in float32.
        folder: new, or one to be written over.
        openvino: writes OpenVINO's files in place of those of ONNX.

    Raises:
        ValueError: for what cannot be a graph, before anything is written.
        ImportError: saying what to install.
    """
    folder = Path(folder)
    parts = {pipe.slots(n)[0]: unwrap_module(getattr(pipe, pipe.slots(n)[0])) for n in pipe.stage_numbers}
    if pipe.text_encoder is not None:
        parts[TEXT_ENCODER] = pipe.text_encoder
    for name, module in parts.items():
        if isinstance(module, ExportedModel):
            raise ValueError(f"{name} is a graph already, of {module.folder}; export the pipeline that it was made of")
        check_exportable(name, module)
    exported = {}
    for name, module in parts.items():
        export = _export_text_encoder if name == TEXT_ENCODER else export_network
        exported[name] = export(module, folder / name, openvino=openvino)
        yield name
    type(pipe).from_pipe(pipe, **exported).save_pretrained(folder)


def export_network(module: Any, folder: Path, *, openvino: bool = False) -> ExportedNetwork:
    """One network as a graph and its configuration, in a folder of its own."""
    _write(*trace_network(adapt(module)), "out_sample", folder, openvino)
    module.save_config(folder)
    return ExportedNetwork.from_pretrained(folder)


def quantize_cascade(pipe: Any, prompts: Sequence[str]) -> Iterator[str]:
    """Let exported networks multiply in eight bits, in their folders; the name of each, as it is done. The text encoder stays as it is.

    Args:
        pipe: a cascade of OpenVINO's graphs, loaded in float32, which makes an image of each prompt, of the seeds 0, 1, ...
        prompts: as the cascade will be given; the ranges of its activations are measured on them.

    Raises:
        ValueError: for no prompts, and networks that are not OpenVINO's graphs.
    """
    networks = {pipe.slots(n)[0]: getattr(pipe, pipe.slots(n)[0]) for n in pipe.stage_numbers}
    plain = [name for name, one in networks.items() if not isinstance(one, ExportedNetwork) or not (one.folder / OPENVINO).exists()]
    if plain or not prompts:
        raise ValueError(
            f"eight bits take prompts to measure on and OpenVINO's graphs; there are {len(prompts)} prompts, and {plain} are none"
        )
    recordings = {name: Recording(one.graph, len(prompts)) for name, one in networks.items()}
    for name, one in networks.items():
        one.graph = recordings[name]
    for seed, prompt in enumerate(prompts):
        pipe(prompt, generator=torch.Generator().manual_seed(seed))
        for recording in recordings.values():
            recording.next_image()
    for name, one in networks.items():
        to_int8(one.folder, recordings[name].samples)
        yield name


def _export_text_encoder(encoder: Any, folder: Path, *, openvino: bool) -> ExportedTextEncoder:
    _write(*trace_text_encoder(encoder), "last_hidden_state", folder, openvino)
    encoder.config.save_pretrained(folder)
    return ExportedTextEncoder.from_pretrained(folder)


def _write(program: ExportedProgram, inputs: Inputs, output: str, folder: Path, openvino: bool) -> None:
    for former in (ONNX, OPENVINO):  # of an export before this one, of either kind
        Path(folder, former).unlink(missing_ok=True)
    write_onnx(program, inputs, output, folder / ONNX)
    if openvino:
        to_openvino(folder)
