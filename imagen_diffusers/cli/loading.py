"""A pipeline as the options of a command say."""

import math
from pathlib import Path
from typing import Any

from imagen_diffusers.hub.classes import class_named
from imagen_diffusers.hub.places import find_and_fetch, is_hub_id

from .options import DTYPES, OFFLOADS, SCHEDULERS, TEXT_TO_IMAGE, PipelineOptions

WORD = "learned_embeds.safetensors"  # as diffusers has it


def load(
    model: str,
    dtype: str,
    device: str,
    variant: str | None = None,
    revision: str | None = None,
    *,
    task: str = TEXT_TO_IMAGE,
    **components: Any,
):
    """The pipeline of this name, of the task's class, on the CPU, with those `components` that are given, None for none.

    Raises:
        ValueError: for a model that is not there.
        OSError: for files that are missing or damaged.
    """
    place, here = find_and_fetch(model, ["model_index.json"], ("pipelines",), revision=revision)
    if here.is_file():
        raise ValueError(f"{place} is a file; a pipeline is a folder with a model_index.json (imagen-diffusers convert makes one)")
    if revision is not None and Path(place).exists():
        raise ValueError(f"--revision is of a Hub repository; {model} is a folder here, so leave it out")
    from diffusers.utils import logging

    logging.disable_progress_bar()  # of loading; the line of a call is not diffusers' own
    given = {"variant": variant, "revision": revision, **components}
    return class_named(task).from_pretrained(place, dtype=_dtypes(dtype, device), **given)


def text_components(place: str, **how: Any) -> dict[str, Any]:
    """Tokenizer and text encoder of one folder or repository, as transformers saves them; `how` the encoder is loaded, as there.

    Raises:
        ValueError: for one that is not there.
    """
    from imagen_diffusers.text.encoders import load_text_encoder, load_tokenizer

    place, _ = find_and_fetch(place, ["config.json"])
    return {"tokenizer": load_tokenizer(place), "text_encoder": load_text_encoder(place, **how)}


def _dtypes(dtype: str, device: str) -> dict[str, Any]:
    """Of the networks ("default") and of the text encoder."""
    import torch

    if dtype != "auto":
        return {"default": getattr(torch, dtype)}
    from imagen_diffusers.models.fastest_dtype import fastest_dtype

    fastest = {"default": fastest_dtype(device)}
    # Encoding is quick beside sampling, and the same in float32 on every CPU.
    return fastest | {"text_encoder": torch.float32} if device == "cpu" else fastest


def prepare(options: PipelineOptions, task: str = TEXT_TO_IMAGE):
    """The pipeline of the task's class with its adapters and schedulers, ready to be called.

    Raises:
        ValueError: for values that do not fit.
        OSError: for files that are missing or damaged.
    """
    o = options
    check_names(o)
    preset = None if o.preset is None else find_and_fetch(o.preset, ["sampling_preset.json"], ("presets",))[1]
    adapters = [find_adapter(given) for given in o.lora or []]
    words = [_find_word(given) for given in o.textual_inversion or []]
    device = device_of(o)
    pipe = load(o.model, o.dtype, device, o.variant, o.revision, task=task)
    if preset is not None:
        pipe.use_preset(preset)
    _arrange(pipe, o.scheduler)
    for i, (source, _) in enumerate(adapters):
        pipe.load_lora_weights(source, adapter_name=f"lora_{i}")
    if adapters:
        pipe.set_adapters([f"lora_{i}" for i in range(len(adapters))], [weight for _, weight in adapters])
        pipe.fuse_lora()  # beside the weights an adapter takes half as long as they do, and none changes here any more
    for word in words:
        pipe.load_textual_inversion(word)
    if o.tile is not None:
        pipe.enable_tiling(o.tile)
    if o.offload == "none":
        return pipe.to(device)
    place_later = pipe.enable_model_cpu_offload if o.offload == "model" else pipe.enable_sequential_cpu_offload
    place_later(device=device)
    return pipe


def check_names(options: PipelineOptions) -> None:
    """See that what has a name is known by it, which takes no time.

    Raises:
        ValueError: for what is not.
    """
    o = options
    for option, name, known in (("dtype", o.dtype, DTYPES), ("scheduler", o.scheduler, SCHEDULERS), ("offload", o.offload, OFFLOADS)):
        if name is not None and name not in known:
            raise ValueError(f'--{option} "{name}" is unknown; use one of {", ".join(known)}')


def device_of(options: PipelineOptions) -> str:
    """Where a pipeline of these options computes.

    Raises:
        ValueError: for a device that is not there, and for one that nothing is offloaded from, besides what `check_names` refuses.
    """
    check_names(options)
    device = pick_device(options.device)
    if options.offload != "none" and device == "cpu":
        raise ValueError(f"--offload {options.offload} keeps networks off a GPU until they run; on a CPU leave it out")
    return device


def _arrange(pipe: Any, scheduler: str | None) -> None:
    """Each network in the memory layout that is fastest, with this scheduler, if any."""
    import torch

    for number in pipe.stage_numbers:
        slot, its_scheduler = pipe.slots(number)
        getattr(pipe, slot).to(memory_format=torch.channels_last)
        if scheduler is not None:
            swapped = class_named(SCHEDULERS[scheduler]).from_config(getattr(pipe, its_scheduler).config)
            setattr(pipe, its_scheduler, swapped)


def pick_device(name: str) -> str:
    """A device of this machine; for "auto" its accelerator, or the processor where there is none.

    Raises:
        ValueError: for one that is not there; the message says which are.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = ["cpu"]
    if accelerator is not None:
        there += [accelerator.type, *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]
    if name == "auto":
        return there[min(1, len(there) - 1)]
    if name not in there:
        raise ValueError(f'--device "{name}" is not on this machine; it has: {", ".join(there)}')
    return name


def find_adapter(given: str) -> tuple[str, float]:
    """ "my-style:0.7" to a folder or file that is there, and its weight.

    Raises:
        ValueError: for one that is not there, and for a weight that is none.
        OSError: for one that holds no whole weights.
    """
    from imagen_diffusers.models.weight_files import check_adapter_folder, check_whole

    source, strength = named_adapter(given)
    if not math.isfinite(strength):
        raise ValueError(f'--lora is "{given}"; its weight must be a finite number')
    _, place = find_and_fetch(source, ["*.safetensors"])
    if place.is_dir():
        check_adapter_folder(place)
    for path in place.glob("*.safetensors") if place.is_dir() else [place]:
        check_whole(path)
    return str(place), strength


def _find_word(given: str) -> str:
    """The file of a learned word, which is there.

    Raises:
        ValueError: for one that is not there.
        OSError: for one that is not whole.
    """
    from imagen_diffusers.models.weight_files import check_whole

    _, place = find_and_fetch(given, [WORD])
    path = place / WORD if place.is_dir() else place
    if not path.is_file():
        raise ValueError(f'--textual-inversion is "{given}", which holds no {WORD}; examples/textual_inversion.py makes one')
    if path.suffix != ".safetensors":
        raise ValueError(f'--textual-inversion is "{given}", and a learned word is a .safetensors file; a pickle can run any code')
    check_whole(path)
    return str(path)


def named_adapter(given: str) -> tuple[str, float]:
    """ "my-style:0.7" to ("my-style", 0.7); without a number the weight is 1.

    Raises:
        ValueError: for what is no number, of an adapter that may be there.
    """
    source, _, weight = given.rpartition(":")
    if not source or Path(given).exists():
        return given, 1.0
    try:
        return source, float(weight)
    except ValueError:
        if Path(source).exists() or is_hub_id(source):
            raise ValueError(f'--lora is "{given}"; its weight must be a finite number, as in {source}:0.7') from None
        return given, 1.0  # a colon of a path
