"""DDIM with the paper's thresholding."""

from typing import Any

from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from .swapping import ImagenSchedulerMixin


class ImagenDDIMScheduler(ImagenSchedulerMixin, DDIMScheduler):
    """Stock `DDIMScheduler`; thresholded x0 and its noise agree (stock keeps the noise of the x0 before thresholding)."""

    def step(
        self, model_output: Tensor, timestep: int, sample: Tensor, eta: float = 0.0, use_clipped_model_output: bool = True, **kwargs: Any
    ):
        """As stock, with `use_clipped_model_output` on."""
        return super().step(model_output, timestep, sample, eta=eta, use_clipped_model_output=use_clipped_model_output, **kwargs)
