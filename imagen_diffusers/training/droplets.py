"""Droplets: places of a network's features that outshine all others, and a penalty on them.

A group norm divides by the deviation of a whole image. A network that makes one place of it strong enough sets how strong all others come
out, and leaves a mark there (Karras et al., 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 2). One that is trained
on windows knows such a place by its padding, in a corner. In an image larger than the windows that place counts less, so that all others
come out stronger than in training.
"""

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

OUTSHINES = 20.0  # times the mean energy of all places; an edge on a plain surface may have as much


class Droplets:
    """What a network gives its group norms in training, and how far single places of it outshine the others.

    Within the `with` block each pass is looked at from `begin` to `penalty`.

    Args:
        network: that is trained.
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
        self._norms, self._hooks = norms, list[RemovableHandle]()
        self._found: list[Tensor] | None = None

    def __enter__(self) -> "Droplets":
        self._hooks = [norm.register_forward_pre_hook(self._look) for norm in self._norms]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _look(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if norm.training and torch.is_grad_enabled():
            energy = inputs[0].float().square().mean(1).flatten(1)
            outshines = energy.amax(1) / (OUTSHINES * energy.mean(1) + 1e-12)  # of a pass that checkpointing makes again, too: it counts
            if self._found is not None:
                self._found.append(outshines)

    def begin(self) -> None:
        """Look at the next pass."""
        self._found = []

    def penalty(self) -> Tensor:
        """Of each example (B,): the logarithm of how many times `OUTSHINES` its strongest place has, 0 below, summed over the norms."""
        found, self._found = self._found, None
        assert found, "`begin` came before, and then a pass in training"
        return torch.stack(found).clamp(min=1).log().sum(0)
