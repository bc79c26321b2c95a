"""A scheduler begun at any of its steps: for what starts from an image, and for what goes back to a noisier one.

diffusers' schedulers count their own steps and keep what the last ones predicted. A copy that never made a step, begun where it is
needed, has neither count nor history to mend.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from .driving import latents_level
from .kinds import BEGINS_AT_THE_FIRST, is_of
from .protocol import Scheduler

USE = "DDPM, DDIM, Euler, DPM-Solver++ or UniPC"


def check_can_begin_late(scheduler: Any) -> None:
    """Refuse, by name, schedulers whose first step must be their first.

    Raises:
        ValueError: for those.
    """
    if is_of(scheduler, BEGINS_AT_THE_FIRST):
        name = type(scheduler).__name__
        raise ValueError(f"{name} cannot begin at a later step, as starting from an image and going back ask of it; use {USE}")


def check_can_go_back(scheduler: Any) -> None:
    """Refuse, by name, schedulers that cannot go back between two steps.

    Raises:
        ValueError: for those.
    """
    check_can_begin_late(scheduler)
    if getattr(scheduler, "order", 1) > 1:
        raise ValueError(
            f"{type(scheduler).__name__} evaluates the network several times a step and cannot go back between them; give "
            f"jump_n_sample=1, or use {USE}"
        )


def begun_at(prepared: Scheduler, place: int) -> Scheduler:
    """A copy of a scheduler that has made no step since `set_timesteps`; its first one will be at `timesteps[place]`."""
    return begin_at(copy.deepcopy(prepared), place)


def begin_at(prepared: Any, place: int) -> Scheduler:
    """The scheduler itself, told where its first step is: where times are rounded, several may be one number, and it would take another."""
    if hasattr(prepared, "set_begin_index"):
        prepared.set_begin_index(place)
    return prepared


def noised_to(scheduler: Scheduler, image: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """Images (B, C, H, W) as noisy as the scheduler's latents are at the step that it stands before.

    Not `scheduler.add_noise`, which knows no level between two steps, where some solvers evaluate the network.
    """
    signal, sigma = latents_level(scheduler, timestep)
    return (signal * image + sigma * noise).to(image.dtype)


def noised_again(prepared: Scheduler, latents: Tensor, done: int, place: int, noise: Tensor) -> Tensor:
    """Latents as they were before step `place`: q(z_place | z_done), RePaint's way back (Lugmayr et al. 2022, section 4.2).

    Args:
        prepared: that made no step yet.
        latents: after `done` steps (B, C, H, W).
        done: more than `place`; of all steps where the image is clean.
        place: the step to go back to.
        noise: standard normal (B, C, H, W).
    """
    (signal, sigma), (signal_back, sigma_back) = (_level(prepared, at) for at in (done, place))
    kept = signal_back / signal
    spread = (sigma_back**2 - (kept * sigma) ** 2).clamp(min=0) ** 0.5
    return (kept * latents + spread * noise).to(latents.dtype)


def _level(prepared: Scheduler, place: int) -> tuple[Tensor, Tensor]:
    """`latents_level` before step `place`; after the last one there is no noise."""
    if place == len(prepared.timesteps):
        return torch.ones(()), torch.zeros(())
    return latents_level(begun_at(prepared, place), prepared.timesteps[place])
