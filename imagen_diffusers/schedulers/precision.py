"""The precision of sampling: float32 at least, whatever the networks compute in, and float64 throughout in a float64 pipeline."""

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32, or in float64 if they are float64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def standard_normal(
    shape: tuple[int, ...] | torch.Size,
    generator: torch.Generator | list[torch.Generator] | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Standard normal noise, generated in float32 and then cast, so that a seed means the same noise in every precision.

    Args:
        shape: (B, C, H, W).
        generator: one, or one for each of the B images; None for torch's global one.
        device, dtype: of the result.
    """
    return randn_tensor(tuple(shape), generator=generator, device=device, dtype=torch.float32).to(dtype)
