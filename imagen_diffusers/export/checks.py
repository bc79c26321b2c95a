"""What cannot be a graph, said before anything is traced: what acts on a module from outside would be left out of it without a word."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imagen_diffusers.extras import install
from imagen_diffusers.models.adapters import holds_adapter


def check_exportable(name: str, module: nn.Module) -> None:
    """See that a graph of a module computes what the module does.

    Args:
        name: of its slot in the pipeline.

    Raises:
        ValueError: for adapters, hooks and weights that are not plain float32.
    """
    if holds_adapter(module):
        raise ValueError(
            f"{name} holds a LoRA adapter, which a graph would fix at its present weight; call fuse_lora() and unload_lora_weights() to "
            "export weights with the adapter in them, or unload_lora_weights() to export them without"
        )
    hooked = next((place for place, part in module.named_modules() if _hooks(part)), None)
    if hooked is not None:
        where = f"{name}.{hooked}" if hooked else name
        raise ValueError(
            f"{where} has hooks (offloading, caching, layerwise casting), which a graph would leave out; export a pipeline that was loaded "
            "without them"
        )
    if getattr(module, "hf_quantizer", None) is not None or getattr(module, "is_quantized", False):
        raise ValueError(f"{name} is quantised, and graphs are made of float32 weights; load it without a quantization_config")
    for place, value in module.named_parameters():
        plain = type(value) is nn.Parameter and type(value.data) is Tensor
        if not plain or value.dtype != torch.float32:
            kind = f"in {value.dtype}".replace("torch.", "") if plain else f"quantised ({type(value.data).__name__})"
            raise ValueError(f"{name}.{place} is {kind}, and graphs are made of float32; load the pipeline with dtype=torch.float32")


def check_holds_no_weights(folder: Path) -> None:
    """See that no component of a cascade in a folder has weights, which graphs would take the place of.

    Raises:
        ValueError: naming them.
    """
    kinds = ("*.safetensors", "*pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5", "*.gguf")
    found = [path.relative_to(folder) for kind in kinds for path in sorted(folder.glob(f"*/**/{kind}"))]
    if found:
        raise ValueError(f"{folder} holds weights, which would be lost ({found[0]}); give another folder for the graphs")


def check_installed(*, openvino: bool, eight_bits: bool = False) -> None:
    """See that what writes graphs, and what runs them, is installed, before hours are spent.

    Raises:
        ImportError: for what is not, saying what brings it.
    """
    needed = ["onnx", "onnxscript", "openvino" if openvino else "onnxruntime", *(["nncf"] if eight_bits else [])]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        extra = "openvino" if openvino else "onnx"
        raise ImportError(f"these graphs need {', '.join(missing)}: {install(extra)}")


def _hooks(module: Any) -> bool:
    """accelerate's and diffusers' hooks, and torch's own that run in a forward pass."""
    return bool(
        hasattr(module, "_hf_hook")
        or getattr(getattr(module, "_diffusers_hook", None), "hooks", None)
        or module._forward_hooks
        or module._forward_pre_hooks
    )
