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


class RunningCallMixin:
    """What a callback can read and set of the call that is running."""

    _guidance_scale = 1.0
    _num_timesteps = 0
    _interrupt = False

    @property
    def guidance_scale(self) -> float:
        """Of the stage that is running."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Network evaluations' steps of the running call, over all its stages."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Set to True in a callback to end the call after the current step."""
        return self._interrupt

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._interrupt = value
