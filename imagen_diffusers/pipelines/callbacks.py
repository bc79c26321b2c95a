"""The caller's functions, called after each step and after each stage of a call."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers.callbacks import IPAdapterScaleCutoffCallback, MultiPipelineCallbacks, PipelineCallback
from torch import Tensor

from imagen_diffusers.sampling.stage import StepState

from .output import HandedOut


@dataclass
class Callbacks:
    """The caller's `callback_on_step_end` and `callback_on_stage_end`.

    Args:
        pipe: what they are handed.
        on_step_end: the caller's, or one of diffusers' `PipelineCallback`s, which name their tensors themselves.
        on_stage_end: the caller's.
        tensor_inputs: which tensors `on_step_end` is handed.
        embeds: `prompt_embeds` and `negative_prompt_embeds`, to be read; None for networks without text.
    """

    pipe: Any
    on_step_end: Callable[..., dict[str, Tensor] | None] | None
    on_stage_end: Callable[..., None] | None
    tensor_inputs: Sequence[str]
    embeds: dict[str, Tensor | None]
    step: int = 0  # counted over all stages

    def before_step(self, timestep: Tensor) -> None:
        """Let what runs inside the network, as diffusers' caches do, read the time of its step."""
        self.pipe._current_timestep = timestep

    def after_step(self, state: StepState) -> None:
        if self.on_step_end is not None:
            offered = {k: self.embeds[k] if k in self.embeds else getattr(state, k) for k in self.tensor_inputs}
            returned = self.on_step_end(self.pipe, self.step, state.timestep, offered)
            returned = {} if returned is None else returned
            _check_returned(returned, {**dict.fromkeys((*self.embeds, "low_res")), **offered})
            state.latents = _checked(returned.get("latents", state.latents), state.latents)
            state.guidance_scale = self.pipe._guidance_scale
        self.step += 1

    def after_stage(self, number: int, images: HandedOut) -> None:
        """Of a stage that was not interrupted, with its images as the call hands them out."""
        if self.on_stage_end is not None and not self.pipe.interrupt:
            self.on_stage_end(self.pipe, number, images)


def _check_returned(returned: Any, offered: dict[str, Any]) -> None:
    """See that a callback changes nothing that is read before the first step; diffusers' own return some rows of the text."""
    if not isinstance(returned, dict):
        raise ValueError(f"callback_on_step_end returned a {type(returned).__name__}; return a dict of tensors, or None")
    for name, given in offered.items():
        tensor = returned.get(name, given)
        if name != "latents" and tensor is not given and not _shares_memory(tensor, given):
            raise ValueError(
                f"callback_on_step_end returned another {name}, which a running call does not read again; return latents alone, and let "
                "pipe._guidance_scale say how much the text counts"
            )


def _shares_memory(one: Any, other: Any) -> bool:
    return isinstance(one, Tensor) and isinstance(other, Tensor) and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _checked(latents: Any, given: Tensor) -> Tensor:
    """What a callback returned in place of the latents it was handed."""
    if not isinstance(latents, Tensor) or (latents.shape, latents.dtype) != (given.shape, given.dtype):
        told, due = (f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__ for x in (latents, given))
        raise ValueError(f"callback_on_step_end returned latents {told}; return a tensor {due}, as it was handed, or none")
    return latents


def tensors_of(function: Any, asked: Sequence[str]) -> Sequence[str]:
    """The tensors a callback is handed: those asked for, or those that one of diffusers' own names.

    Raises:
        ValueError: for the one of diffusers' that sets the scale of an IP-Adapter.
    """
    each = function.callbacks if isinstance(function, MultiPipelineCallbacks) else [function]
    if any(isinstance(one, IPAdapterScaleCutoffCallback) for one in each):
        raise ValueError("IPAdapterScaleCutoffCallback sets the scale of an IP-Adapter, which a cascade does not have; leave it out")
    return function.tensor_inputs if isinstance(function, PipelineCallback | MultiPipelineCallbacks) else asked


class RunningCallMixin:
    """What a callback can read and set of the call that is running."""

    progress_bar: Any  # of the pipeline
    _guidance_scale = 1.0  # a callback may set it: 1 or less ends guidance for the running stage
    _asked_guidance_scale = 1.0  # what the call asked for in the running stage: there less than 1 is guidance, too
    _current_timestep: Tensor | None = None
    _running_stages: Sequence[int] = ()
    _num_timesteps = 0
    _interrupt = False

    @contextmanager
    def _running(self, stages: list[int], steps: int) -> Iterator[Any]:
        """A call of these stages and so many steps, and its progress bar; its timestep is no more once it ends, whatever ended it."""
        self._running_stages, self._num_timesteps = stages, steps
        try:
            with self.progress_bar(total=steps) as progress:
                yield progress
        finally:
            self._current_timestep = None

    @property
    def guidance_scale(self) -> float:
        """Of the stage that is running."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the stage that is running is guided: until a callback sets a scale of 1 or less."""
        return self._guidance_scale > 1 or self._guidance_scale == self._asked_guidance_scale != 1

    @property
    def current_timestep(self) -> Tensor | None:
        """Of the step that the running call is in, from before the network runs to the next one; None outside a call."""
        return self._current_timestep

    @property
    def running_stages(self) -> list[int]:
        """Numbers of the stages that the running call is made of, first to last, counted from 1."""
        return list(self._running_stages)

    @property
    def num_timesteps(self) -> int:
        """Network evaluations' steps of the running call, over all its stages."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Set to True, in a callback or by another thread, to end the running call after its current step."""
        return self._interrupt

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._interrupt = value
