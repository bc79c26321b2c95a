"""The configuration of an imagen-pytorch U-Net, read off its weights' names and shapes."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .blocks import GROUPS

# What names and shapes do not tell, with that package's defaults; a saved or given configuration may say otherwise.
UNTOLD = {"use_linear_cross_attn": False, "scale_skip_connection": True, "self_cond": False, "resize_mode": "nearest"}
HEADS, HEAD_DIM = 8, 64  # where nothing attends that would tell


def infer(state: dict[str, Tensor]) -> dict[str, Any]:
    """Arguments of `LucidrainsUNet2DConditionModel` that build a network with these weights, but for those in `UNTOLD`.

    Raises:
        ValueError: for weights that are of no such network, or of a release before 1.22.
    """
    if "to_time_hiddens.0.weights" not in state:
        raise ValueError("these are not the weights of an imagen-pytorch U-Net; its to_time_hiddens.0.weights is missing")
    if not any(name.endswith("q_scale") for name in state):
        raise ValueError("these weights are of a release of imagen-pytorch before 1.22, whose attention was another; it is not read")
    low_res = "to_lowres_time_hiddens.0.weights" in state
    time_dim, fourier = state["to_time_hiddens.1.weight"].shape
    cond_dim = len(state["norm_cond.weight"])
    dim = time_dim // (8 if low_res else 4)
    channels = len(state["final_conv.weight"])
    head_dim, heads = _heads(state)
    config: dict[str, Any] = {
        "dim": dim,
        "cond_dim": cond_dim,
        "channels": channels,
        "lowres_cond": low_res,
        "learned_sinu_pos_emb_dim": fourier - 1,
        "num_time_tokens": len(state["to_time_tokens.0.weight"]) // cond_dim,
        "cond_on_text": "text_to_cond.weight" in state,
        "max_text_len": state["null_text_embed"].shape[1],
        "attn_pool_text": "attn_pool.latents" in state,
        "attn_dim_head": head_dim,
        "attn_heads": heads,
        "memory_efficient": "init_resnet_block.block1.project.weight" in state,
        "final_resnet_block": "final_res_block.block1.project.weight" in state,
        "final_conv_kernel_size": state["final_conv.weight"].shape[-1],
        "combine_upsample_fmaps": "upsample_combiner.fmap_convs.0.project.weight" in state,
        "use_global_context_attn": any(name.startswith("downs.") and ".gca." in name for name in state),
        "attend_at_middle": "mid_attn.layers.0.0.null_kv" in state,
        "layer_mid_attns_depth": max(_count(state, "mid_attn.layers.{}.0.null_kv"), 1),
        "pixel_shuffle_upsample": any(name.startswith("ups.") and ".3.net." in name for name in state),
        "resnet_groups": GROUPS if "mid_block1.block1.groupnorm.weight" in state else None,
    }
    if config["cond_on_text"]:
        config["text_embed_dim"] = state["text_to_cond.weight"].shape[1]
    if config["attn_pool_text"]:
        config["attn_pool_num_latents"] = len(state["attn_pool.latents"])
    config |= _levels(state, dim, config["memory_efficient"])
    first = _first_convolution(state)
    extra = first.pop("in_channels") - channels * (1 + low_res)
    config |= {**first, "cond_images_channels": extra}
    config["init_conv_to_final_conv_residual"] = _has_long_residual(state, config)
    return config


def _count(state: dict[str, Tensor], pattern: str) -> int:
    number = 0
    while pattern.format(number) in state:
        number += 1
    return number


def _first_convolution(state: dict[str, Tensor]) -> dict[str, Any]:
    kernels = [state[f"init_conv.convs.{i}.weight"] for i in range(_count(state, "init_conv.convs.{}.weight"))]
    if kernels:
        sizes = tuple(k.shape[-1] for k in kernels)
        told: dict[str, Any] = {"init_cross_embed": True, "init_cross_embed_kernel_sizes": sizes}
    else:
        kernels = [state["init_conv.weight"]]
        told = {"init_cross_embed": False, "init_conv_kernel_size": kernels[0].shape[-1]}
    return {**told, "in_channels": kernels[0].shape[1], "init_dim": sum(len(k) for k in kernels)}


def _levels(state: dict[str, Tensor], dim: int, efficient: bool) -> dict[str, Any]:
    """One value per level, finest first."""
    levels = range(_count(state, "downs.{}.1.block1.project.weight"))

    def each(value: Callable[[int], Any]) -> tuple[Any, ...]:
        return tuple(value(i) for i in levels)

    def width(i: int) -> int:
        """Of the level below: what its resampling gives."""
        names = (f"downs.{i}.0.1.weight",) if efficient else (f"downs.{i}.4.1.weight", f"downs.{i}.4.fns.0.weight")
        return next(len(state[name]) for name in names if name in state)

    def has(pattern: str) -> Callable[[int], bool]:
        return lambda i: pattern.format(i) in state

    depth = each(lambda i: max(_count(state, f"downs.{i}.3.layers.{{}}.1.1.weight"), 1))
    ratios = [_ratio(state, i) for i in levels]
    return {
        "dim_mults": each(lambda i: width(i) // dim),
        "num_resnet_blocks": each(lambda i: _count(state, f"downs.{i}.2.{{}}.block1.project.weight")),
        "layer_attns": each(has("downs.{}.3.layers.0.0.to_q.weight")),
        "use_linear_attn": each(has("downs.{}.3.layers.0.0.to_q.1.weight")),
        "layer_cross_attns": each(has("downs.{}.1.cross_attn.to_q.weight")),
        "layer_attns_depth": depth,
        "ff_mult": next((r for r in ratios if r is not None), 2.0),
    }


def _ratio(state: dict[str, Tensor], level: int) -> float | None:
    weight = state.get(f"downs.{level}.3.layers.0.1.1.weight")
    return None if weight is None else weight.shape[0] / weight.shape[1]


def _heads(state: dict[str, Tensor]) -> tuple[int, int]:
    """Channels a head, and heads; those of the middle's cross-attention are always 64 and 8, and tell nothing."""
    for name, value in state.items():
        if name.endswith("q_scale") and not name.startswith("mid_block"):
            queries = state[name.removesuffix("q_scale") + "to_q.weight"]
            return len(value), len(queries) // len(value)
    return HEAD_DIM, HEADS


def _has_long_residual(state: dict[str, Tensor], config: dict[str, Any]) -> bool:
    if config["final_resnet_block"]:
        have = state["final_res_block.block1.project.weight"].shape[1]
    else:
        have = state["final_conv.weight"].shape[1] - (config["channels"] if config["lowres_cond"] else 0)
    combined = len(config["dim_mults"]) if config["combine_upsample_fmaps"] else 0
    return have == config["dim"] * (2 + combined)
