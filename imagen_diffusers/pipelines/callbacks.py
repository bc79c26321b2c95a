"""The caller's function, called after each step of whichever stage is running."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .stage import StepState


@dataclass
class StepCallback:
    """The caller's `callback_on_step_end`, told the step counted over all stages."""

    pipe: Any
    function: Callable[..., dict[str, Tensor] | None] | None
    tensor_inputs: Sequence[str]
    step: int = 0

    def __call__(self, state: StepState) -> None:
        if self.function is not None:
            offered = {k: getattr(state, k) for k in self.tensor_inputs}
            returned = self.function(self.pipe, self.step, state.timestep, offered) or {}
            state.latents = returned.get("latents", state.latents)
        self.step += 1
