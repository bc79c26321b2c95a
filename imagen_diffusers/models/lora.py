"""LoRA adapters of a network: where they go, and what a file must hold to bring one back whole."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from .adapters import check_not_in_weights, has_lora
from .attention import has_fused_projections
from .initialization import initialized_from
from .learned_guidance import GUIDANCE, learned_guidance

# What diffusers' own scripts adapt in its U-Net (train_dreambooth_lora.py): what other programs expect of an adapter of DeepFloyd IF.
ATTENTION = ("to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_v_proj")
_OF_ADAPTER = re.compile(r"\.lora_\w+\.([^.]+)")  # in the name of a weight


def lora_targets(unet: nn.Module) -> list[str]:
    """The layers that an adapter goes on.

    Of diffusers' own U-Net the projections of its attention; of other networks every convolution and projection, but for those of their
    `WITHOUT_LORA`: where images, times and text come in and the image goes out they stay as they are.
    """
    modules = dict(unet.named_modules())
    adapted = tuple(f"{name}." for name, m in modules.items() if isinstance(m, BaseTunerLayer))  # whose parts are none of the network's own
    kinds = nn.Conv2d | nn.Linear | BaseTunerLayer
    layers = [name for name, m in modules.items() if isinstance(m, kinds) and not name.startswith(adapted)]
    if isinstance(unet, UNet2DConditionModel):
        blocks = ("down_blocks", "mid_block", "up_blocks")
        return [name for name in layers if name.startswith(blocks) and name.endswith(tuple(f".{kind}" for kind in ATTENTION))]
    return [name for name in layers if name.split(".")[0] not in getattr(unet, "WITHOUT_LORA", ())]


def add_lora(unet: Any, *, rank: int, alpha: float | None = None, dropout: float = 0.0, name: str = "default", seed: int = 0) -> None:
    """Freeze `unet` and give it a fresh adapter, which changes nothing yet, and acts in place of adapters that are there.

    Args:
        rank: of each update.
        alpha: the update counts alpha / rank; the rank by default.
        dropout: of the adapter's inputs.
        name: of the adapter.
        seed: of its first weights.

    Raises:
        ValueError: for a rank below 1, an alpha that is not above 0, the name of an adapter that is there or in the weights, and fused
            projections.
    """
    if has_fused_projections(unet):
        raise ValueError("an adapter would not act on this network's fused projections; call unfuse_qkv_projections() first")
    if rank < 1:
        raise ValueError(f"rank is {rank}; it must be at least 1")
    if alpha is not None and not alpha > 0:
        raise ValueError(f"alpha is {alpha}; it must be above 0, or left out for the rank: the update counts alpha / rank")
    if name in getattr(unet, "peft_config", {}):
        raise ValueError(f'the network has an adapter "{name}" already; give another name, or take that one off by delete_adapters')
    check_not_in_weights(unet, name)
    targets = lora_targets(unet)
    unet.requires_grad_(False)
    learned_guidance(unet).pop(name, None)  # of an earlier adapter of this name
    with initialized_from(seed):
        config = LoraConfig(r=rank, lora_alpha=rank if alpha is None else alpha, lora_dropout=dropout, target_modules=targets)  # pyright: ignore
        unet.add_adapter(config, name)


def trained_adapter(unet: nn.Module) -> str | None:
    """The adapter whose weights require a gradient; None where none does.

    Raises:
        ValueError: for several, and for weights of the network itself beside it: an adapter's file holds its own alone.
    """
    if not has_lora(unet):
        return None
    owners = {name: _OF_ADAPTER.search(name) for name, weight in unet.named_parameters() if weight.requires_grad}
    adapters = sorted({owner[1] for owner in owners.values() if owner is not None})
    if len(adapters) > 1:
        raise ValueError(f"the adapters {', '.join(adapters)} are trained at once, and the result is one: freeze the others")
    own = [name for name, owner in owners.items() if owner is None]
    if own:
        beside = f'the adapter "{adapters[0]}"' if adapters else "an adapter that is not trained"
        raise ValueError(
            f"{own[0]} is trained beside {beside}, whose file holds no weights of the network: freeze the network, or train it without "
            "adapters (fuse_lora and unload_lora leave what they taught)"
        )
    return adapters[0] if adapters else None


def lora_layers(unet: nn.Module, name: str = "default", state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """An adapter's weights by the names diffusers' files give them; of `state` where the network's own are in shards."""
    return {k: v.detach().cpu().contiguous() for k, v in get_peft_model_state_dict(unet, state, adapter_name=name).items()}


def lora_metadata(unet: nn.Module, name: str = "default") -> dict[str, Any]:
    """What weights alone do not tell: alpha, rank, where the adapter goes, and what guidance it has learned, if any.

    Without it alpha would be taken for the rank.
    """
    told = unet.peft_config[name].to_dict()  # pyright: ignore
    learned = learned_guidance(unet).get(name, 1.0)
    return {k: sorted(v) if isinstance(v, set) else v for k, v in told.items()} | ({} if learned == 1 else {GUIDANCE: learned})


def chosen_adapters(unet: nn.Module) -> list[str]:
    """The adapters that are chosen in a network."""
    return list(dict.fromkeys(name for module in unet.modules() if isinstance(module, BaseTunerLayer) for name in module.active_adapters))


@contextmanager
def all_or_none(unets: list[Any], name: str) -> Iterator[None]:
    """Networks that an adapter of this name is loaded into: on an error all of them are as before."""
    before = [(unet, list(getattr(unet, "peft_config", {})), chosen_adapters(unet)) for unet in unets]
    try:
        yield
    except Exception:
        for unet, names, active in before:
            if not names:
                unet.unload_lora()
            elif name not in names:
                unet.delete_adapters(name)
                for module in unet.modules():
                    if isinstance(module, BaseTunerLayer):
                        module.set_adapter(active)
        raise
