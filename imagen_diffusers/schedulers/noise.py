"""How much signal and how much noise there is at each time, and the one function that adds noise to a condition.

A curve is a table of log-SNR at the integer timesteps 0..999, exactly diffusers' `alphas_cumprod`, joined by straight
lines in log-SNR: continuous time (Imagen, appendix A; F.1 "continuous_time True") that agrees with every discrete
scheduler where those are defined.

Variance preserving throughout (section 2.2 of the paper): z_t = alpha x + sigma eps, alpha^2 + sigma^2 = 1,
log-SNR = log(alpha^2 / sigma^2).
"""

import math
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from diffusers.schedulers.scheduling_ddpm import betas_for_alpha_bar
from torch import Tensor

from .precision import at_least_float32

NUM_TRAIN_TIMESTEPS = 1000
BETA_SCHEDULES = ("squaredcos_cap_v2", "linear", "scaled_linear")


def beta_table(
    beta_schedule: str, *, beta_start: float = 1e-4, beta_end: float = 0.02, num_train_timesteps: int = NUM_TRAIN_TIMESTEPS
) -> Tensor:
    """Stock diffusers' betas, float32 (num_train_timesteps,).

    "squaredcos_cap_v2" is the paper's cosine (F.1, F.2), "linear" its 1000-step linear from 1e-4 to 0.02 (F.3).
    """
    if beta_schedule == "squaredcos_cap_v2":
        return betas_for_alpha_bar(num_train_timesteps)
    if beta_schedule == "linear":
        return torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float32)
    if beta_schedule == "scaled_linear":
        return torch.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=torch.float32) ** 2
    raise ValueError(f'beta_schedule="{beta_schedule}" is unknown; use one of {", ".join(BETA_SCHEDULES)}')


def shift_betas(betas: Tensor, log_snr_shift: float) -> Tensor:
    """Betas whose log-SNR is `log_snr_shift` higher everywhere (simple diffusion, section 2: 2 log(64 / d) at size d)."""
    if log_snr_shift == 0:
        return betas
    log_snr = log_snr_table(betas).double() + log_snr_shift
    alphas_cumprod = log_snr.sigmoid()
    previous = torch.cat((torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]))
    return (1 - alphas_cumprod / previous).clamp(max=0.999).float()


def log_snr_shift_for(size: int, reference_size: int = 64) -> float:
    """The shift that keeps the signal-to-noise ratio of a 64px view of the image: 2 log(64 / size), negative above 64."""
    return 2 * math.log(reference_size / size)


def log_snr_table(betas: Tensor) -> Tensor:
    """At each timestep (T,), finite: a curve that ends in noise alone ends at the level that diffusers' solvers take for that."""
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    return log_snr_of(alphas_cumprod.masked_fill(alphas_cumprod == 0, 2**-24))


def same_curve(betas: Sequence[float], others: Sequence[float]) -> bool:
    """Whether betas mean the same log-SNR, up to the rounding of another processor's arithmetic."""
    one, two = (log_snr_table(torch.tensor(b, dtype=torch.float32)) for b in (betas, others))
    return one.shape == two.shape and torch.allclose(one, two, rtol=0, atol=1e-2)


def log_snr_of(alphas_cumprod: Tensor) -> Tensor:
    """log(alpha^2 / sigma^2), in the precision of what it is given."""
    return torch.log(alphas_cumprod) - torch.log1p(-alphas_cumprod)


def log_snr_at(table: Tensor, timestep: Tensor) -> Tensor:
    """The curve at fractional timesteps, same shape as `timestep`; beyond the ends the last segment goes on."""
    low = timestep.floor().clamp(0, len(table) - 2)
    index = low.long()
    return torch.lerp(table[index], table[index + 1], (timestep - low).to(table.dtype))


def timestep_at(table: Tensor, log_snr: Tensor) -> Tensor:
    """Where the curve has this log-SNR: fractional timesteps, same shape as `log_snr`; beyond the ends the ends."""
    rising = table.flip(0)
    high = torch.searchsorted(rising, log_snr.contiguous()).clamp(1, len(table) - 1)
    below, above = rising[high - 1], rising[high]
    return len(table) - high - ((log_snr - below) / (above - below)).clamp(0, 1)


def alpha_sigma(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = sqrt(sigmoid(log-SNR)) and sigma = sqrt(sigmoid(-log-SNR))."""
    return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()


def over(values: Tensor, x: Tensor) -> Tensor:
    """A value for each example (B,) as (B, 1, ...), to go with x (B, ...)."""
    return values.view(-1, *[1] * (x.ndim - 1))


def q_sample(x: Tensor, noise: Tensor, log_snr: Tensor) -> Tensor:
    """z_t = alpha x + sigma eps (section 2.2): x (B, ...), images or anything else, log-SNR (B,)."""
    log_snr = log_snr.to(x.device, torch.promote_types(log_snr.dtype, x.dtype))
    alpha, sigma = alpha_sigma(over(log_snr, x))
    return (alpha * x + sigma * noise).to(x.dtype)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased bicubic resize of (B, C, H, W) in [-1, 1] to (height, width), clipped back to [-1, 1]."""
    if images.shape[-2:] == size:
        return images
    resized = F.interpolate(at_least_float32(images), size=size, mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(-1, 1).to(images.dtype)


def augment(low_res: Tensor, noise_level: Tensor, noise: Tensor) -> Tensor:
    """Noise-conditioning augmentation (section 2.4): the cosine curve's q_sample at `noise_level`.

    Not `scheduler.add_noise`: a sampling solver's add_noise rounds to its own steps and returns another level.

    Args:
        low_res: the condition (B, C, H, W), already at the size of the stage it conditions.
        noise_level: (B,) in [0, 1000); 0 is (all but) none. The paper's aug_level times 1000.
        noise: standard normal, the shape of `low_res`.
    """
    return q_sample(low_res, noise, log_snr_at(_augmentation_table().to(noise_level.device), noise_level))


@cache
def _augmentation_table() -> Tensor:
    return log_snr_table(beta_table("squaredcos_cap_v2"))
