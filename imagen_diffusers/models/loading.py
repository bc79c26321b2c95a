"""Loaded networks compute the very bits that saved ones did, nothing is opened that could run code, and nothing tells of this machine."""

import os
from collections.abc import Collection
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from transformers import PreTrainedModel

from .adapters import holds_adapter
from .saved_configs import leave_out_local_paths
from .weight_files import check_network_folder, sole_variant, stored_names

OF_THE_HUB = ("subfolder", "revision", "cache_dir", "token", "local_files_only", "force_download", "proxies")


class OwnMemoryMixin:
    """First base of a network: saved as in diffusers, but for paths, and loaded as in diffusers, with weights in memory of their own.

    A loaded file leaves them at addresses where the processor's kernels add in another order, so that a saved network would not
    generate bit-equal images.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any):
        """As in diffusers, with two defaults of its own.

        Weights are safetensors; pickles are opened only with `use_safetensors=False`. A folder whose weights are all of one
        variant ("fp16") is loaded without `variant=`.

        A keyword of the configuration changes the network (`noisy_skip=True`). What it adds begins as in a new network, as diffusers warns,
        with `low_cpu_mem_usage=False`.

        Raises:
            OSError: for weights that are missing, damaged or a pickle, naming the file, for a file that lacks some of them, and for a name
                that is no folder and no Hub id, as those of bundled pipelines are.
            ValueError: for a changed network that has more weights than the file, without `low_cpu_mem_usage=False`.
        """
        if kwargs.get("use_safetensors") is None:
            kwargs["use_safetensors"] = True
        place = os.fspath(pretrained_model_name_or_path)
        if os.path.isdir(place):
            place = os.path.abspath(place)  # its configuration keeps it, and relative it could be a Hub id
        elif "/" not in place and os.sep not in place:
            raise OSError(
                f'"{place}" is no folder here, and no Hub id, which has the form "user/name"; for what comes with the package give '
                f'imagen_diffusers.bundled("{place}") in its place'
            )
        folder = Path(place, kwargs.get("subfolder") or "")
        if kwargs["use_safetensors"] and folder.is_dir():
            if kwargs.get("variant") is None:
                kwargs["variant"] = sole_variant({folder.name: os.listdir(folder)})
            check_network_folder(folder, kwargs["variant"])
        told = kwargs.pop("output_loading_info", False)
        network, info = super().from_pretrained(place, **kwargs, output_loading_info=True)  # type: ignore[misc]
        missing = [name for name in network.state_dict() if name in info["missing_keys"]]
        asked = kwargs.keys() & cls._get_init_keys(cls)  # type: ignore[attr-defined]
        if missing and asked:
            of_the_hub = {name: value for name, value in kwargs.items() if name in OF_THE_HUB}
            saved: Any = cls.load_config(place, **of_the_hub)  # type: ignore[attr-defined]
            missing = _begun(network, missing, saved, asked)
        check_none_missing(missing, folder)
        for parameter in network.parameters():
            plain = type(parameter) is nn.Parameter and type(parameter.data) is Tensor  # and not quantized
            if plain and parameter.device.type == "cpu":
                parameter.data = parameter.data.clone()
        return (network, info) if told else network

    @wraps(ModelMixin.save_pretrained, assigned=())  # pipelines look at its signature
    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As in diffusers.

        Raises:
            ValueError: while the network holds a LoRA adapter.
        """
        if holds_adapter(self):  # type: ignore[arg-type]
            raise ValueError(
                "this network holds a LoRA adapter, and a folder saved with its layers would not load again; call fuse_lora() and "
                "unload_lora() to save weights with the adapter in them, or unload_lora() to save them without"
            )
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]

    def save_config(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As in diffusers, without the folder of this machine that the network was loaded from."""
        super().save_config(save_directory, *args, **kwargs)  # type: ignore[misc]
        leave_out_local_paths([Path(save_directory, "config.json")])


def _begun(network: Any, missing: list[str], saved: dict[str, Any], asked: Collection[str]) -> list[str]:
    """Give weights that a changed configuration adds the values of a new network: diffusers leaves them as the memory was.

    Args:
        network: loaded, without the weights that are `missing`.
        saved: the configuration of the file.
        asked: what of it the caller gave, changed or not.

    Returns:
        Those that the saved network has, too, and its file lacks.

    Raises:
        ValueError: where added ones have no memory yet.
    """
    with torch.device("meta"):
        before: Any = type(network).from_config(saved)
    of_saved = before.state_dict().keys()
    added = [name for name in missing if name not in of_saved]
    weights = network.state_dict()
    if any(weights[name].is_meta for name in added):
        changed = sorted(name for name in asked if network.config[name] != before.config[name])
        raise ValueError(
            f"{', '.join(changed)} of the configuration changed, and the network has {len(added)} weights that the saved one has not, "
            f"{added[0]} the first; give low_cpu_mem_usage=False, too, for them to begin as in a new network, or leave the configuration"
        )
    if added:
        with torch.random.fork_rng(devices=[]):  # loading draws no random numbers that others would miss
            new = type(network).from_config(network.config).state_dict()
        network.load_state_dict({name: new[name] for name in added}, strict=False)
    return [name for name in missing if name in of_saved]


def check_complete(network: nn.Module, folder: Path, variant: str | None) -> None:
    """See that a network, of whatever library, had all its parameters from the safetensors of a folder, and none made up.

    Args:
        network: loaded from there. Of a quantized one the parameters are others than the file's, and nothing is said.
        folder, variant: as in `check_network_folder`.

    Raises:
        OSError: naming the first that is not there.
    """
    if getattr(network, "hf_quantizer", None) is not None:
        return
    stored = stored_names(folder, variant)
    there = stored | {name.partition(".")[2] for name in stored}  # CLIP's text encoder was saved, and is read, as "text_model." at first
    names: dict[int, list[str]] = {}  # of each parameter: tied ones have several, and are stored under one
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    missing = [tied[0] for tied in names.values() if not there.intersection(tied)]
    if missing and isinstance(network, PreTrainedModel):  # experts are stored one by one and read together: its own loader knows
        loaded: Any = type(network).from_pretrained(folder, variant=variant, dtype=network.dtype, output_loading_info=True)
        missing = sorted(loaded[1]["missing_keys"])
    check_none_missing(missing, folder)


def check_none_missing(names: list[str], folder: Path | str) -> None:
    """See that no parameters are missing in the weights of a folder, or of a place on the Hub.

    Raises:
        OSError: naming the first.
    """
    if names:
        raise OSError(f"the weights of {folder} lack {len(names)} of its network's parameters, {names[0]} the first; save it again")
