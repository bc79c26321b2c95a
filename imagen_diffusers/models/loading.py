"""Loaded networks compute the very bits that saved ones did, and nothing is opened that could run code."""

import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .weight_files import check_network_folder, sole_variant


class OwnMemoryMixin:
    """First base of a network: `from_pretrained` as in diffusers, with the weights in memory of their own.

    A loaded file leaves them at addresses where the processor's kernels add in another order, so that a saved network would not
    generate bit-equal images.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any):
        """As in diffusers, with two defaults of its own.

        Weights are safetensors; pickles are opened only with `use_safetensors=False`. A folder whose weights are all of one
        variant ("fp16") is loaded without `variant=`.

        Raises:
            OSError: for weights that are missing, damaged or a pickle, naming the file, and for a file that lacks some of them.
        """
        if kwargs.get("use_safetensors") is None:
            kwargs["use_safetensors"] = True
        place = os.fspath(pretrained_model_name_or_path)
        if os.path.isdir(place):
            place = os.path.abspath(place)  # its configuration keeps it, and relative it could be a Hub id
        folder = Path(place, kwargs.get("subfolder") or "")
        if kwargs["use_safetensors"] and folder.is_dir():
            if kwargs.get("variant") is None:
                kwargs["variant"] = sole_variant({folder.name: os.listdir(folder)})
            check_network_folder(folder, kwargs["variant"])
        loaded = super().from_pretrained(place, **kwargs)  # type: ignore[misc]
        network = loaded[0] if isinstance(loaded, tuple) else loaded
        missing = [name for name, parameter in network.named_parameters() if parameter.is_meta]
        if missing and kwargs.get("device_map") is None:
            raise OSError(f"the weights of {folder} lack {len(missing)} of its network's parameters, {missing[0]} the first; save it again")
        for parameter in network.parameters():
            plain = type(parameter) is nn.Parameter and type(parameter.data) is Tensor  # and not quantized
            if plain and parameter.device.type == "cpu":
                parameter.data = parameter.data.clone()
        return loaded
