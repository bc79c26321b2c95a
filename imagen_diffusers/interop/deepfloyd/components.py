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


def load_components(
    stage_1: str | Path,
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
        stage_1: a base, for example "DeepFloyd/IF-I-XL-v1.0"; brings the text encoder.
        stage_2: a super-resolution stage, for example "DeepFloyd/IF-II-L-v1.0"; None for none.
        dtype, variant: as in `from_pretrained`; `torch_dtype` is `dtype`, as IF's own pages spell it.
        text_encoder: one of your own, or None to load neither it nor the tokenizer.
        use_safetensors: False opens pickles, too, which can run any code.
        kwargs: `revision`, `cache_dir`, `token`, `local_files_only` or `force_download`, for every load.

    Raises:
        ValueError: for stages that are not IF's or in the wrong order, and a text encoder by its name, before anything large is loaded.
        OSError: for weights that lack some of their network's parameters.
        TypeError: for other arguments.
    """
    unknown = sorted(kwargs.keys() - HUB)
    if unknown:
        raise TypeError(f"from_deepfloyd takes no {', '.join(unknown)}; besides its own arguments it takes {', '.join(sorted(HUB))}")
    loads = isinstance(text_encoder, str)
    if loads and text_encoder != "load":
        raise ValueError(f'text_encoder is "{text_encoder}"; give an encoder that is loaded, None for none, or leave it out for stage_1\'s')
    weights = {**kwargs, "variant": variant, "dtype": dtype or torch_dtype or torch.float32, "use_safetensors": use_safetensors}
    given = {"": str(stage_1), **({} if stage_2 is None else {"_2": str(stage_2)})}
    places = {suffix: os.path.abspath(place) if os.path.isdir(place) else place for suffix, place in given.items()}  # for cards
    for name, place, channels in zip(("stage_1", "stage_2"), given.values(), (3, 6), strict=False):
        config: Any = UNet2DConditionModel.load_config(place, subfolder="unet", **kwargs)
        if config.get("_class_name") != UNet2DConditionModel.__name__:
            raise ValueError(f"{name} is {place}, whose unet is of {config.get('_class_name')}; DeepFloyd IF's are UNet2DConditionModel")
        found = config["in_channels"]
        if found != channels:
            kinds = {3: "a base (such as IF-I-XL-v1.0)", 6: "a super-resolution stage (such as IF-II-L-v1.0)"}
            raise ValueError(f"{name} is {kinds[channels]}; {place} is {kinds.get(found, f'a network of {found} channels')}")
    first, components = str(stage_1), {}
    if text_encoder is not None:
        components["tokenizer"] = AutoTokenizer.from_pretrained(first, subfolder="tokenizer", **kwargs)
        components["text_encoder"] = _complete(T5EncoderModel, first, "text_encoder", weights) if loads else text_encoder
    for suffix, place in places.items():
        components["unet" + suffix] = _complete(UNet2DConditionModel, place, "unet", weights)
        components["scheduler" + suffix] = DDPMScheduler.from_pretrained(place, subfolder="scheduler", **kwargs)
    return components


def _complete(kind: Any, place: str, subfolder: str, weights: dict[str, Any]) -> Any:
    """A network of another library that had all its parameters from its files: transformers makes up those that are missing."""
    network, info = kind.from_pretrained(place, subfolder=subfolder, output_loading_info=True, **weights)
    check_none_missing(sorted(info["missing_keys"]), f"{place}/{subfolder}")
    return network
