"""The imagen-pytorch package as it imports where there is no network and no GPU: to compare with, never a dependency.

    make .venv/installed-reference

installs it without torchvision, whose CPU build is on no package registry and whose other build breaks transformers here.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config


def load() -> ModuleType:
    """The package.

    At import it asks the Hub how wide T5 is, and for torchvision's transforms, of which its `sample` and its folder data set use a
    few. What is compared uses neither; both are stood in for while it imports.

    Raises:
        ImportError: when it is not installed; the message says how.
    """
    own = T5Config.__dict__.get("from_pretrained")
    T5Config.from_pretrained = classmethod(lambda cls, *_, **__: T5Config(d_model=768))  # type: ignore[method-assign]
    stand_ins = {name: ModuleType(name) for name in ("torchvision", "torchvision.transforms", "torchvision.utils")}
    for name, module in stand_ins.items():
        module.__spec__ = ModuleSpec(name, None)  # transformers asks for it
    stand_ins["torchvision"].transforms = stand_ins["torchvision.transforms"]  # type: ignore[attr-defined]
    missing = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(missing)
    try:
        return importlib.import_module("imagen_pytorch")
    except ModuleNotFoundError as error:
        raise ImportError(f"{error}; install what the comparison needs with: make .venv/installed-reference") from None
    finally:
        for name in missing:
            del sys.modules[name]
        if own is None:
            del T5Config.from_pretrained
        else:
            T5Config.from_pretrained = own


def noises(generator: torch.Generator, size: int, steps: int, *, low_res: bool) -> list[Tensor]:
    """A stage's noise in the order that package asks for it: condition, start, each step. This package asks for the start first."""

    def more() -> Tensor:
        return torch.randn(1, 3, size, size, generator=generator)

    start = more()
    condition = [more()] if low_res else []
    return [*condition, start, *(more() for _ in range(steps - 1)), torch.zeros(1, 3, size, size)]


@contextmanager
def float64_throughout(imagen: Any) -> Iterator[Any]:
    """Inside, an `Imagen` or `ElucidatedImagen` of that package samples in float64.

    By itself it would go back to float32 in its attention, and have another epsilon in its norms.
    Its noise curves stay the float32 numbers its networks were trained on.
    """
    module = importlib.import_module("imagen_pytorch.imagen_pytorch")
    own = module.LayerNorm.forward, Tensor.softmax

    def norm(self: Any, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=self.dim, unbiased=False, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt() * self.g  # the epsilon of float32; other precisions have another there

    imagen.double()
    for curve in (*getattr(imagen, "noise_schedulers", ()), imagen.lowres_noise_schedule):  # ElucidatedImagen has none of its own
        curve.log_snr = lambda t, log_snr=curve.log_snr: log_snr(t.float()).double()
    module.LayerNorm.forward = norm
    Tensor.softmax = lambda values, dim, dtype=None: torch.softmax(values, dim)  # type: ignore[method-assign,assignment]
    try:
        yield imagen
    finally:
        module.LayerNorm.forward, Tensor.softmax = own  # type: ignore[method-assign]


@contextmanager
def told_noise(queue: list[Tensor]) -> Iterator[None]:
    """Inside, that package draws these in place of its own noise; all of them, no more."""
    own = torch.randn, torch.randn_like
    torch.randn = torch.randn_like = lambda *_, **__: queue.pop(0)
    try:
        yield
    finally:
        torch.randn, torch.randn_like = own
    if queue:
        raise AssertionError(f"{len(queue)} noises were not asked for")
