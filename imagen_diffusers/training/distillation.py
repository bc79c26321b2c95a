"""Guidance distilled into an adapter (Meng et al. 2023, section 3.1): one evaluation predicts what took two under guidance.

The network without the adapter teaches. The adapter learns its guided prediction (Imagen, equation 2) of the same noisy image, which is no
sample but a function of what the network is given: the error has no noise of its own, and few steps are enough.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from imagen_diffusers.models.learned_guidance import learned_guidance
from imagen_diffusers.models.lora import trained_adapter
from imagen_diffusers.sampling.network import StageNetwork


def begin_distillation(network: StageNetwork, scale: float | None) -> None:
    """Note what guidance the adapter learns; refuse what has none to learn, or nowhere to put it, by a `ValueError`.

    Args:
        scale: of the guidance, as `LossSettings` say; None where the network learns from images, which all of them can.
    """
    if scale is None:
        return
    if network.text_dim is None:
        raise ValueError(f"this {type(network.module).__name__} takes no text, so it has no guidance to distill: leave its stage out")
    adapter = trained_adapter(network.module)
    if adapter is None:
        raise ValueError("guidance is distilled into an adapter, since the network without it is the teacher: give rank, or call add_lora")
    learned_guidance(network.module)[adapter] = scale


@torch.no_grad()
def guided(network: StageNetwork, predict: Callable[[Tensor], Tensor], dropped: Tensor, scale: float) -> Tensor:
    """What the network without the adapter puts out under guidance (B, C, H, W); for an image without text that is what it is then.

    A variance that it learned is, as in sampling, not guided, and the adapter learns to leave it so.

    Args:
        network: the stage's, by its adapter.
        predict: its output, without text for the images that are told (B,).
        dropped: the images that are without text.
        scale: w of equation 2.
    """
    with _as_teacher(network.module):
        with_text, without = predict(dropped), predict(torch.ones_like(dropped))
    prediction = slice(network.channels)
    with_text[:, prediction] = without[:, prediction] + scale * (with_text[:, prediction] - without[:, prediction])
    return with_text


@contextmanager
def _as_teacher(module: nn.Module) -> Iterator[None]:
    """Without the adapter that is trained, beside which frozen ones may act, and without dropout."""
    trained, training = trained_adapter(module), module.training
    layers = [(layer, layer._active_adapter) for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
    for layer, _ in layers:
        # peft's own ways to choose adapters would let frozen ones be trained from then on.
        layer._active_adapter = [name for name in layer.active_adapters if name != trained]
    module.eval()
    try:
        yield
    finally:
        module.train(training)
        for layer, chosen in layers:
            layer._active_adapter = chosen
