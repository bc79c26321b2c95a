"""What a network says of its LoRA adapters, without peft, which programs that use none do without."""

from torch import nn

FOR_GOOD = "_adapters_for_good"  # an attribute of networks: the names of those that are in its weights, and have no layers any more


def has_lora(unet: nn.Module) -> bool:
    return bool(getattr(unet, "peft_config", {}))


def merged_adapters(unet: nn.Module | None) -> set[str]:
    """The names of the adapters that are added into the weights."""
    layers = () if unet is None else unet.modules()
    return {name for layer in layers for name in getattr(layer, "merged_adapters", ())}


def check_not_in_weights(unet: nn.Module, name: str) -> None:
    """See that no adapter of this name is in the weights for good: two would be taken for one.

    Raises:
        ValueError: where one is.
    """
    if name in getattr(unet, FOR_GOOD, ()):
        raise ValueError(f'an adapter "{name}" was fused into the network and its layers taken off, so it stays there; give another name')


def holds_adapter(unet: nn.Module) -> bool:
    """Whether weights have other names than they are loaded by, since an adapter's layers are around theirs, fused or not."""
    return any(".base_layer." in name for name, _ in unet.named_parameters())
