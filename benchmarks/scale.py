"""What training asks for, counted and not run: the paper's stages on 8 GPUs, and those of `imagen-medium` on one of 24 GB.

    python -m benchmarks.scale

Networks are built without memory (meta device); work is counted operation by operation, activations as what autograd keeps.
"""

from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from imagen_diffusers import ImagenEfficientUNet2DConditionModel, ImagenUNet2DConditionModel
from imagen_diffusers.models import configurations
from imagen_diffusers.models.conditioned_unet import ConditionedUNet

GPUS, TOKENS = 8, 128
EXAMPLES = 2_500_000 * 2048  # section 4.1: steps x batch, of every stage
# Configuration, and the side that a stage is trained at: the last one on windows, section 2.5.
PAPER: dict[str, tuple[dict[str, Any], int]] = {
    "base": (configurations.PAPER_BASE, 64),
    "SR256": (configurations.PAPER_SR256, 256),
    "SR1024": (configurations.PAPER_SR1024, 256),
}
MEDIUM: dict[str, tuple[dict[str, Any], int]] = {
    "base": (configurations.MEDIUM_BASE, 64),
    "SR256": (configurations.MEDIUM_SR256, 256),
    "SR1024": (configurations.MEDIUM_SR1024, 256),
}
SHARE = 0.4  # of a GPU's dense bfloat16 peak: an assumption, about the best published for such networks
H100, RTX_4090 = 989e12, 165e12

# What one GPU of 24 GB has for training after CUDA, kernels and fragments took theirs, an assumption; and what a run is counted for.
ROOM, MILLION = 21e9, 1_000_000

# Bytes a parameter on one of N GPUs: float32 weights, gradients, two AdamW moments, average, and bfloat16 copies for autocast.
WAYS = {
    "one GPU": lambda n: 4 + 4 + 8 + 4 + 2,
    "DDP": lambda n: 4 + 4 + 8 + 4 + 2 + 4,  # and the buckets gradients travel in
    "ZeRO-2": lambda n: 4 + (4 + 8) / n + 4 + 2,
    "FSDP2": lambda n: (4 + 4 + 8 + 4 + 2) / n,
    "LoRA": lambda n: 4 + 2,  # the adapter itself is below 1 %
}


def build(config: dict[str, Any]) -> ConditionedUNet:
    with torch.device("meta"):
        if "attention_kind" in config:
            return ImagenEfficientUNet2DConditionModel(**config, low_res_channels=3)
        return ImagenUNet2DConditionModel(**config)


def run(unet: ConditionedUNet, side: int) -> Tensor:
    """One example through the network."""
    with torch.device("meta"):
        image, text = torch.empty(1, 3, side, side), torch.empty(1, TOKENS, unet.config["encoder_hid_dim"])
        condition = {"low_res": image, "noise_level": torch.ones(1)} if unet.has_low_res else {}
        return unet(image, torch.ones(1), text, **condition).sample


def forward_flop(unet: ConditionedUNet, side: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(unet, side)
    return counter.get_total_flops()


class Fused(torch.autograd.Function):
    """Attention as GPUs run it, of shapes alone: it keeps what it was given and its output, and no matrix of weights.

    Without memory torch would take the way that keeps the matrix.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out)
        return out


def kept_bytes(unet: ConditionedUNet, side: int) -> int:
    """What autograd keeps of one example between forward and backward, in bfloat16."""
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        if not isinstance(value, torch.nn.Parameter):
            kept[value.untyped_storage()._cdata] = value  # kept alive, so that no address is counted for two
        return value

    fused = patch.object(torch.nn.functional, "scaled_dot_product_attention", lambda query, key, value, **_: Fused.apply(query, key, value))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value), fused:
        run(unet, side)
    weights = {p.untyped_storage()._cdata for p in unet.parameters()}
    return sum(2 * value.numel() for address, value in kept.items() if address not in weights)


def days(flop: int, examples: float, peak: float) -> float:
    """Of training on one GPU: a backward pass is the work of two forward passes."""
    return 3 * flop * examples / (SHARE * peak) / 86400


def paper() -> None:
    print(f"| stage | parameters | work of one forward | activations, each example | {' | '.join(f'{w}, GB' for w in WAYS)} | H100-days |")
    print("|---|---:|---:|---:|" + "---:|" * (len(WAYS) + 1))
    for stage, (config, side) in PAPER.items():
        unet = build(config)
        size, flop, kept = unet.num_parameters(), forward_flop(unet, side), kept_bytes(unet, side)
        memory = " | ".join(f"{size * bytes_of(GPUS) / 1e9:.1f}" for bytes_of in WAYS.values())
        counted = f"{size / 1e9:.3f} G | {flop / 1e12:.2f} TFLOP | {kept / 1e9:.2f} GB"
        print(f"| {stage} at {side}px | {counted} | {memory} | {days(flop, EXAMPLES, H100):.0f} |")


def medium() -> None:
    print(
        "| stage | parameters | work of one forward | weights and optimizer, GB | activations, each example, GB | batch | days a million |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for stage, (config, side) in MEDIUM.items():
        unet = build(config)
        size, flop, kept = unet.num_parameters(), forward_flop(unet, side), kept_bytes(unet, side)
        held = size * WAYS["one GPU"](1)
        counted = f"{size / 1e6:.0f} M | {flop / 1e12:.3f} TFLOP | {held / 1e9:.1f} | {kept / 1e9:.2f} | {int((ROOM - held) / kept)}"
        print(f"| {stage} at {side}px | {counted} | {days(flop, MILLION, RTX_4090):.3f} |")


if __name__ == "__main__":
    paper()
    print()
    medium()
