"""Compiled networks run their graphs, and what they have no graph for without one where they have as many graphs as they may."""

import logging
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
_TOLD: WeakSet[Any] = WeakSet()  # what was compiled, of which it was said


def run_compiled(runner: Any, module: Any, sample: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> tuple[Tensor, ...]:
    """What a compiled network gives out; torch refuses a graph too many where whole graphs are asked for.

    It is asked each time, which costs next to nothing: a graph goes by more than shapes, by the weights of adapters for one, and what
    has none under these may have one under others.

    Args:
        runner: what is called: the network itself, compiled in place, or what `torch.compile` wrapped it in.
        module: the network.
        sample, timestep, arguments: its inputs.
    """
    try:
        return runner(sample, timestep, return_dict=False, **arguments)
    except torch._dynamo.exc.FailOnRecompileLimitHit:  # pyright: ignore[reportAttributeAccessIssue]
        compiled = module._compiled_call_impl or runner  # another one when it is compiled anew
        if compiled not in _TOLD:
            _TOLD.add(compiled)
            logger.warning(
                f"{type(module).__name__} has as many compiled graphs as it may: {'x'.join(map(str, sample.shape))}, and what else comes "
                "in new shapes or under new weights of adapters, runs uncompiled, more slowly; pipe.compile(recompile_limit=256) gives "
                "more graphs"
            )
    return module._call_impl(sample, timestep, return_dict=False, **arguments)  # past what `module.compile()` has made
