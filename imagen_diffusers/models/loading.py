"""Loaded networks compute the very bits that saved ones did."""

from typing import Any

from torch import Tensor, nn


class OwnMemoryMixin:
    """First base of a network: `from_pretrained` as in diffusers, with the weights in memory of their own.

    A loaded file leaves them at addresses where the processor's kernels add in another order, so that a saved network would not
    draw bit-equal pictures.
    """

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any):
        loaded = super().from_pretrained(*args, **kwargs)  # type: ignore[misc]
        for parameter in (loaded[0] if isinstance(loaded, tuple) else loaded).parameters():
            plain = type(parameter) is nn.Parameter and type(parameter.data) is Tensor  # and not quantized
            if plain and parameter.device.type == "cpu":
                parameter.data = parameter.data.clone()
        return loaded
