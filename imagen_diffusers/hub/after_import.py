"""Something done as soon as a module is imported, by whomever: diffusers then knows our pipelines, and we do not import it."""

import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def after_import(name: str, act: Callable[[], Any]) -> None:
    """Call `act` now, where the module of this name is imported, or else right after its first import."""
    if name in sys.modules:
        act()
    else:
        sys.meta_path.insert(0, _Waiting(name, act))


class _Waiting(MetaPathFinder):
    """Finds the one module it waits for, as it would be found without it, and is gone when that is imported: others may only ask."""

    def __init__(self, name: str, act: Callable[[], Any]):
        self.name, self.act = name, act

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        after = sys.meta_path[sys.meta_path.index(self) + 1 :]  # those before it have been asked
        spec = next((found for finder in after if (found := finder.find_spec(fullname, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Acting(spec.loader, self)
        return spec


class _Acting(Loader):
    """Another's loader, and what is done once it has loaded."""

    def __init__(self, loader: Any, waiting: _Waiting):
        self.loader, self.waiting = loader, waiting

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        if self.waiting in sys.meta_path:
            sys.meta_path.remove(self.waiting)
            self.waiting.act()
