"""A scheduler begun at any of its steps: for what starts from an image, and for what goes back to a noisier one.

diffusers' schedulers count their own steps and keep what the last ones predicted. A copy that never made a step, begun where it is
needed, has neither count nor history to mend.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from .driving import preconditions, signal_and_noise
from .protocol import Scheduler


def begun_at(prepared: Scheduler, place: int) -> Scheduler:
    """A copy of a scheduler that has made no step since `set_timesteps`; its first one will be at `timesteps[place]`."""
    scheduler: Any = copy.deepcopy(prepared)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(place)
    return scheduler


def noised_again(prepared: Scheduler, latents: Tensor, done: int, place: int, noise: Tensor) -> Tensor:
    """Latents as they were before step `place`: q(z_place | z_done), RePaint's way back (Lugmayr et al. 2022, section 4.2).

    Args:
        prepared: that made no step yet.
        latents: after `done` steps (B, C, H, W).
        done: more than `place`; of all steps where the image is clean.
        place: the step to go back to.
        noise: standard normal (B, C, H, W).
    """
    (alpha, sigma, unit), (alpha_back, sigma_back, unit_back) = (_level(prepared, at) for at in (done, place))
    kept = alpha_back / alpha
    spread = (sigma_back**2 - (kept * sigma) ** 2).clamp(min=0) ** 0.5
    z = kept * unit * latents + spread * noise
    return (z / unit_back).to(latents.dtype)


def _level(prepared: Scheduler, place: int) -> tuple[Tensor, Tensor, Tensor]:
    """alpha, sigma, and what latents are multiplied by to be variance preserving, before step `place`; 0-dim."""
    if place == len(prepared.timesteps):
        return torch.ones(()), torch.zeros(()), torch.ones(())
    timestep = prepared.timesteps[place]
    alpha, sigma = signal_and_noise(begun_at(prepared, place), timestep)
    return alpha, sigma, alpha if in_sigma_space(begun_at(prepared, place), timestep) else torch.ones(())


def in_sigma_space(scheduler: Scheduler, timestep: Tensor) -> bool:
    """Whether its latents are x0 + sigma noise; the others' are variance preserving. For a copy: diffusers notes that it was asked."""
    return preconditions(scheduler) or scheduler.scale_model_input(torch.ones(()), timestep).item() != 1
