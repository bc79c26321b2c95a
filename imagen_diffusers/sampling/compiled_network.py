"""Compiled networks run their graphs, and other shapes without one where they have as many graphs as they may."""

import logging
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
_WITHOUT: WeakKeyDictionary[Any, set[Any]] = WeakKeyDictionary()  # of each network, the inputs it has no graph for


def run_compiled(runner: Any, module: Any, sample: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> tuple[Tensor, ...]:
    """What a compiled network gives out; torch refuses a graph too many where whole graphs are asked for, and asks no more here.

    Args:
        runner: what is called: the network itself, compiled in place, or what `torch.compile` wrapped it in.
        module: the network.
        sample, timestep, arguments: its inputs.
    """
    inputs = {"sample": sample, "timestep": timestep, **arguments}
    kind = tuple((name, value.shape if isinstance(value, Tensor) else type(value)) for name, value in inputs.items())
    without = _WITHOUT.setdefault(module, set())
    if kind not in without:
        try:
            return runner(sample, timestep, return_dict=False, **arguments)
        except torch._dynamo.exc.FailOnRecompileLimitHit:  # pyright: ignore[reportAttributeAccessIssue]
            pass
        if not without:
            logger.warning(
                f"{type(module).__name__} has as many compiled graphs as it may: {'x'.join(map(str, sample.shape))}, and what "
                "follows in other shapes, runs uncompiled, more slowly; pipe.compile(recompile_limit=256) gives more graphs"
            )
        without.add(kind)
    return module._call_impl(sample, timestep, return_dict=False, **arguments)  # past what `module.compile()` has made
