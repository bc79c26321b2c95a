"""The paper's sampler (Imagen, section 2.2 and appendix A), in continuous time.

Ancestral sampling with a variance between its two bounds (equation 6's gamma), or deterministic (equation 5, DDIM).
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from .noise import NUM_TRAIN_TIMESTEPS, alpha_sigma, beta_table, log_snr_at, log_snr_table, q_sample, shift_betas
from .prediction import check_prediction_type, target, to_x0
from .swapping import ImagenSchedulerMixin
from .thresholding import PAPER_RATIO


class ImagenDDPMScheduler(ImagenSchedulerMixin, SchedulerMixin, ConfigMixin):
    """Timesteps are floats in [0, num_train_timesteps), evenly spaced, so any number of steps is as good as another.

    Where a stock `DDPMScheduler` or `DDIMScheduler` is given the same integer timesteps the updates agree.

    Args:
        num_train_timesteps: the length of diffusers' scale; the network sees times on it.
        beta_start, beta_end: of the linear schedules.
        beta_schedule: "squaredcos_cap_v2" (the paper's cosine), "linear" or "scaled_linear".
        trained_betas: the curve itself, instead.
        log_snr_shift: moves the curve for large pictures, `log_snr_shift_for(size)`. Written into `trained_betas` too,
            so that every stock scheduler swapped in keeps the curve.
        prediction_type: "epsilon" (the paper's), "v_prediction" or "sample".
        variance_interpolation: gamma in [0, 1] between the smallest and the largest variance; None is deterministic.
        thresholding: dynamic thresholding of x0.
        dynamic_thresholding_ratio: its quantile (paper: 0.995).
        sample_max_value: its upper limit; None as in the paper, 1.0 for static thresholding.
        clip_sample: static thresholding, where `thresholding` is off.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers]
    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
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
    ):
        check_prediction_type(prediction_type)
        if variance_interpolation is not None and not 0 <= variance_interpolation <= 1:
            raise ValueError(
                f"variance_interpolation is {variance_interpolation}; give a number in [0, 1], or None for deterministic sampling"
            )
        if trained_betas is not None:
            self.betas = torch.tensor(trained_betas, dtype=torch.float32)
        else:
            plain = beta_table(beta_schedule, beta_start=beta_start, beta_end=beta_end, num_train_timesteps=num_train_timesteps)
            self.betas = shift_betas(plain, log_snr_shift)
            if log_snr_shift != 0:
                self.register_to_config(trained_betas=self.betas.tolist())
        self.alphas_cumprod = torch.cumprod(1 - self.betas, dim=0)
        self.log_snr = log_snr_table(self.betas)
        self._keep_on_swap()
        self.set_timesteps(num_train_timesteps)

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
        timesteps: list[float] | None = None,
    ) -> None:
        """Choose the times to visit: `num_inference_steps` evenly spaced from the noisiest, or these, descending.

        Raises:
            ValueError: for neither or both, for fewer than one step, or for times that do not descend in range.
        """
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("give exactly one of num_inference_steps and timesteps")
        last = self.config.num_train_timesteps - 1
        if num_inference_steps is not None:
            if num_inference_steps < 1:
                raise ValueError(f"num_inference_steps is {num_inference_steps}; at least 1 is needed")
            chosen = last * (1 - torch.arange(num_inference_steps, dtype=torch.float64) / num_inference_steps)
        else:
            chosen = torch.tensor(timesteps, dtype=torch.float64)
            if (chosen.diff() >= 0).any() or chosen.max() > last or chosen.min() < 0:
                raise ValueError(f"timesteps must descend within [0, {last}]; they are {timesteps}")
        self.timesteps = chosen.float().to(device or "cpu")
        self.num_inference_steps = len(chosen)
        # One more entry than steps: after the last one there is no noise (infinite log-SNR).
        self._path = torch.cat((log_snr_at(self.log_snr.double(), chosen), torch.tensor([torch.inf], dtype=torch.float64)))
        self._step_index = None

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """The sample itself: variance-preserving throughout."""
        return sample

    def signal_and_noise(self, timestep: float | Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma, 0-dim, float32, at one of `timesteps`."""
        alpha, sigma = alpha_sigma(self._path[self._index_of(timestep)])
        return alpha.float(), sigma.float()

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
            model_output: what the network said, guided, (B, C, H, W).
            timestep: where `sample` is; must be one of `timesteps`.
            sample: the noisy picture.
            generator: of the ancestral noise; one, or one per picture.
            return_dict: False returns (prev_sample, pred_original_sample).
        """
        if self._step_index is None:
            self._step_index = self._index_of(timestep)
        now, then = self._path[self._step_index], self._path[self._step_index + 1]
        self._step_index += 1
        alpha, sigma = alpha_sigma(now)
        x0 = to_x0(model_output.float(), sample.float(), alpha, sigma, self.config.prediction_type)
        if self.config.thresholding:
            x0 = self._threshold_sample(x0)
        elif self.config.clip_sample:
            limit = self.config.get("clip_sample_range", 1.0)
            x0 = x0.clamp(-limit, limit)
        last = self._step_index == self.num_inference_steps
        previous = self._update(sample.float(), x0, now, then, generator, last).to(sample.dtype)
        x0 = x0.to(sample.dtype)
        return DDPMSchedulerOutput(prev_sample=previous, pred_original_sample=x0) if return_dict else (previous, x0)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """q_sample at fractional timesteps (B,)."""
        return q_sample(original_samples, noise, log_snr_at(self.log_snr.to(timesteps.device), timesteps.float()))

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v at clean pictures, noise and timesteps (B,)."""
        alpha, sigma = alpha_sigma(log_snr_at(self.log_snr.to(timesteps.device), timesteps.float())[:, None, None, None])
        return target(sample, noise, alpha, sigma, "v_prediction")

    def _update(self, z: Tensor, x0: Tensor, now: Tensor, then: Tensor, generator, last: bool) -> Tensor:
        """z at log-SNR `now` to z at `then` (float64 scalars: the small differences below cancel badly in float32).

        The last step adds no noise.
        """
        alpha, sigma = alpha_sigma(now)
        alpha_then, sigma_then = alpha_sigma(then)
        gamma = self.config.get("variance_interpolation", 0.0)
        if gamma is None:  # equation 5
            noise = (z - alpha * x0) / sigma
            return alpha_then * x0 + sigma_then * noise
        ratio = torch.exp(now - then)  # SNR now / SNR then, in [0, 1)
        kept = ratio * alpha_then / alpha  # equation 4: the posterior mean
        mean = kept * z + (1 - ratio) * alpha_then * x0
        if last:
            return mean
        largest = 1 - (alpha / alpha_then) ** 2
        smallest = (1 - ratio) * sigma_then**2
        variance = smallest ** (1 - gamma) * largest**gamma  # equation 6
        noise = randn_tensor(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        return mean + variance.sqrt() * noise

    def _index_of(self, timestep: float | Tensor) -> int:
        place = int((self.timesteps - float(timestep)).abs().argmin())
        if abs(self.timesteps[place].item() - float(timestep)) > 1e-3:
            raise ValueError(
                f"timestep {float(timestep)} is not one of the scheduler's; call set_timesteps and pass its timesteps in order"
            )
        return place
