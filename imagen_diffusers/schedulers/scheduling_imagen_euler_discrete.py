"""Euler with the paper's thresholding, which stock Euler accepts in its config and ignores."""

from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor

from .driving import threshold_output
from .swapping import ImagenSchedulerMixin
from .thresholding import PAPER_RATIO


class ImagenEulerDiscreteScheduler(ImagenSchedulerMixin, EulerDiscreteScheduler):
    """Stock `EulerDiscreteScheduler` with `thresholding`, `dynamic_thresholding_ratio` and `sample_max_value`.

    The other arguments are the stock ones.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "linspace",
        use_karras_sigmas: bool = False,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = PAPER_RATIO,
        sample_max_value: float | None = None,
    ):
        super().__init__(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
            prediction_type=prediction_type,
            timestep_spacing=timestep_spacing,  # pyright: ignore[reportArgumentType]
            use_karras_sigmas=use_karras_sigmas,
        )
        self._keep_on_swap()

    def step(self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, **kwargs: Any):
        """As stock, on a thresholded prediction."""
        if self.config.thresholding:
            model_output = threshold_output(self, model_output, timestep, sample)
        return super().step(model_output, timestep, sample, **kwargs)
