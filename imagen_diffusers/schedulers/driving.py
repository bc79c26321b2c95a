"""What any scheduler must tell the denoising loop, asked in one way: signal and noise, and thresholding.

A diffusers scheduler works either on variance-preserving samples (DDPM, DPM-Solver++, ...) or on samples divided by alpha
(Euler, Heun, ...: sigma space). `scale_model_input` turns the second into the first, so its factor tells alpha, and one
set of formulas serves both.
"""

import inspect
from typing import Any

import torch
from torch import Tensor

from .noise import alpha_sigma, log_snr_at, log_snr_table
from .prediction import PREDICTION_TYPES, to_x0
from .protocol import Scheduler
from .scheduling_imagen_ddpm import ImagenDDPMScheduler
from .thresholding import PAPER_RATIO, dynamic_threshold, static_threshold

DRIVEN_BY = ("set_timesteps", "step", "scale_model_input", "add_noise")


def check_drivable(scheduler: Any) -> None:
    """Refuse, by name, what is neither a variance-preserving diffusers scheduler nor one of its EDM schedulers.

    Raises:
        ValueError: for a flow-matching or otherwise incompatible scheduler.
    """
    if preconditions(scheduler):
        return
    name = type(scheduler).__name__
    betas = getattr(scheduler, "betas", None)
    missing = [m for m in DRIVEN_BY if not callable(getattr(scheduler, m, None))]
    if missing or betas is None or not hasattr(scheduler, "init_noise_sigma"):
        raise ValueError(
            f"{name} cannot drive this cascade: it is not a variance-preserving diffusion scheduler (flow-matching ones "
            "are not); use DDPM, DDIM, DPM-Solver++, UniPC, Euler or one of the Imagen schedulers"
        )
    if scheduler.config.get("use_flow_sigmas"):
        raise ValueError(f"{name} is set to flow matching (use_flow_sigmas=True); build it with use_flow_sigmas=False")
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        raise ValueError(f'{name} has prediction_type="{kind}"; networks here predict one of {", ".join(PREDICTION_TYPES)}')


def preconditions(scheduler: Any) -> bool:
    """Whether it is an EDM scheduler: `scale_model_input` and `step` apply Karras et al.'s preconditioning, table 1."""
    return callable(getattr(scheduler, "precondition_outputs", None))


def signal_and_noise(scheduler: Scheduler, timestep: float | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma (0-dim, float32) at a timestep of any drivable scheduler, VP convention.

    `scale_model_input` may set the scheduler's step index, as it does in any loop.
    """
    if isinstance(scheduler, ImagenDDPMScheduler):
        return scheduler.signal_and_noise(timestep)
    one = torch.ones(1, device=like.device)
    factor = scheduler.scale_model_input(one, timestep)
    if not torch.equal(factor, one):  # sigma space: z / alpha was scaled by alpha = 1 / sqrt(sigma_e^2 + 1)
        return factor[0], (1 - factor[0] ** 2).sqrt()
    sigmas, index = getattr(scheduler, "sigmas", None), getattr(scheduler, "step_index", None)
    if sigmas is not None and index is not None:  # multistep solvers keep sigma / alpha for each step
        ratio = sigmas[index].to(like.device, torch.float32)
        return (1 + ratio**2).rsqrt(), ratio * (1 + ratio**2).rsqrt()
    table = log_snr_table(scheduler.betas.to(like.device))
    alpha, sigma = alpha_sigma(log_snr_at(table, torch.as_tensor(timestep, dtype=torch.float32, device=like.device)))
    return alpha, sigma


def thresholds_itself(scheduler: Scheduler) -> bool:
    """Whether `step` applies the thresholding its config asks for."""
    return callable(getattr(scheduler, "_threshold_sample", None))


def clean_picture(scheduler: Scheduler, output: Tensor, timestep: float | Tensor, sample: Tensor) -> Tensor:
    """The x0 that an output implies, thresholded as the scheduler's config asks (B, C, H, W), float32.

    Args:
        scheduler: its config gives prediction type, ratio and cap.
        output: the network's guided output (B, C, H, W).
        timestep: of this step.
        sample: the noisy picture as the scheduler keeps it (not scaled).
    """
    kept, factor = _x0_terms(scheduler, timestep, sample)
    x0, c = kept + factor * output.float(), scheduler.config
    if c.get("thresholding"):
        return dynamic_threshold(x0, c.get("dynamic_thresholding_ratio", PAPER_RATIO), c.get("sample_max_value"))
    return static_threshold(x0) if c.get("clip_sample") else x0


def threshold_output(scheduler: Scheduler, output: Tensor, timestep: float | Tensor, sample: Tensor) -> Tensor:
    """For a scheduler whose `step` thresholds nothing: the output that implies the thresholded `clean_picture`."""
    kept, factor = _x0_terms(scheduler, timestep, sample)
    return ((clean_picture(scheduler, output, timestep, sample) - kept) / factor).to(output.dtype)


def _x0_terms(scheduler: Any, timestep: float | Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
    """What x0 is made of, in any parametrization: the first plus the second times the network's output."""
    if preconditions(scheduler):
        sigma = scheduler.sigmas[scheduler.step_index]
        return scheduler.precondition_outputs(sample.float(), 0.0, sigma), scheduler.precondition_outputs(0.0, 1.0, sigma)
    alpha, sigma = signal_and_noise(scheduler, timestep, sample)
    z, kind = scheduler.scale_model_input(sample, timestep).float(), scheduler.config.prediction_type
    kept = to_x0(torch.zeros_like(z), z, alpha, sigma, kind)
    return kept, to_x0(torch.ones_like(alpha), torch.zeros_like(alpha), alpha, sigma, kind)


def learns_variance(scheduler: Scheduler) -> bool:
    """Whether `step` reads a variance after the prediction. A swapped scheduler may keep the word in its config and not know it."""
    return accepts(type(scheduler).__init__, "variance_type") and scheduler.config["variance_type"] in ("learned", "learned_range")


def accepts(method: Any, argument: str) -> bool:
    """Whether a method takes an argument of this name."""
    return argument in inspect.signature(method).parameters
