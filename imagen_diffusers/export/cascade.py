"""A whole cascade as graphs, in a folder of diffusers' layout."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.torch_utils import unwrap_module
from torch.export import ExportedProgram

from imagen_diffusers.sampling.network import adapt
from imagen_diffusers.text.encoders import readable
from imagen_diffusers.training.folders import PART, one_run_in

from .checks import check_exportable, check_holds_no_weights, check_installed
from .exported import ExportedModel, ExportedNetwork, ExportedTextEncoder
from .files import write_onnx
from .graphs import ONNX, OPENVINO, graph_files
from .inputs import Inputs
from .openvino_files import Recording, to_int8, to_openvino
from .places import check_places, discard_written, former_graphs, move_in
from .tracing import trace_network, trace_text_encoder

TEXT_ENCODER = "text_encoder"


def export_cascade(pipe: Any, folder: str | Path, *, openvino: bool = False, prompts: Sequence[str] = ()) -> Iterator[str]:
    """Write every network and the text encoder as a graph, with all that a pipeline needs beside them; what is next, before it is begun.

    The folder loads as any other: `ImagenCascadePipeline.from_pretrained(folder)`. Graphs come to their places when all of them are
    written, and the index that tells of them comes last: of an export that is broken off nothing is loaded, and a cascade that was
    there before stays until then. Components of an export before this one that this one has not, such as those of more stages, are
    removed; a card and files of one's own stay.

    Args:
        pipe: a cascade in float32.
        folder: new, or one to be written over.
        openvino: writes OpenVINO's files in place of those of ONNX.
        prompts: for OpenVINO, lets networks multiply in eight bits, as `quantize_cascade` does.

    Raises:
        ValueError: for what cannot be a graph, a folder with weights, which would be lost, one that another run is writing into, and one
            in which something else is where graphs are to be put; before anything is written.
        ImportError: saying what to install, before anything is written.
    """
    folder = Path(folder).resolve()
    parts = _parts(pipe)
    if prompts and not openvino:
        raise ValueError("eight bits, which prompts are for, are OpenVINO's; pass openvino=True, or leave prompts out")
    check_installed(openvino=openvino, eight_bits=bool(prompts))
    check_holds_no_weights(folder)
    check_places(folder, parts)
    with one_run_in(folder):
        part = folder / PART
        shutil.rmtree(part, ignore_errors=True)  # of an export that was killed
        try:
            yield from _write_all(pipe, parts, folder, part, openvino, prompts)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def export_network(module: Any, folder: Path, *, openvino: bool = False) -> ExportedNetwork:
    """One network as a graph and its configuration, in a folder of its own."""
    _write(*trace_network(adapt(module)), "out_sample", folder, openvino)
    module.save_config(folder)
    return ExportedNetwork.from_pretrained(folder)


def quantize_cascade(pipe: Any, prompts: Sequence[str]) -> Iterator[str]:
    """Let exported networks multiply in eight bits, in their folders; what is next, before it is begun. The text encoder stays as it is.

    Args:
        pipe: a cascade of OpenVINO's graphs, loaded in float32, which makes an image of each prompt, of the seeds 0, 1, ...
        prompts: as the cascade will be given; the ranges of its activations are measured on them.

    Raises:
        ValueError: for no prompts, and networks that are not OpenVINO's graphs.
        ImportError: saying what to install.
    """
    networks = {pipe.slots(n)[0]: pipe.unet_of(n) for n in pipe.stage_numbers}
    plain = [name for name, one in networks.items() if not isinstance(one, ExportedNetwork) or not (one.folder / OPENVINO).exists()]
    if plain or not prompts:
        raise ValueError(
            f"eight bits take prompts to measure on and OpenVINO's graphs; there are {len(prompts)} prompts, and {plain} are none"
        )
    check_installed(openvino=True, eight_bits=True)
    recordings = {name: Recording(one.graph, len(prompts)) for name, one in networks.items()}
    for name, one in networks.items():
        one.graph = recordings[name]
    yield f"images of {len(prompts)} prompts, to measure on"
    for seed, prompt in enumerate(prompts):
        pipe(prompt if pipe.takes_text else None, generator=torch.Generator().manual_seed(seed))
        for recording in recordings.values():
            recording.next_image()
    for name, one in networks.items():
        yield f"{name} in eight bits"
        to_int8(one.folder, recordings[name].samples)


def _parts(pipe: Any) -> dict[str, Any]:
    """What becomes graphs, by slot, each seen to be fit for it."""
    parts = {pipe.slots(n)[0]: unwrap_module(pipe.unet_of(n)) for n in pipe.stage_numbers}
    if pipe.text_encoder is not None:
        parts[TEXT_ENCODER] = pipe.text_encoder
    for name, module in parts.items():
        if isinstance(module, ExportedModel):
            raise ValueError(f"{name} is a graph already, of {module.folder}; export the pipeline that it was made of")
        check_exportable(name, module)
    return parts


def _write_all(pipe: Any, parts: dict[str, Any], folder: Path, part: Path, openvino: bool, prompts: Sequence[str]) -> Iterator[str]:
    """Graphs into the folder `part` and, when all are there, to their places in `folder`; then the rest, and the index."""
    index, made = folder / pipe.config_name, {}
    former = former_graphs(index)
    for name, module in parts.items():
        yield name
        export = _export_text_encoder if name == TEXT_ENCODER else export_network
        made[name] = export(module, part / name, openvino=openvino)
    if prompts:
        yield from quantize_cascade(type(pipe).from_pipe(pipe, **made), prompts)
    index.unlink(missing_ok=True)
    for name in parts:
        move_in(part / name, folder / name)
    _discard_former(pipe, folder, former - parts.keys())
    placed = {name: type(one).from_pretrained(folder / name) for name, one in made.items()}
    type(pipe).from_pipe(pipe, **placed).save_pretrained(folder)


def _discard_former(pipe: Any, folder: Path, names: set[str]) -> None:
    """Remove graphs of the export before this one whose slots are empty now, and the scheduler or tokenizer beside them."""
    for name in names:
        beside = "tokenizer" if name == TEXT_ENCODER else name.replace("unet", "scheduler")
        for former in (name, beside):
            if getattr(pipe, former, None) is None and (folder / former).is_dir():
                discard_written(folder / former)


def _export_text_encoder(encoder: Any, folder: Path, *, openvino: bool) -> ExportedTextEncoder:
    _write(*trace_text_encoder(encoder), "last_hidden_state", folder, openvino)
    config = copy(encoder.config)
    if (getattr(config, "max_position_embeddings", None) or 0) > 0:
        config.max_position_embeddings = readable(sys.maxsize, encoder)  # which RoBERTa's does not say, and a graph does not show
    config.save_pretrained(folder)
    return ExportedTextEncoder.from_pretrained(folder)


def _write(program: ExportedProgram, inputs: Inputs, output: str, folder: Path, openvino: bool) -> None:
    for former in graph_files(folder):  # of an export before this one, of either kind
        former.unlink()
    write_onnx(program, inputs, output, folder / ONNX)
    if openvino:
        to_openvino(folder)
