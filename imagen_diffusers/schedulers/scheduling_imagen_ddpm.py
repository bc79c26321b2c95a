"""The paper's sampler (Imagen, section 2.2 and appendix A), in continuous time.

Ancestral sampling with a variance between its two bounds (equation 6's gamma) or learned, or deterministic (equation 5, DDIM).
"""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from torch import Tensor

from .noise import (
    NUM_TRAIN_TIMESTEPS,
    alpha_sigma,
    beta_table,
    log_snr_at,
    log_snr_of,
    log_snr_table,
    over,
    q_sample,
    shift_betas,
)
from .precision import at_least_float32, standard_normal
from .prediction import check_prediction_type, target, to_x0
from .swapping import ImagenSchedulerMixin
from .thresholding import PAPER_RATIO, threshold

LEARNED = ("learned", "learned_range")
# Stock DDPM's words, but "fixed_large_log": there it takes the root of a logarithm, which is negative.
VARIANCE_TYPES = ("fixed_small", "fixed_small_log", "fixed_large", *LEARNED)
# For curves that end in noise alone.
INSTEAD = "Use ImagenDDIMScheduler, ImagenDPMSolverMultistepScheduler, ImagenUniPCMultistepScheduler or ImagenEulerDiscreteScheduler"


class ImagenDDPMScheduler(ImagenSchedulerMixin, SchedulerMixin, ConfigMixin):
    """Timesteps are floats in [0, num_train_timesteps), evenly spaced, so any number of steps is as good as another.

    Where a stock `DDPMScheduler` or `DDIMScheduler` is given the same whole timesteps the updates agree, up to the last one, to which
    stock adds noise if its timestep is not 0. The times are its own: `timestep_spacing` and `steps_offset` of a scheduler it is
    swapped for stay in its configuration for the way back.

    Args:
        num_train_timesteps: the length of diffusers' scale; the network sees times on it.
        beta_start, beta_end: of the linear schedules.
        beta_schedule: "squaredcos_cap_v2" (the paper's cosine), "linear" or "scaled_linear".
        trained_betas: the curve itself, instead; num_train_timesteps of them.
        log_snr_shift: moves the curve for large images, `log_snr_shift_for(size)`. Written into `trained_betas` too,
            so that every stock scheduler swapped in keeps the curve.
        prediction_type: "epsilon" (the paper's), "v_prediction" or "sample".
        variance_interpolation: gamma in [0, 1] between the smallest and the largest variance; None is deterministic, whatever
            the variance type.
        thresholding: dynamic thresholding of x0.
        dynamic_thresholding_ratio: its quantile (paper: 0.995).
        sample_max_value: its upper limit; None as in the paper, 1.0 for static thresholding.
        clip_sample: static thresholding, where `thresholding` is off.
        variance_type: as in `DDPMScheduler`. "fixed_small" (or "fixed_small_log", the same) is the smallest variance, or between the two
            by `variance_interpolation`; "fixed_large" is the largest; with "learned" and "learned_range" the network's output has
            twice the channels, and the second half is the variance, or in [-1, 1] its place between the two logarithms. None, which
            solvers have, is "fixed_small".
        clip_sample_range: where static thresholding clips.

    Raises:
        ValueError: for a word or number that it does not know, and for two different variances.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers]
    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(  # noqa: PLR0913 (diffusers' names, by which a configuration is saved)
        self,
        num_train_timesteps: int = NUM_TRAIN_TIMESTEPS,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "squaredcos_cap_v2",
        trained_betas: list[float] | None = None,
        log_snr_shift: float = 0.0,
        prediction_type: str = "epsilon",
        variance_interpolation: float | None = 0.0,
        thresholding: bool = True,
        dynamic_thresholding_ratio: float = PAPER_RATIO,
        sample_max_value: float | None = None,
        clip_sample: bool = False,
        variance_type: str | None = "fixed_small",
        clip_sample_range: float = 1.0,
    ):
        self._check_config()
        check_prediction_type(prediction_type)
        self.variance_type, self.variance_interpolation = variance_type or "fixed_small", variance_interpolation
        _check_variance(self.variance_type, variance_interpolation)
        if trained_betas is not None:
            self.betas = torch.tensor(trained_betas, dtype=torch.float32)
        else:
            plain = beta_table(beta_schedule, beta_start=beta_start, beta_end=beta_end, num_train_timesteps=num_train_timesteps)
            self.betas = shift_betas(plain, log_snr_shift)
            if log_snr_shift != 0:
                self.register_to_config(trained_betas=self.betas.tolist())
        self.alphas_cumprod = torch.cumprod(1 - self.betas, dim=0)
        if not self.alphas_cumprod[-1] > 0:
            raise ValueError(f"trained_betas end in noise alone, and the log-SNR of {type(self).__name__} is finite. {INSTEAD}")
        self.log_snr = log_snr_table(self.betas)
        self._keep_on_swap()
        self.set_timesteps(num_train_timesteps)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """diffusers' hook behind `from_config`.

        Raises:
            ValueError: for zero terminal SNR, besides what every Imagen scheduler refuses.
        """
        if config_dict.get("rescale_betas_zero_snr"):
            raise ValueError(
                f"{cls.__name__} has no rescale_betas_zero_snr, which the configuration sets to True: its log-SNR is finite. " + INSTEAD
            )
        return super().extract_init_dict(config_dict, **kwargs)

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    @property
    def step_index(self) -> int | None:
        """How many steps have been made; None before the first."""
        return self._step_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[float] | Tensor | None = None,
    ) -> None:
        """Choose the times to visit: `num_inference_steps` evenly spaced from the noisiest, or these, descending.

        Raises:
            ValueError: for neither or both, for no whole number of steps or fewer than one, or for times that do not descend in range.
        """
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("give exactly one of num_inference_steps and timesteps")
        last = self.config.num_train_timesteps - 1
        if num_inference_steps is not None:
            if not num_inference_steps >= 1 or num_inference_steps % 1:
                raise ValueError(f"num_inference_steps is {num_inference_steps}; a whole number, at least 1, is needed")
            chosen = last * (1 - torch.arange(num_inference_steps, dtype=torch.float64) / num_inference_steps)
        else:
            chosen = torch.as_tensor(timesteps, dtype=torch.float64, device="cpu")
            if not len(chosen):
                raise ValueError("timesteps is empty; give at least one time")
            if (chosen.diff() >= 0).any() or chosen.max() > last or chosen.min() < 0:
                raise ValueError(f"timesteps must descend within [0, {last}]; they are {timesteps}")
        self.timesteps = chosen.float().to(device or "cpu")
        self.num_inference_steps = len(chosen)
        # One more entry than steps: after the last one there is no noise (infinite log-SNR).
        # In float64 from the float32 table on, so that whole timesteps have stock's own alphas_cumprod to its last bit.
        curve = log_snr_at(log_snr_of(self.alphas_cumprod.double()), chosen)
        self._path = torch.cat((curve, torch.tensor([torch.inf], dtype=torch.float64)))
        self._step_index = None

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """The sample itself: variance-preserving throughout."""
        return sample

    def signal_and_noise(self, timestep: float | Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma, 0-dim, float64, at one of `timesteps`."""
        return alpha_sigma(self._path[self._index_of(timestep)])

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> DDPMSchedulerOutput | tuple[Tensor, Tensor]:
        """From one time to the next.

        Args:
            model_output: the network's, guided, (B, C, H, W), or (B, 2 C, H, W) with a learned variance.
            timestep: where `sample` is; must be one of `timesteps`, and after the first step the next of them.
            sample: the noisy image (B, C, H, W).
            generator: of the ancestral noise; one, or one per image.
            return_dict: False returns (prev_sample, pred_original_sample).

        Raises:
            ValueError: for a timestep that is not one of the scheduler's, and for an output without the variance it should have.
        """
        model_output, predicted_variance = self._split(model_output, sample.shape[1])
        self._step_index = self._index_of(timestep, self._step_index)
        now, then = self._path[self._step_index], self._path[self._step_index + 1]
        self._step_index += 1
        alpha, sigma = alpha_sigma(now)
        z = at_least_float32(sample)
        x0 = threshold(to_x0(at_least_float32(model_output), z, alpha, sigma, self.config.prediction_type), self.config)
        previous = self._mean(z, x0, now, then)
        if self.variance_interpolation is not None and self._step_index < self.num_inference_steps:  # the last step adds no noise
            noise = standard_normal(z.shape, generator, z.device, z.dtype)
            previous = previous + self._variance(now, then, predicted_variance) ** 0.5 * noise
        previous, x0 = previous.to(sample.dtype), x0.to(sample.dtype)
        return DDPMSchedulerOutput(prev_sample=previous, pred_original_sample=x0) if return_dict else (previous, x0)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """q_sample at fractional timesteps (B,), or one for all."""
        return q_sample(original_samples, noise, self._log_snr_at(timesteps))

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v at clean images, noise and timesteps (B,), or one for all."""
        alpha, sigma = alpha_sigma(over(self._log_snr_at(timesteps).to(sample.device), sample))
        return target(sample, noise, alpha, sigma, "v_prediction").to(sample.dtype)

    def _log_snr_at(self, timesteps: Tensor) -> Tensor:
        return log_snr_at(self.log_snr.to(timesteps.device), at_least_float32(timesteps.reshape(-1)))

    def _split(self, output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
        """The prediction, and the learned variance where there is one."""
        if self.variance_type not in LEARNED or self.variance_interpolation is None:
            return output[:, :channels], None
        if output.shape[1] != 2 * channels:
            raise ValueError(
                f'variance_type="{self.variance_type}" needs an output of {2 * channels} channels, prediction and variance; it has '
                f'{output.shape[1]}. Use variance_type="fixed_small" with a network that learned no variance'
            )
        return output[:, :channels], at_least_float32(output[:, channels:])

    def _mean(self, z: Tensor, x0: Tensor, now: Tensor, then: Tensor) -> Tensor:
        """z at log-SNR `now` to z at `then`, but for noise (float64 scalars: the small differences below cancel badly in float32)."""
        alpha, sigma = alpha_sigma(now)
        alpha_then, sigma_then = alpha_sigma(then)
        if self.variance_interpolation is None:  # equation 5
            noise = (z - alpha * x0) / sigma
            return alpha_then * x0 + sigma_then * noise
        ratio = torch.exp(now - then)  # SNR now / SNR then, in [0, 1)
        return ratio * alpha_then / alpha * z + (1 - ratio) * alpha_then * x0  # equation 4: the posterior mean

    def _variance(self, now: Tensor, then: Tensor, predicted: Tensor | None) -> Tensor:
        """Of the noise that goes from log-SNR `now` to `then`: 0-dim, or of the shape of what the network predicted."""
        if predicted is not None and self.variance_type == "learned":
            return predicted
        alpha, alpha_then, sigma_then = alpha_sigma(now)[0], *alpha_sigma(then)
        largest = 1 - (alpha / alpha_then) ** 2
        smallest = (1 - torch.exp(now - then)) * sigma_then**2
        gamma: Any = 1.0 if self.variance_type == "fixed_large" else self.variance_interpolation
        if predicted is not None:
            gamma = (predicted + 1) / 2  # Nichol and Dhariwal 2021, equation 15
        return smallest ** (1 - gamma) * largest**gamma  # equation 6

    def _index_of(self, timestep: float | Tensor, place: int | None = None) -> int:
        """Where in `timesteps` it is; it must be at `place`, where that is given."""
        if place is None:
            place = int((self.timesteps - float(timestep)).abs().argmin())
        if place == len(self.timesteps):
            raise ValueError(f"timestep {float(timestep)} comes after the scheduler's last; call set_timesteps to begin anew")
        wanted = self.timesteps[place].item()
        if abs(wanted - float(timestep)) > 1e-3:
            raise ValueError(
                f"timestep {float(timestep)} is not one of the scheduler's, or not the next one, {wanted}; call set_timesteps and pass its "
                "timesteps in order"
            )
        return place


def _check_variance(variance_type: str, variance_interpolation: float | None) -> None:
    if variance_type not in VARIANCE_TYPES:
        raise ValueError(f'variance_type="{variance_type}" is unknown; use one of {", ".join(VARIANCE_TYPES)}')
    if variance_interpolation is not None and not 0 <= variance_interpolation <= 1:
        raise ValueError(f"variance_interpolation is {variance_interpolation}; give a number in [0, 1], or None for deterministic sampling")
    if variance_interpolation and not variance_type.startswith("fixed_small"):
        raise ValueError(
            f'variance_interpolation is {variance_interpolation} and variance_type is "{variance_type}", which is another variance; '
            'give variance_interpolation=0.0, or variance_type="fixed_small"'
        )
