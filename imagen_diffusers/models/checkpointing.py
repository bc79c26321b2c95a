"""Gradient checkpointing, switched on by diffusers' `enable_gradient_checkpointing`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class CheckpointingMixin:
    """For a network that runs its blocks by `_run`."""

    _supports_gradient_checkpointing = True
    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Tensor]

    def _run(self, block: nn.Module, *args: Tensor | None) -> Tensor:
        """The block's output; where checkpointing is on, what is inside it is computed again for the gradient and not kept."""
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *args)
        return block(*args)
