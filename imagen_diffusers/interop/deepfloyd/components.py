"""DeepFloyd IF's checkpoints as stages of a cascade: what they expect beside their weights, and where the weights lie.

IF is the published Imagen (Hub: DeepFloyd/IF-I-XL-v1.0, DeepFloyd/IF-II-L-v1.0, ...). Its networks are diffusers' own and stay so;
`network.DeepFloydNetwork` says how they take their conditions.
"""

import os
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from transformers import AutoTokenizer, T5EncoderModel

from imagen_diffusers.models.loading import check_none_missing

BASE, SUPER_RESOLUTION = 3, 6  # channels that the networks take
KIND_BY_CHANNELS = {BASE: "a base (such as IF-I-XL-v1.0)", SUPER_RESOLUTION: "a super-resolution stage (such as IF-II-L-v1.0)"}
FIRST_READ = "unet/config.json"  # of a stage
HUB = frozenset({"revision", "cache_dir", "token", "local_files_only", "force_download"})

# What IFPipeline and IFSuperResolutionPipeline do and default to, without their safety checker and watermark.
SETTINGS = {
    "safety_checker": None,
    "feature_extractor": None,
    "watermarker": None,
    "null_text": "empty",
    "max_sequence_length": 77,
    "text_padding": "max_length",
    "clean_caption": True,
    "num_inference_steps": [100, 50, 20],
    "guidance_scale": [7.0, 4.0, 1.0],
    "noise_level": [0.0, 250.0, 200.0],
}


def is_deepfloyd(config: dict[str, Any]) -> bool:
    """Whether a `model_index.json` is that of an IF pipeline."""
    name = config.get("_class_name")
    return isinstance(name, str) and name.startswith("IF") and name.endswith("Pipeline")


def is_super_resolution(place: str) -> bool:
    """Whether the network in one of IF's folders or Hub ids enlarges images."""
    config: Any = UNet2DConditionModel.load_config(place, subfolder="unet")
    return config.get("in_channels") == SUPER_RESOLUTION


def in_their_slots(parts: dict[str, Any]) -> dict[str, Any]:
    """Components of one of diffusers' IF pipelines by a cascade's names: a super-resolution stage is the second, by itself, too."""
    unet = parts.get("unet")
    shared = {name: part for name, part in parts.items() if name != "image_noising_scheduler"}  # the network's adapter has it
    if unet is None or unet.config.get("in_channels") != SUPER_RESOLUTION:
        return shared
    second = {"unet_2": parts.get("unet_2") or unet, "scheduler_2": parts.get("scheduler_2") or parts["scheduler"]}
    return {**shared, "unet": None, "scheduler": None, **second}


def load_components(
    stage_1: str | Path | None,
    stage_2: str | Path | None,
    *,
    dtype: torch.dtype | None = None,
    torch_dtype: torch.dtype | None = None,
    variant: str | None = None,
    text_encoder: Any = "load",
    use_safetensors: bool = True,
    **kwargs: Any,
) -> dict[str, Any]:
    """The cascade's components by name, from IF's folders or Hub ids; safety checkers and watermarks are not downloaded.

    Args:
        stage_1: a base, for example "DeepFloyd/IF-I-XL-v1.0"; brings the text encoder. None for none: stage_2 brings it.
        stage_2: a super-resolution stage, for example "DeepFloyd/IF-II-L-v1.0"; None for none.
        dtype, variant: as in `from_pretrained`; `torch_dtype` is `dtype`, as IF's own pages spell it.
        text_encoder: one of your own, or None to load neither it nor the tokenizer.
        use_safetensors: False opens pickles, too, which can run any code.
        kwargs: `revision`, `cache_dir`, `token`, `local_files_only` or `force_download`, for every load.

    Raises:
        ValueError: for no stage, stages that are not IF's or in the wrong order, and a text encoder by its name, before anything large is
            loaded.
        OSError: for weights that lack some of their network's parameters.
        TypeError: for other arguments.
    """
    unknown = sorted(kwargs.keys() - HUB)
    if unknown:
        raise TypeError(f"from_deepfloyd takes no {', '.join(unknown)}; besides its own arguments it takes {', '.join(sorted(HUB))}")
    loads = isinstance(text_encoder, str)
    if loads and text_encoder != "load":
        raise ValueError(f'text_encoder is "{text_encoder}"; give an encoder that is loaded, None for none, or leave it out for IF\'s')
    weights = {**kwargs, "variant": variant, "dtype": dtype or torch_dtype or torch.float32, "use_safetensors": use_safetensors}
    given = {name: str(place) for name, place in (("stage_1", stage_1), ("stage_2", stage_2)) if place is not None}
    if not given:
        raise ValueError("stage_1 and stage_2 are None; give one of them, or both")
    for name, place in given.items():
        _check_kind(name, place, BASE if name == "stage_1" else SUPER_RESOLUTION, kwargs)
    first, components = next(iter(given.values())), {}
    if text_encoder is not None:
        components["tokenizer"] = AutoTokenizer.from_pretrained(first, subfolder="tokenizer", **kwargs)
        components["text_encoder"] = _complete(T5EncoderModel, first, "text_encoder", weights) if loads else text_encoder
    for name, place in given.items():
        suffix = "" if name == "stage_1" else "_2"
        there = os.path.abspath(place) if os.path.isdir(place) else place  # for cards
        components["unet" + suffix] = _complete(UNet2DConditionModel, there, "unet", weights)
        components["scheduler" + suffix] = DDPMScheduler.from_pretrained(there, subfolder="scheduler", **kwargs)
    return components


def _check_kind(name: str, place: str, channels: int, hub: dict[str, Any]) -> None:
    """A `ValueError` unless the network in a folder or Hub id is of the kind that `load_components` takes as `name`."""
    config: Any = UNet2DConditionModel.load_config(place, subfolder="unet", **hub)
    if config.get("_class_name") != UNet2DConditionModel.__name__:
        raise ValueError(f"{name} is {place}, whose unet is of {config.get('_class_name')}; DeepFloyd IF's are UNet2DConditionModel")
    found = config["in_channels"]
    if found != channels:
        instead = "; give it as stage_2, after a base or None" if (channels, found) == (BASE, SUPER_RESOLUTION) else ""
        raise ValueError(
            f"{name} is {KIND_BY_CHANNELS[channels]}; {place} is {KIND_BY_CHANNELS.get(found, f'a network of {found} channels')}{instead}"
        )


def _complete(kind: Any, place: str, subfolder: str, weights: dict[str, Any]) -> Any:
    """A network of another library that had all its parameters from its files: transformers makes up those that are missing."""
    network, info = kind.from_pretrained(place, subfolder=subfolder, output_loading_info=True, **weights)
    check_none_missing(sorted(info["missing_keys"]), f"{place}/{subfolder}")
    return network
