"""Whether an adapter fits: in the place of another, seen before a weight is changed, and in a network, in words for peft's."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from diffusers.utils.peft_utils import _create_lora_config
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from peft.utils.hotswap import check_hotswap_configs_compatible
from torch import Tensor, nn

from imagen_diffusers.models.adapters import merged_adapters
from imagen_diffusers.models.lora import lora_layers

LOADER = logging.getLogger("diffusers.loaders.peft")
SWAPPED = (".lora_A.weight", ".lora_B.weight", ".lora_B.bias")  # what peft swaps


def check_swap(
    unets: Mapping[str, nn.Module],
    loaded: Mapping[str, list[str]],
    name: str | None,
    state: dict[str, Tensor],
    metadata: dict[str, Any] | None,
    alphas: dict[str, float],
) -> None:
    """See that an adapter can take the place of the one called `name`, in all of its stages.

    Args:
        unets: the networks that it is for, by slot.
        loaded: the adapters that are there, by slot.
        name: of the one that goes.
        state: the weights of the one that comes, by slot and layer.
        metadata, alphas: of the one that comes, as in `load_lora_adapter`.

    Raises:
        ValueError: for a name that no adapter has, for another one's stages, layers, shapes or settings, and for one that is fused.
    """
    there = sorted(slot for slot, names in loaded.items() if name in names)
    if name is None or not there:
        raise ValueError(
            f"hotswap puts weights in the place of a loaded adapter, and adapter_name is {name!r}; give the name of one of these: "
            f"{dict(loaded) or 'none is loaded'}"
        )
    if there != sorted(unets):
        raise ValueError(
            f'these LoRA weights are for {", ".join(sorted(unets))}, and the adapter "{name}" is in {", ".join(there)}: of what is swapped '
            "by halves two adapters would act together; load them under another adapter_name, without hotswap"
        )
    for slot, unet in unets.items():
        if name in merged_adapters(unet):
            raise ValueError(f"{name} is fused into the weights; call unfuse_lora() first, which takes it out of them")
        weights, told, scales = (_of(slot, given) for given in (state, metadata or {}, alphas))
        if not any("lora_A" in key for key in weights):
            weights = convert_unet_state_dict_to_peft(weights)
        _check_shapes(slot, lora_layers(unet, name), weights)
        ranks = {f"^{key}": value.shape[1] for key, value in weights.items() if key.endswith(".lora_B.weight")}
        config = _create_lora_config(weights, scales, told or None, ranks, model_state_dict=unet.state_dict(), adapter_name=name)
        try:
            check_hotswap_configs_compatible(unet.peft_config[name], config)  # pyright: ignore
        except ValueError as error:
            raise ValueError(
                f'these LoRA weights of {slot} cannot take the place of "{name}" ({error}); load them under another adapter_name, without '
                "hotswap"
            ) from error


@contextmanager
def said_of_another_network(slot: str) -> Iterator[None]:
    """Two errors of peft's, for layers that are not there and for shapes, say what they mean for the network of a stage, and nothing else.

    peft warns of such weights before, and diffusers logs the error, which has a line for each layer.
    """
    LOADER.addFilter(_is_no_error)
    try:
        with warnings.catch_warnings(record=True) as told:
            yield
    except (ValueError, RuntimeError) as error:
        sizes = [line.strip(" \t.") for line in str(error).splitlines() if "size mismatch" in line]  # one of each layer: hundreds
        if not sizes and "Target modules" not in str(error):
            raise
        raise ValueError(
            f"these LoRA weights of {slot} were made for another network than this pipeline's "
            f"({sizes[0] if sizes else 'which lacks their layers'}); load the cascade that they were trained on, which the README.md "
            "beside them names; on the command line it is --model"
        ) from error
    else:
        for one in told:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    finally:
        LOADER.removeFilter(_is_no_error)


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


def _of(slot: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of one stage, by layer."""
    return {key.removeprefix(f"{slot}."): value for key, value in given.items() if key.startswith(f"{slot}.")}


def _check_shapes(slot: str, held: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Weights are of layers that the adapter there has, and of their shapes but for the rank."""
    for key, value in given.items():
        shape = tuple(held[key].shape) if key in held and key.endswith(SWAPPED) else None
        if shape is None or _but_rank(key, value.shape) != _but_rank(key, shape):
            due = "no weights of that name to be swapped" if shape is None else f"{shape} there, whose rank alone may differ"
            raise ValueError(
                f"{slot}.{key} of these LoRA weights is {tuple(value.shape)}, and the loaded adapter has {due}; load them under another "
                "adapter_name, without hotswap"
            )


def _but_rank(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The rank is the first side of A, and the second of B."""
    axis = 0 if key.endswith(".lora_A.weight") else 1
    return (*shape[:axis], *shape[axis + 1 :])
