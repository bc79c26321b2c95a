"""Something done as soon as a module is imported, by whomever: diffusers then knows our pipelines, and we do not import it."""

import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any


def after_import(name: str, act: Callable[[], Any]) -> None:
    """Call `act` now, where the module of this name is imported, or else right after its first import."""
    if name in sys.modules:
        act()
    else:
        sys.meta_path.insert(0, _Waiting(name, act))


class _Waiting(MetaPathFinder):
    """Finds the one module it waits for, as it would be found without it, and is gone."""

    def __init__(self, name: str, act: Callable[[], Any]):
        self.name, self.act = name, act

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_act(module: Any) -> None:
                execute(module)
                self.act()

            spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec
