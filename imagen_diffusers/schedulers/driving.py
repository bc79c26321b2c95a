"""What the denoising loop asks of any scheduler: signal and noise at a time, and steps that are given the clean image.

Networks predict noise, v or the clean image, and schedulers threshold what they predict in different ways or not at all. The loop
therefore makes x0 of every output itself, thresholds it as the scheduler's configuration asks (`clean_image`), and gives `step`
that x0 (`as_output`) in the one parametrization that the loop's copy of the scheduler was prepared for (`prepare_for_x0`).

A diffusers scheduler works either on variance-preserving samples (DDPM, DPM-Solver++, ...) or on samples divided by alpha
(Euler, Heun, ...: sigma space). `scale_model_input` turns the second into the first, and one set of formulas serves both.
"""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_ddpm_parallel import DDPMParallelScheduler
from torch import Tensor

from .kinds import AVERAGES_NOISE, INVERTS, TAKES_NO_X0, is_of
from .noise import alpha_sigma, log_snr_at, log_snr_table
from .precision import at_least_float32
from .prediction import check_prediction_type, from_x0, to_x0
from .protocol import Scheduler
from .scheduling_imagen_ddpm import ImagenDDPMScheduler
from .swapping import ImagenSchedulerMixin
from .thresholding import PAPER_RATIO, check_ratio, threshold

DRIVEN_BY = ("set_timesteps", "step", "scale_model_input", "add_noise")
USE = "use DDPM, DDIM, DPM-Solver++, UniPC, Euler or one of the Imagen schedulers"
# Where the curve leaves less of the image than this, the first outputs are so far off that what averages noise makes nothing but noise; the
# cosine curve leaves 1.5e-10, linear ones 4e-5 and more.
LEAST_SIGNAL_FOR_AVERAGES = 1e-6
ROUNDING = 1e-5  # of the curves of stock schedulers and ours, which differ from their betas' by 5e-7 at most
FINISHED = 0.9  # the alpha from which on there is little to do


def check_drivable(scheduler: Any) -> None:
    """Refuse, by name, what is neither a variance-preserving diffusers scheduler nor one of its EDM schedulers.

    Raises:
        ValueError: for a flow-matching or otherwise incompatible scheduler, and for one that cannot do what its configuration says.
    """
    if preconditions(scheduler):
        return
    name = type(scheduler).__name__
    betas = getattr(scheduler, "betas", None)
    missing = [m for m in DRIVEN_BY if not callable(getattr(scheduler, m, None))]
    if missing or betas is None or not hasattr(scheduler, "init_noise_sigma"):
        raise ValueError(
            f"{name} cannot drive this cascade: it is not a variance-preserving diffusion scheduler (flow-matching ones are not); {USE}"
        )
    _check_step(scheduler)
    if scheduler.config.get("use_flow_sigmas"):
        raise ValueError(f"{name} is set to flow matching (use_flow_sigmas=True); build it with use_flow_sigmas=False")
    if scheduler.config.get("rescale_betas_zero_snr") and not accepts(type(scheduler).__init__, "rescale_betas_zero_snr"):
        raise ValueError(
            f"{name} knows no rescale_betas_zero_snr, which its configuration sets to True, and so has another noise curve; "
            "use DDPM, DDIM, DPM-Solver++, UniPC or Euler"
        )
    if not torch.allclose((1 - betas).cumprod(0), scheduler.alphas_cumprod.to(betas), atol=ROUNDING):
        raise ValueError(
            f"{name} cannot drive this cascade: its noise curve is not that of its betas, by which networks are trained; {USE}"
        )
    if is_of(scheduler, AVERAGES_NOISE) and scheduler.alphas_cumprod[-1] < LEAST_SIGNAL_FOR_AVERAGES:
        raise ValueError(f"{name} makes nothing but noise on a curve that ends in pure noise, as the cosine one does; {USE}")
    if scheduler.config.get("thresholding"):
        check_ratio(scheduler.config.get("dynamic_thresholding_ratio", PAPER_RATIO))
    check_prediction_type(scheduler.config.get("prediction_type", "epsilon"), name)


def check_steps(scheduler: Any, steps: int) -> None:
    """Refuse more steps than the scheduler has times for, and fewer than it begins with.

    Raises:
        ValueError: for a scheduler whose times are whole numbers, and for PNDM.
    """
    least = getattr(scheduler, "pndm_order", 1)
    if steps < least and not scheduler.config.skip_prk_steps:
        name = type(scheduler).__name__
        raise ValueError(
            f"num_inference_steps is {steps}, and {name}, which begins by Runge-Kutta, needs {least} at least; give as many, or take "
            f"{name}.from_config(scheduler.config, skip_prk_steps=True)"
        )
    known = scheduler.config.get("num_train_timesteps")
    if preconditions(scheduler) or known is None or steps <= known:
        return
    if has_whole_times(scheduler):
        raise ValueError(
            f"num_inference_steps is {steps}, and {type(scheduler).__name__} has {known} times to choose from; give at most {known}, or "
            "use ImagenDDPMScheduler, whose time is continuous"
        )


def has_whole_times(scheduler: Any) -> bool:
    """Whether the times that it makes are whole numbers, and those of a caller would be cut to such."""
    few = copy.deepcopy(scheduler)
    few.set_timesteps(4)  # PNDM makes no fewer
    return not few.timesteps.is_floating_point()


def check_variance(scheduler: Any, name: str, learned: bool) -> None:
    """Refuse a scheduler that reads a variance beside the prediction of a network, of this name, which makes none.

    Raises:
        ValueError: saying what would do.
    """
    if learned or not reads_variance(scheduler) or isinstance(scheduler, ImagenDDPMScheduler) and scheduler.variance_interpolation is None:
        return
    kind = type(scheduler).__name__
    raise ValueError(
        f"the network of {name} learns no variance, and its scheduler has variance_type={scheduler.config['variance_type']}: take "
        f'{kind}.from_config(scheduler.config, variance_type="fixed_small")'
    )


def check_one_step(scheduler: Any, name: str) -> None:
    """Refuse one step that begins where images are finished, as diffusers' "linspace" and "leading" spacing lay out one alone.

    Call it after `set_timesteps`.

    Args:
        name: of the stage.

    Raises:
        ValueError: saying what would do.
    """
    first, *more = scheduler.timesteps
    if more or preconditions(scheduler) or signal_and_noise(scheduler, first)[0] < FINISHED:
        return
    kind = type(scheduler).__name__
    raise ValueError(
        f"the one step of {name} would be at time {first.item():g} with {kind}, where images are finished, and it begins in noise; give "
        f'more steps, or take {kind}.from_config(scheduler.config, timestep_spacing="trailing")'
    )


def leave_out_times_before_the_first(scheduler: Any) -> None:
    """diffusers' trailing spacing gives a time too many, -1, for some numbers of steps; in a table of alphas that is the last one.

    Call it after `set_timesteps`. What goes by sigmas reads no such table.
    """
    whole = not scheduler.timesteps.is_floating_point()
    if whole and getattr(scheduler, "sigmas", None) is None:
        scheduler.timesteps = scheduler.timesteps[scheduler.timesteps >= 0]


def _check_step(scheduler: Any) -> None:
    """Refuse, by name, schedulers that are diffusion schedulers and yet no samplers of an image from noise alone."""
    name = type(scheduler).__name__
    more = [p.name for p in inspect.signature(scheduler.step).parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    more = [argument for argument in more if argument not in ("model_output", "timestep", "sample")]
    if more:
        raise ValueError(f"{name} cannot drive this cascade: its step needs {', '.join(more)}, which it does not have; {USE}")
    if accepts(scheduler.step, "prev_timestep"):  # UnCLIP's
        raise ValueError(f"{name} cannot drive this cascade: unless it is told, its step goes to the time before, of all 1000; {USE}")
    if is_of(scheduler, INVERTS):
        raise ValueError(f"{name} cannot drive this cascade: it goes from an image to noise; {USE}")


def preconditions(scheduler: Any) -> bool:
    """Whether it is an EDM scheduler: `scale_model_input` and `step` apply Karras et al.'s preconditioning, table 1."""
    return callable(getattr(scheduler, "precondition_outputs", None))


def prepare_for_x0(scheduler: Scheduler) -> None:
    """From now on `step` takes what `as_output` returns, and thresholds nothing. For the loop's own copy of a scheduler.

    Call it after `set_timesteps`, which may read the prediction type.
    """
    scheduler.register_to_config(thresholding=False, clip_sample=False)
    if not preconditions(scheduler):
        scheduler.register_to_config(prediction_type="epsilon" if is_of(scheduler, TAKES_NO_X0) else "sample")
    predictor: Any = getattr(scheduler, "solver_p", None)  # UniPC's, which is given the same output
    if predictor is not None:
        prepare_for_x0(predictor)


def clean_image(scheduler: Any, output: Tensor, timestep: float | Tensor, sample: Tensor, trained: Mapping[str, Any]) -> Tensor:
    """The x0 that an output implies, thresholded (B, C, H, W), in float32 at least.

    Args:
        scheduler: at this step.
        output: the network's guided output (B, C, H, W).
        timestep: of this step.
        sample: the noisy image as the scheduler keeps it (not scaled).
        trained: the scheduler's configuration before `prepare_for_x0`: what the network predicts, and how to threshold that.
    """
    output, sample = at_least_float32(output), at_least_float32(sample)
    if preconditions(scheduler):
        x0 = scheduler.precondition_outputs(sample, output, _sigma_ratio(scheduler, timestep))
    else:
        z = scheduler.scale_model_input(sample, timestep)
        x0 = to_x0(output, z, *signal_and_noise(scheduler, timestep), trained.get("prediction_type", "epsilon"))
    own = None if isinstance(scheduler, ImagenSchedulerMixin) else getattr(scheduler, "_threshold_sample", None)
    # A stock scheduler finds the quantile in its own way, which differs in the last bits: with it, it equals stock pipelines.
    return own(x0) if own is not None and trained.get("thresholding") else threshold(x0, trained)


def as_output(scheduler: Any, x0: Tensor, timestep: float | Tensor, sample: Tensor) -> Tensor:
    """What to give `step` of a scheduler from `prepare_for_x0`, so that it goes on from this x0 (B, C, H, W)."""
    sample = at_least_float32(sample)
    if preconditions(scheduler):
        sigma = _sigma_ratio(scheduler, timestep)
        skipped = scheduler.precondition_outputs(sample, 0.0, sigma)
        return (x0 - skipped) / scheduler.precondition_outputs(0.0, 1.0, sigma)
    if scheduler.config.prediction_type == "sample":
        return x0
    z = scheduler.scale_model_input(sample, timestep)
    return from_x0(x0, z, *signal_and_noise(scheduler, timestep), scheduler.config.prediction_type)


def signal_and_noise(scheduler: Any, timestep: float | Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma (0-dim, on the CPU) at a timestep of any drivable scheduler, by the numbers its own `step` uses."""
    if isinstance(scheduler, ImagenDDPMScheduler):
        return scheduler.signal_and_noise(timestep)
    if getattr(scheduler, "sigmas", None) is not None:
        ratio = _sigma_ratio(scheduler, timestep)
        alpha = 1 / (ratio**2 + 1) ** 0.5
        return alpha, ratio * alpha
    time = float(timestep)
    if time.is_integer():
        kept = scheduler.alphas_cumprod[int(time)].cpu()
        return kept**0.5, (1 - kept) ** 0.5
    return alpha_sigma(log_snr_at(log_snr_table(scheduler.betas.cpu()), torch.tensor(time)))


def latents_level(scheduler: Any, timestep: float | Tensor) -> tuple[Tensor, Tensor]:
    """What of the image and what of the noise is in the scheduler's latents at the step that it stands before, 0-dim, on the CPU."""
    alpha, sigma = signal_and_noise(scheduler, timestep)
    # A sigma so small that the scale rounds to 1 is the same in both spaces.
    in_sigma_space = preconditions(scheduler) or scheduler.scale_model_input(torch.ones(()), timestep).item() != 1
    return (torch.ones(()), sigma / alpha) if in_sigma_space else (alpha, sigma)


def _sigma_ratio(scheduler: Any, timestep: float | Tensor) -> Tensor:
    """sigma / alpha at the scheduler's step, 0-dim: what diffusers' solvers call a sigma."""
    middle = getattr(scheduler, "mid_point_sigma", None)
    if middle is not None:  # in DPM-Solver SDE's every other step
        return middle.cpu()
    index = scheduler.step_index
    if index is None:
        first = scheduler.begin_index
        index = scheduler.index_for_timestep(timestep) if first is None else first
    if getattr(scheduler, "sigmas_interpol", None) is not None and not scheduler.state_in_first_order:
        # KDPM2's every other step lies between two sigmas, which its two kinds count differently; their scale tells the sigma.
        alpha = scheduler.scale_model_input(torch.ones((), dtype=torch.float64), timestep)
        return (alpha**-2 - 1) ** 0.5
    return scheduler.sigmas[index].cpu()


def reads_variance(scheduler: Scheduler) -> bool:
    """Whether `step` reads a variance after the prediction; other schedulers may have the word in their configuration."""
    known = isinstance(scheduler, DDPMScheduler | DDPMParallelScheduler | ImagenDDPMScheduler)
    return known and scheduler.config.get("variance_type") in ("learned", "learned_range")


def accepts(method: Any, argument: str) -> bool:
    """Whether a method takes an argument of this name."""
    return argument in inspect.signature(method).parameters
