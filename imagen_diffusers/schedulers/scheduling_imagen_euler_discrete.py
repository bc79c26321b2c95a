"""Euler with the paper's thresholding, which stock Euler accepts in its config and ignores."""

from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler, EulerDiscreteSchedulerOutput
from torch import Generator, Tensor

from .swapping import ImagenSchedulerMixin
from .thresholded import thresholded_init
from .thresholding import threshold


class ImagenEulerDiscreteScheduler(ImagenSchedulerMixin, EulerDiscreteScheduler):
    """Stock `EulerDiscreteScheduler` with thresholding.

    The arguments are the stock ones, and after them `thresholding`, `dynamic_thresholding_ratio`, `sample_max_value`,
    `clip_sample` and `clip_sample_range`, as stock `DDIMScheduler` has them.
    """

    __init__ = thresholded_init(EulerDiscreteScheduler)

    def step(  # the arguments are diffusers'
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = float("inf"),
        s_noise: float = 1.0,
        generator: Generator | None = None,
        return_dict: bool = True,
    ) -> EulerDiscreteSchedulerOutput | tuple:
        """As stock, from the thresholded x0.

        Stock Euler goes from z at sigma_hat (sigma, raised by `s_churn`) to z + (z - x0) (sigma_next - sigma_hat) / sigma_hat, where
        x0 stands with the factor 1 - sigma_next / sigma_hat; so much of what thresholding changes in x0 is added to its result.
        """
        previous, predicted = super().step(model_output, timestep, sample, s_churn, s_tmin, s_tmax, s_noise, generator, return_dict=False)
        if self.config.thresholding or self.config.clip_sample:
            x0 = threshold(predicted, self.config)
            sigma, sigma_next = self.sigmas[self.step_index - 1], self.sigmas[self.step_index]
            churn = min(s_churn / (len(self.sigmas) - 1), 2**0.5 - 1) if s_tmin <= sigma <= s_tmax else 0.0
            change = (1 - sigma_next / (sigma * (1 + churn))) * (x0 - predicted)
            previous, predicted = (previous + change).to(previous.dtype), x0
        return EulerDiscreteSchedulerOutput(previous, predicted) if return_dict else (previous, predicted)
