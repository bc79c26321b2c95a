"""What a network says of its LoRA adapters, without peft, which programs that use none do without."""

from torch import nn


def has_lora(unet: nn.Module) -> bool:
    return bool(getattr(unet, "peft_config", {}))


def merged_adapters(unet: nn.Module | None) -> set[str]:
    """The names of the adapters that are added into the weights."""
    layers = () if unet is None else unet.modules()
    return {name for layer in layers for name in getattr(layer, "merged_adapters", ())}


def adapter_weights(unet: nn.Module) -> dict[str, dict[str, float]]:
    """By what each adapter that acts is weighted, of every layer that has adapters, by its name."""
    layers = {name: layer for name, layer in unet.named_modules() if getattr(layer, "lora_A", None)}
    acting = {name: () if layer.disable_adapters else layer.active_adapters for name, layer in layers.items()}
    return {name: {one: layers[name].scaling[one] for one in ones if one in layers[name].scaling} for name, ones in acting.items()}


def holds_adapter(unet: nn.Module) -> bool:
    """Whether weights have other names than they are loaded by, since an adapter's layers are around theirs, fused or not."""
    return any(".base_layer." in name for name, _ in unet.named_parameters())
