"""Operations of a call on numbers, counted: a multiplication and an addition are two."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop

# torch counts the attention that GPUs run and leaves out the one that processors do.
OF_PROCESSORS = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FORMULAS: dict[Any, Callable[..., int]] = {**flop_registry, OF_PROCESSORS: sdpa_flop}


def _of_processors(*args: Any, **kwargs: Any) -> int:
    return sdpa_flop(*args, **kwargs)


_of_processors._get_raw = True  # the formula takes tensors already: torch need not wrap it once more


@torch.no_grad()
def flop(call: Callable[[], Any]) -> int:
    """Those of one call, by convolutions, products and attention; all else is small beside them."""
    with FlopCounterMode(display=False, custom_mapping={OF_PROCESSORS: _of_processors}) as counter:
        call()
    return counter.get_total_flops()
