"""From a network to one that is conditioned on images, too: a mask and what it leaves (inpainting), edges, depth, a sketch.

As GLIDE's inpainting (Nichol et al., 2021) and Imagen Editor (Wang et al., 2023): more input channels, whose weights start at zero.
"""

import copy
from typing import TypeVar

from .adapters import has_lora
from .conditioned_unet import ConditionedUNet
from .initialization import initialized_from

Network = TypeVar("Network", bound=ConditionedUNet)


def with_cond_channels(unet: Network, cond_channels: int) -> Network:
    """A new network with the weights of `unet` that takes `cond_images`; until it is trained, its output is that of `unet` bit for bit.

    Args:
        unet: one that takes none; it stays as it is.
        cond_channels: of the images, for example 4 for a mask and an RGB image.

    Raises:
        ValueError: for fewer than one channel, a network that takes conditioning images already, and one with adapters.
    """
    if cond_channels < 1:
        raise ValueError(f"cond_channels is {cond_channels}; it must be at least 1")
    if unet.config["cond_channels"]:
        raise ValueError(f"this network takes conditioning images of {unet.config['cond_channels']} channels already; train it as it is")
    if has_lora(unet):
        raise ValueError("this network has LoRA adapters, which would be left behind; fuse or unload them first")
    made = copy.deepcopy(unet)
    defaults = [name for name in unet.config.get("_use_default_values", []) if name != "cond_channels"]  # `from_config` leaves these out
    made.register_to_config(cond_channels=cond_channels, _use_default_values=defaults)
    with initialized_from(0):  # of layers that are set to zero at once; the global state stays as it is
        made.build_cond().to(unet.device, unet.dtype)
    return made
