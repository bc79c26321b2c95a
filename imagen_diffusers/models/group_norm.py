"""Group norm that is quick in bfloat16 on processors, too, and trained there behind frozen layers."""

import torch
from torch import Tensor, nn

FEW_PIXELS = 1024  # below, torch's kernel for channels_last goes through each group by itself, a handful of channels at a time


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, which reorders images that torch's own kernel is slow on: bfloat16 in channels_last, on a processor.

    Its gradient is slow there, and so is the norm of small images. In these cases the other memory format is ahead even with the reordering
    there and back: `python -m benchmarks.group_norm`. Images that need no gradient where the weights do are reordered, too: torch's kernel
    of the weights' gradient alone ends the program in channels_last.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same, in the same memory format."""
        if not (_slow(input) or self._ends_the_program(input)):
            return super().forward(input)
        return super().forward(input.contiguous()).contiguous(memory_format=torch.channels_last)

    def _ends_the_program(self, x: Tensor) -> bool:
        return torch.is_grad_enabled() and self.weight.requires_grad and not x.requires_grad and _in_channels_last(x)


def _slow(x: Tensor) -> bool:
    backward = torch.is_grad_enabled() and x.requires_grad
    return x.dtype == torch.bfloat16 and _in_channels_last(x) and (backward or x.shape[2] * x.shape[3] < FEW_PIXELS)


def _in_channels_last(x: Tensor) -> bool:
    """On a processor, of what is not compiled, and not in the other format as well."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.ndim != 4 or x.is_contiguous():
        return False
    return x.is_contiguous(memory_format=torch.channels_last)
