"""The scales of adapters, and what becomes of them around fusing: what is in the weights is taken out by the scale it went in with, and
then has its own again.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from imagen_diffusers.models.adapters import FOR_GOOD
from imagen_diffusers.models.learned_guidance import learned_guidance

OWN = "_scales_before_fusing"  # an attribute of layers: the scales that fused adapters have otherwise
TOLD = "_guidance_told_of"  # an attribute of networks: what was said of guidance on top of a learned one
logger = logging.getLogger(__name__)


@contextmanager
def only_fused_ones_scaled(unets: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, adapters are fused by a scale, which peft puts on all active ones, on those that are in the weights already, too."""
    before = [(layer, set(layer.merged_adapters), dict(layer.scaling)) for layer in _layers(unets)]
    yield
    for layer, merged, scales in before:
        new = {*layer.merged_adapters} - merged
        layer.scaling.update({name: scale for name, scale in scales.items() if name not in new})
        setattr(layer, OWN, {**{name: scales[name] for name in new}, **getattr(layer, OWN, {})})


def give_back_scales(unets: Iterable[nn.Module]) -> None:
    """Of adapters that were taken out of the weights."""
    for layer in _layers(unets):
        own = layer.__dict__.pop(OWN, {})
        layer.scaling.update({name: scale for name, scale in own.items() if name in layer.scaling})


def forget_scales(unets: Iterable[nn.Module]) -> None:
    """Since other ones were set."""
    for layer in _layers(unets):
        layer.__dict__.pop(OWN, None)


def acting_scales(unet: nn.Module) -> list[dict[str, float]]:
    """Of every layer with adapters, in order, the scales of those that act."""
    acting = [(layer, () if layer.disable_adapters else layer.active_adapters) for layer in _layers([unet])]
    return [{name: layer.scaling[name] for name in names if name in layer.scaling} for layer, names in acting]


def warn_of_guidance_twice(slot: str, unet: nn.Module, scale: float) -> None:
    """Say, once of each scale, that guidance is added to what an acting adapter of a stage has learned."""
    learned = {name: own for name, own in learned_guidance(unet).items() if own != 1}
    if scale <= 1 or not learned:
        return
    acting = {name for weights in acting_scales(unet) for name, weight in weights.items() if weight}
    for name in sorted(learned.keys() & {*acting, *getattr(unet, FOR_GOOD, ())}):
        message = (
            f"{name} has learned guidance of {learned[name]:g}, and in {slot} guidance of {scale:g} is added to it; give guidance_scale=1 "
            "for what it has learned alone"
        )
        told = unet.__dict__.setdefault(TOLD, set())
        if message not in told:
            logger.warning(message)
            told.add(message)


def _layers(unets: Iterable[nn.Module]) -> Iterator[Any]:
    return (layer for unet in unets for layer in unet.modules() if hasattr(layer, "merged_adapters"))
