"""torch-fidelity and clean-fid as they import without torchvision: to compare with, never a dependency.

    make .venv/installed-reference

puts both into a folder of their own, since torchmetrics does not import where torch-fidelity is installed and torchvision is not.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(sys.prefix) / "fidelity"
NAMES = ("datasets", "models", "models.inception", "models.utils", "transforms", "transforms.functional")


class StandIn(ModuleType):
    """A module whose names are all empty classes, which others may be made of."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextmanager
def on_path() -> Iterator[None]:
    """Both packages are found in here, after all others."""
    if not FOLDER.exists():
        pytest.skip("torch-fidelity and clean-fid are not there: make .venv/installed-reference")
    sys.path.append(str(FOLDER))
    try:
        yield
    finally:
        sys.path.remove(str(FOLDER))


def load(module: str) -> ModuleType:
    """One of their modules. Of torchvision they use, at import, names alone."""
    stand_ins = {name: StandIn(name) for name in ("torchvision", *(f"torchvision.{name}" for name in NAMES))}
    for name, made in stand_ins.items():
        made.__spec__ = ModuleSpec(name, None)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(stand_ins[parent], child, made)
    missing = {name: made for name, made in stand_ins.items() if "torchvision" not in sys.modules}
    sys.modules.update(missing)
    try:
        with on_path():
            return import_module(module)
    finally:
        for name in missing:
            del sys.modules[name]
