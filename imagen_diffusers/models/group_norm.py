"""Group norm that is quick in bfloat16 on processors, too."""

import torch
from torch import Tensor, nn

FEW_PIXELS = 1024  # below, torch's kernel for channels_last goes through each group by itself, a handful of channels at a time


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, which reorders images that torch's own kernel is slow on: bfloat16 in channels_last, on a processor.

    Its gradient is slow there, and so is the norm of small images. In these cases, and in these alone, the other memory format is ahead
    even with the reordering there and back: `python -m benchmarks.group_norm`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same, in the same memory format."""
        if not _slow(input):
            return super().forward(input)
        return super().forward(input.contiguous()).contiguous(memory_format=torch.channels_last)


def _slow(x: Tensor) -> bool:
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype != torch.bfloat16 or x.ndim != 4 or x.is_contiguous():
        return False
    backward = torch.is_grad_enabled() and x.requires_grad
    return x.is_contiguous(memory_format=torch.channels_last) and (backward or x.shape[2] * x.shape[3] < FEW_PIXELS)
