"""imagen-pytorch's sampler: ancestral, in continuous time, on that package's own curves.

Its times run from 1 to 0; here a time t is the timestep 1000 t - 1, so that diffusers' integers 0..999 are its 1/1000..1. The last
step goes to t = 0, where a trace of noise is left, as there.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from imagen_diffusers.schedulers.noise import NUM_TRAIN_TIMESTEPS, same_curve
from imagen_diffusers.schedulers.scheduling_imagen_ddpm import ImagenDDPMScheduler


def _cosine(time: Tensor) -> Tensor:
    offset = 0.008
    angle = (time + offset) / (1 + offset) * torch.pi * 0.5
    return -torch.log((torch.cos(angle) ** -2 - 1).clamp(min=1e-5))


def _linear(time: Tensor) -> Tensor:
    return -torch.log(torch.expm1(1e-4 + 10 * time**2))


CURVES: dict[str, Callable[[Tensor], Tensor]] = {"cosine": _cosine, "linear": _linear}


def curve_log_snr(noise_schedule: str, time: Tensor) -> Tensor:
    """Log-SNR at times in [0, 1], float32: at t = 1 the cosine's value is that arithmetic's, and networks were trained on it.

    Raises:
        ValueError: for a curve imagen-pytorch does not have.
    """
    if noise_schedule not in CURVES:
        raise ValueError(f'noise_schedule="{noise_schedule}" is unknown; imagen-pytorch has {", ".join(CURVES)}')
    return CURVES[noise_schedule](time.float())


def time_of(timestep: Tensor) -> Tensor:
    """diffusers' scale to imagen-pytorch's: 999 is 1. Float64 on the CPU: in float32 the division is not that package's time again."""
    return (timestep.cpu().double() + 1) / NUM_TRAIN_TIMESTEPS


class LucidrainsScheduler(ImagenDDPMScheduler):
    """The sampler of imagen-pytorch's `Imagen`.

    Args:
        noise_schedule: "cosine" or "linear". Written into `trained_betas`, so that stock schedulers swapped in keep the curve.
        prediction_type: "epsilon" for its objective "noise", "sample" for "x_start", "v_prediction" for "v".
        trained_betas: follows from `noise_schedule`; another curve is refused.
        thresholding: dynamic thresholding; where it is off, images are clipped to [-1, 1].
        dynamic_thresholding_ratio: its `dynamic_thresholding_percentile`.
        sample_max_value: None, as there.
        clip_sample: static thresholding, where `thresholding` is off.

    Raises:
        ValueError: for a noise curve that imagen-pytorch does not have.
    """

    @register_to_config
    def __init__(
        self,
        noise_schedule: str = "cosine",
        num_train_timesteps: int = NUM_TRAIN_TIMESTEPS,
        prediction_type: str = "epsilon",
        trained_betas: list[float] | None = None,
        thresholding: bool = True,
        dynamic_thresholding_ratio: float = 0.95,
        sample_max_value: float | None = None,
        clip_sample: bool = True,
    ):
        times = time_of(torch.arange(num_train_timesteps))
        kept = curve_log_snr(noise_schedule, times).double().sigmoid()
        before = torch.cat((torch.ones(1, dtype=torch.float64), kept[:-1]))
        betas = (1 - kept / before).clamp(max=0.999).float().tolist()
        if trained_betas is not None and not same_curve(trained_betas, betas):
            raise ValueError(
                f'trained_betas are not those of imagen-pytorch\'s "{noise_schedule}" curve; '
                "sample by ImagenDDPMScheduler, which takes any curve"
            )
        inspect.unwrap(ImagenDDPMScheduler.__init__)(  # its configuration is this class's own
            self, num_train_timesteps, prediction_type=prediction_type, trained_betas=betas
        )
        self.register_to_config(trained_betas=betas)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """diffusers' hook behind `from_config`.

        Raises:
            ValueError: for a configuration on another curve, besides what every Imagen scheduler refuses.
        """
        if (
            "noise_schedule" not in kwargs
            and "beta_schedule" in config_dict
            and not (config_dict.get("noise_schedule") and config_dict.get("trained_betas"))
        ):
            raise ValueError(
                f'the configuration is on another noise curve, beta_schedule="{config_dict["beta_schedule"]}"; LucidrainsScheduler has '
                f"those of imagen-pytorch ({', '.join(CURVES)}). Use ImagenDDPMScheduler, which takes any, or give noise_schedule."
            )
        return super().extract_init_dict(config_dict, **kwargs)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[float] | None = None,
    ) -> None:
        """As many times from 1 towards 0, evenly spaced.

        Raises:
            ValueError: for fewer than one step, and for times of one's own, which that package does not have.
        """
        if timesteps is not None or num_inference_steps is None or num_inference_steps < 1:
            raise ValueError(f"give num_inference_steps of at least 1, not {num_inference_steps}, and no timesteps")
        times = torch.linspace(1.0, 0.0, num_inference_steps + 1)
        self.timesteps = (times[:-1] * NUM_TRAIN_TIMESTEPS - 1).to(device or "cpu")
        self.num_inference_steps = num_inference_steps
        self._path = curve_log_snr(self.config.noise_schedule, times).double()
        self._step_index = None
