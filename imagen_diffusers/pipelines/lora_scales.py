"""The scales of adapters, and what becomes of them around fusing: what is in the weights is taken out by the scale it went in with, and
then has its own again.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

OWN = "_scales_before_fusing"  # an attribute of layers: the scales that fused adapters have otherwise


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


def _layers(unets: Iterable[nn.Module]) -> Iterator[Any]:
    return (layer for unet in unets for layer in unet.modules() if hasattr(layer, "merged_adapters"))
