"""Exported networks and text encoders in the slots of a pipeline, where they answer as those they were exported from.

A folder's `model_index.json` names these classes, as diffusers' own ONNX pipelines named theirs, so that any loader of diffusers knows
what to make of it; the files in it are those of optimum. The `config.json` beside a graph is the network's own, and a network without
weights is built of it: it says all that the denoising loop asks, and the graph does the work.
"""

import hashlib
import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor
from transformers import AutoConfig
from transformers.modeling_outputs import BaseModelOutput

import imagen_diffusers.interop  # noqa: F401 (its networks, too, are exported)
from imagen_diffusers.sampling.network import StageNetwork, adapt
from imagen_diffusers.training.folders import in_one_rename

from .graphs import OPENVINO, Graph, graph_files
from .inputs import check_shapes
from .runtimes import open_graph

CONFIG = "config.json"


class ExportedModel(ModelMixin):
    """A graph with the folder it is in, without parameters. Saving copies the files; its state is a digest of them.

    Args:
        graph: opened.
        folder: of the graph and its `config.json`.
    """

    device = torch.device("cpu")  # pyright: ignore[reportAssignmentType] (both are of what goes in and comes out)
    dtype = torch.float32  # pyright: ignore[reportAssignmentType]

    def __init__(self, graph: Graph, folder: Path):
        super().__init__()
        self.graph, self.folder = graph, folder

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *, torch_dtype: torch.dtype | None = None, subfolder: str = "", **kwargs: Any
    ) -> Self:
        """As in diffusers, from a folder of this machine; `kwargs`, which are about weights, are not read.

        Args:
            torch_dtype: to compute in, where the runtime has a choice; float32 by default.
            subfolder: of that folder.

        Raises:
            OSError: for a folder without a graph.
            ImportError: saying what to install, where what runs the graph is not there.
        """
        folder = Path(pretrained_model_name_or_path, subfolder)
        return cls(open_graph(folder, torch_dtype or torch.float32), folder)

    def save_pretrained(self, save_directory: str | os.PathLike, *, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Copy the graph and its configuration, in place of another graph that is there; other `kwargs` are about weights, and not read.

        Args:
            push_to_hub: upload them as well, to `repo_id`, or the folder's name, with `commit_message`, `private`, `token`, `create_pr`.
        """
        folder = Path(save_directory)
        if folder.resolve() != self.folder.resolve():
            _copy(self.folder, folder)
        if push_to_hub:
            hub = {name: kwargs[name] for name in ("commit_message", "private", "token", "create_pr") if name in kwargs}
            self.push_to_hub(kwargs.get("repo_id", folder.resolve().name), **hub)

    def get_extra_state(self) -> Tensor:
        """What torch puts into `state_dict`: a digest (64,) of the graph's files, so that caches and evaluations tell graphs apart."""
        digest = hashlib.blake2b()
        for path in graph_files(self.folder):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "blake2b").digest())
        return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)

    @property
    def computes_in(self) -> str:
        """The precision that its runtime multiplies in, which no state shows: "f32", "bf16", "f16"."""
        return self.graph.computes_in

    @property
    def written_as(self) -> str:
        """What its files are: "OpenVINO", or "ONNX"."""
        return "OpenVINO" if (self.folder / OPENVINO).is_file() else "ONNX"

    def run_by(self, runtime: str) -> Self:
        """Itself, run by another runtime that reads its file: "jax" in place of "onnxruntime".

        Raises:
            ValueError: for a runtime that is unknown, reads other files, or lacks operators of the graph, as JAX does of text encoders.
            ImportError: saying what to install, where the runtime is not there.
        """
        self.graph = open_graph(self.folder, torch.float32, runtime)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Itself: the graph stays where its runtime is, and in the types it was made of.

        Raises:
            ValueError: for a device that is not on this machine, as weights could not be moved to it.
        """
        device = kwargs.get("device", args[0] if args else None)
        try:
            torch.empty(0, device=device if isinstance(device, str | int | torch.device) else None)
        except (AssertionError, RuntimeError) as error:
            said = str(error).strip().split("\n")[0]
            raise ValueError(f'"{device}" is no device of this machine ({said}); leave it out, graphs run where their runtime is') from None
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError(f"this {type(self).__name__} is exported, and its runtime has optimised it already; leave compile out")

    def run(self, given: dict[str, Tensor | None]) -> Tensor:
        """The graph's output for these inputs by name, of whatever type and place.

        Raises:
            ValueError: for inputs that it lacks, or has no place for, and for shapes that are not its own or do not go together.
        """
        there = {name: value for name, value in given.items() if value is not None}
        wanted = self.graph.inputs
        if there.keys() != wanted.keys():
            raise ValueError(f"the graph in {self.folder} takes {', '.join(wanted)}, by name; it was given {', '.join(there)}")
        check_shapes(there, self.graph.sides)
        return self.graph({name: there[name].detach().to("cpu", dtype).contiguous() for name, dtype in wanted.items()})


class ExportedNetwork(ExportedModel):
    """A network's graph, called as the network is."""

    def __init__(self, graph: Graph, folder: Path):
        super().__init__(graph, folder)
        config = json.loads((folder / CONFIG).read_bytes())
        self.__dict__["without_weights"] = _without_weights(config)  # and no part of this one, which `to` would move
        self.stride = adapt(self.without_weights).stride

    @property
    def config(self) -> Any:
        """That of the network it was exported from."""
        return self.without_weights.config

    def forward(self, sample: Tensor, timestep: Tensor | float, return_dict: bool = True, **others: Tensor | None) -> Any:
        """As the network's own; its arguments by name.

        Raises:
            ValueError: for arguments that are not the graph's, images of another size than the sample's, and sides that the network's
                stride does not divide.
        """
        height, width = sample.shape[2:]
        if height % self.stride or width % self.stride:
            raise ValueError(f"the graph in {self.folder} got an image of {width}x{height}; both sides must be multiples of {self.stride}")
        given = {"sample": sample, "timestep": torch.as_tensor(timestep).expand(sample.shape[0]), **others}
        for name, value in given.items():
            if value is not None and value.ndim == sample.ndim and value.shape[2:] != sample.shape[2:]:
                raise ValueError(
                    f"{name} is {tuple(value.shape[2:])}; a graph takes images of its sample's size, {tuple(sample.shape[2:])}"
                )
        text, mask = given.get("encoder_hidden_states"), "encoder_attention_mask"
        if mask in self.graph.inputs and given.get(mask) is None and text is not None:
            given[mask] = torch.ones(text.shape[:2], dtype=torch.bool)  # nothing is padded
        output = self.run(given).to(sample.device)
        return UNet2DConditionOutput(sample=output) if return_dict else (output,)


class ExportedTextEncoder(ExportedModel):
    """A text encoder's graph, called as transformers' is."""

    def __init__(self, graph: Graph, folder: Path):
        super().__init__(graph, folder)
        self.config = AutoConfig.from_pretrained(folder)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> BaseModelOutput:
        """Token ids (B, L) and what is attended to (B, L), 1 or 0, to `last_hidden_state` (B, L, D)."""
        given: dict[str, Tensor | None] = {"input_ids": input_ids, "attention_mask": attention_mask}
        return BaseModelOutput(last_hidden_state=self.run(given).to(input_ids.device))  # pyright: ignore[reportArgumentType]


@adapt.register
def _adapted(exported: ExportedNetwork) -> StageNetwork:
    """The adapter of the network it was exported from, which runs the graph."""
    return adapt(exported.without_weights).through(exported)


def _copy(source: Path, folder: Path) -> None:
    """A graph and its configuration to a folder, where no other graph is left, which would be run in its place."""
    with ExitStack() as written:
        for path in (*graph_files(source), source / CONFIG):
            shutil.copyfile(path, written.enter_context(in_one_rename(folder / path.name)))
        for former in graph_files(folder):
            former.unlink()


def _without_weights(config: dict[str, Any]) -> Any:
    kinds: dict[str, Any] = {kind.__name__: kind for kind in adapt.registry}
    name = config["_class_name"]
    if name not in kinds:
        raise ValueError(f"this graph is of a {name}, which no adapter is registered for; import the module that registers it first")
    with torch.device("meta"):
        return kinds[name].from_config(config).eval()
