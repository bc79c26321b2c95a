"""The optimizer of a run, over the weights that require a gradient."""

from functools import partial
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from .checkpoints import trainable
from .muon import MuonWithAdamW
from .run_settings import TrainSettings


def make_optimizer(unet: ModelMixin, settings: TrainSettings, scale: float = 1.0) -> torch.optim.Optimizer:
    """What the settings ask for; `scale` multiplies the learning rates.

    Raises:
        ValueError: when nothing is to be trained, and for Muon on a network that it cannot divide.
        ImportError: for 8-bit AdamW without bitsandbytes.
    """
    named = trainable(unet)
    if not named:
        raise ValueError("no weight of the network requires a gradient; there is nothing to train")
    adamw = {
        "betas": (settings.adam_beta1, settings.adam_beta2),
        "eps": settings.adam_epsilon,
        "weight_decay": settings.adam_weight_decay,
    }
    if settings.optimizer == "muon":
        matrices, others = split_for_muon(unet)
        rates = {"lr": settings.muon_learning_rate * scale, "adamw_lr": settings.learning_rate * scale}
        return MuonWithAdamW(matrices, others, momentum=settings.muon_momentum, **rates, **adamw)
    return _adamw(settings)([p for _, p in named], lr=settings.learning_rate * scale, **adamw)


def split_for_muon(unet: ModelMixin) -> tuple[list[Tensor], list[Tensor]]:
    """The matrices between the ends of the network, and all other weights.

    What stands at the ends, where images, times and text come in and the image goes out, is no map between features; neither
    are norms and biases. These take AdamW, as in Muon's own recipes.

    Raises:
        ValueError: for a network that does not say which its ends are.
    """
    ends = getattr(unet, "ENDS", None)
    if ends is None:
        raise ValueError(f"optimizer=muon must know the ends of a network, and {type(unet).__name__} does not say them; use adamw")
    matrices, others = [], []
    for name, p in trainable(unet):
        (matrices if p.ndim >= 2 and name.split(".")[0] not in ends else others).append(p)
    return matrices, others


def _adamw(settings: TrainSettings) -> Any:
    if not settings.use_8bit_adam:
        return partial(torch.optim.AdamW, fused=True)  # one pass over the weights: four times quicker on a processor
    try:
        import bitsandbytes  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("use_8bit_adam needs bitsandbytes: pip install bitsandbytes, or leave it out") from None
    return bitsandbytes.optim.AdamW8bit
