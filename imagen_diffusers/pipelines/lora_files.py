"""LoRA adapters of a cascade from and to files: one file, keys by stage, alpha and rank kept."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LoraBaseMixin, _fetch_state_dict
from torch import Tensor

from imagen_diffusers.hub.places import find
from imagen_diffusers.models.learned_guidance import as_stored
from imagen_diffusers.models.weight_files import check_adapter_folder

from .slots import UNETS


class LoraFilesMixin(LoraBaseMixin):
    """What of diffusers' LoRA methods reads and writes files."""

    _lora_loadable_modules = list(UNETS)

    @classmethod
    def lora_state_dict(
        cls, pretrained_model_name_or_path_or_dict: str | os.PathLike | dict[str, Tensor], **kwargs: Any
    ) -> dict[str, Tensor] | tuple[dict[str, Tensor], dict | None]:
        """The weights of a LoRA folder, file or Hub id; with `return_lora_metadata=True`, its metadata too. safetensors only.

        Raises:
            OSError: for a folder without weights; it names the folders around it that hold some.
        """
        wants_metadata = kwargs.pop("return_lora_metadata", False)
        names = ("subfolder", "cache_dir", "force_download", "proxies", "local_files_only", "token", "revision")
        given = {"use_safetensors": True, "weight_name": kwargs.pop("weight_name", None), "metadata": kwargs.pop("metadata", None)}
        given |= {name: kwargs.pop(name, None) for name in names}
        if kwargs.pop("use_safetensors", None) is False:
            raise ValueError("use_safetensors is False; adapters are read from safetensors alone: leave it out")
        if kwargs:
            raise TypeError(f"unknown arguments: {', '.join(kwargs)}")
        user_agent = {"file_type": "attn_procs_weights", "framework": "pytorch"}
        source = pretrained_model_name_or_path_or_dict
        source = source if isinstance(source, dict) else find(str(source), ())
        if isinstance(source, str) and given["weight_name"] is None:
            folder = Path(source, given["subfolder"] or "")
            if folder.is_dir():
                check_adapter_folder(folder)
        state, metadata = _fetch_state_dict(source, **given, user_agent=user_agent, allow_pickle=False)
        return (state, metadata) if wants_metadata else state

    @classmethod
    def save_lora_weights(
        cls,
        save_directory: str | os.PathLike,
        unet_lora_layers: dict[str, torch.nn.Module | Tensor] | None = None,
        unet_2_lora_layers: dict[str, torch.nn.Module | Tensor] | None = None,
        unet_3_lora_layers: dict[str, torch.nn.Module | Tensor] | None = None,
        *,
        unet_lora_adapter_metadata: dict | None = None,
        unet_2_lora_adapter_metadata: dict | None = None,
        unet_3_lora_adapter_metadata: dict | None = None,
        is_main_process: bool = True,
        weight_name: str | None = None,
        save_function: Callable[[dict[str, Tensor], str], object] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write adapters to one file; `models.lora.lora_layers` and `lora_metadata` give them.

        Args:
            save_directory: where the file is written.
            unet_lora_layers, unet_2_lora_layers, unet_3_lora_layers: of the stages that have an adapter.
            unet_lora_adapter_metadata, unet_2_lora_adapter_metadata, unet_3_lora_adapter_metadata: alpha, rank and places of each.
            is_main_process, weight_name: as in diffusers.
            save_function: writes the weights to the path of the file, in place of safetensors' own; as in diffusers it is not told the
                metadata.
            safe_serialization: True alone, since no pickles are written.

        Raises:
            ValueError: for no layers, layers without metadata, or a pickle.
        """
        if not safe_serialization:
            raise ValueError("safe_serialization is False; adapters are written as safetensors alone, as they are read: leave it out")
        layers = dict(zip(UNETS, (unet_lora_layers, unet_2_lora_layers, unet_3_lora_layers), strict=True))
        told = dict(zip(UNETS, (unet_lora_adapter_metadata, unet_2_lora_adapter_metadata, unet_3_lora_adapter_metadata), strict=True))
        layers = {stage: value for stage, value in layers.items() if value}
        if not layers:
            raise ValueError("give the LoRA layers of at least one stage")
        untold = [stage for stage in layers if not told[stage]]
        if untold:
            raise ValueError(f"give {untold[0]}_lora_adapter_metadata, or the adapter's alpha is lost")
        cls._save_lora_weights(
            save_directory,
            layers,
            as_stored({s: said for s in layers if (said := told[s])}),
            is_main_process=is_main_process,
            weight_name=weight_name,  # pyright: ignore
            save_function=save_function,  # pyright: ignore
        )


def moved_to_stage(state: dict[str, Tensor], metadata: dict | None, stage: int) -> tuple[dict[str, Tensor], dict | None]:
    """The weights of one stage, and their metadata, as those of another, counted from 1."""
    if stage not in range(1, len(UNETS) + 1):
        raise ValueError(f"stage is {stage}; a cascade has the stages 1 to {len(UNETS)}")
    found = sorted({key.split(".")[0] for key in state})
    if len(found) != 1 or found[0] not in UNETS:
        raise ValueError(
            f"stage is {stage}, and these LoRA weights are for {', '.join(found)}: stage names the place of one network's weights, "
            f"called {', '.join(UNETS)}; leave it out"
        )

    def renamed(named: dict) -> dict:
        return {key.replace(found[0], UNETS[stage - 1], 1): value for key, value in named.items()}

    return renamed(state), renamed(metadata) if metadata else metadata
