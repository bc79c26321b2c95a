"""What the paper's stages need to be trained: memory on each GPU by way of training, and GPU-days; counted, not run.

    python -m benchmarks.scale

Networks are built without memory (meta device); work is counted operation by operation, activations as what autograd keeps.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from imagen_diffusers import ImagenEfficientUNet2DConditionModel, ImagenUNet2DConditionModel
from imagen_diffusers.models import configurations
from imagen_diffusers.models.conditioned_unet import ConditionedUNet

GPUS, TOKENS = 8, 128
EXAMPLES = 2_500_000 * 2048  # section 4.1: steps x batch, of every stage
TRAINED_AT = {"base": 64, "SR256": 256, "SR1024": 256}  # the last on windows, section 2.5
SUSTAINED = 0.4 * 989e12  # of an H100's dense bfloat16 peak: an assumption, about the best published for such networks

# Bytes a parameter on one of N GPUs: float32 weights, gradients, two AdamW moments, average, and bfloat16 copies for autocast.
WAYS = {
    "one GPU": lambda n: 4 + 4 + 8 + 4 + 2,
    "DDP": lambda n: 4 + 4 + 8 + 4 + 2 + 4,  # and the buckets gradients travel in
    "ZeRO-2": lambda n: 4 + (4 + 8) / n + 4 + 2,
    "FSDP2": lambda n: (4 + 4 + 8 + 4 + 2) / n,
    "LoRA": lambda n: 4 + 2,  # the adapter itself is below 1 %
}


def build(stage: str) -> ConditionedUNet:
    with torch.device("meta"):
        if stage == "base":
            return ImagenUNet2DConditionModel(**configurations.PAPER_BASE)
        config = configurations.PAPER_SR256 if stage == "SR256" else configurations.PAPER_SR1024
        return ImagenEfficientUNet2DConditionModel(**config, low_res_channels=3)


def run(unet: ConditionedUNet, side: int) -> Tensor:
    """One example through the network."""
    with torch.device("meta"):
        image, text = torch.empty(1, 3, side, side), torch.empty(1, TOKENS, 4096)
        condition = {"low_res": image, "noise_level": torch.ones(1)} if unet.has_low_res else {}
        return unet(image, torch.ones(1), text, **condition).sample


def forward_flop(unet: ConditionedUNet, side: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(unet, side)
    return counter.get_total_flops()


def kept_bytes(unet: ConditionedUNet, side: int) -> int:
    """What autograd keeps of one example between forward and backward, in bfloat16."""
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        if not isinstance(value, torch.nn.Parameter):
            kept[value.untyped_storage()._cdata] = value  # kept alive, so that no address is counted for two
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        run(unet, side)
    weights = {p.untyped_storage()._cdata for p in unet.parameters()}
    return sum(2 * value.numel() for address, value in kept.items() if address not in weights)


def main() -> None:
    print(f"| stage | parameters | work of one forward | activations, each example | {' | '.join(f'{w}, GB' for w in WAYS)} | H100-days |")
    print("|---|---:|---:|---:|" + "---:|" * (len(WAYS) + 1))
    for stage, side in TRAINED_AT.items():
        unet = build(stage)
        size, flop, kept = unet.num_parameters(), forward_flop(unet, side), kept_bytes(unet, side)
        memory = " | ".join(f"{size * bytes_of(GPUS) / 1e9:.1f}" for bytes_of in WAYS.values())
        days = 3 * flop * EXAMPLES / SUSTAINED / 86400
        print(f"| {stage} at {side}px | {size / 1e9:.3f} G | {flop / 1e12:.2f} TFLOP | {kept / 1e9:.2f} GB | {memory} | {days:.0f} |")


if __name__ == "__main__":
    main()
