"""Droplets: places of a network's features that outshine all others, and a penalty on them.

A group norm divides by the deviation of a whole image. A network that makes one place of it strong enough sets how strong all others come
out, and leaves a mark there (Karras et al., 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 2). One that is trained
on windows knows such a place by its padding, in a corner. In an image larger than the windows that place counts less, so that all others
come out stronger than in training.
"""

import torch
from torch import Tensor, nn

OUTSHINES = 20.0  # times the mean energy of all places; an edge on a plain surface may have as much


class Droplets:
    """What a network gives its group norms in training, and how far single places of it outshine the others.

    Args:
        network: looked at from now on, until `close`.
        compiled: whether it is going to be compiled.

    Raises:
        ValueError: for a network without group norms, and for one that is going to be compiled.
    """

    def __init__(self, network: nn.Module, *, compiled: bool = False):
        norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
        if not norms:
            raise ValueError(f"droplet_weight is for networks with group norms, and {type(network).__name__} has none; leave it at 0")
        if compiled:
            raise ValueError(
                "droplet_weight and torch_compile were both given; what a compiled network computes is not looked at: leave one out"
            )
        self._hooks = [norm.register_forward_pre_hook(self._look) for norm in norms]
        self._found: list[Tensor] = []

    def _look(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if norm.training and torch.is_grad_enabled():
            energy = inputs[0].float().square().mean(1).flatten(1)
            self._found.append(energy.amax(1) / (OUTSHINES * energy.mean(1) + 1e-12))

    def forget(self) -> None:
        """What was looked at before, in another pass or, with gradient checkpointing, once more in the last one's backward pass."""
        self._found.clear()

    def penalty(self) -> Tensor:
        """Of each example (B,): the logarithm of how many times `OUTSHINES` its strongest place has, 0 below, summed over the norms."""
        return torch.stack(self._found).clamp(min=1).log().sum(0)

    def close(self) -> None:
        """Look at the network no more."""
        for hook in self._hooks:
            hook.remove()
