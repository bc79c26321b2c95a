"""DDIM with the paper's thresholding."""

from diffusers.schedulers.scheduling_ddim import DDIMScheduler, DDIMSchedulerOutput
from torch import Generator, Tensor

from .swapping import ImagenSchedulerMixin
from .thresholded import thresholded_init


class ImagenDDIMScheduler(ImagenSchedulerMixin, DDIMScheduler):
    """Stock `DDIMScheduler`; thresholded x0 and its noise agree (stock keeps the noise of the x0 before thresholding).

    The arguments are the stock ones; `sample_max_value` is None by default, as in the paper: dynamic thresholding without a cap.
    """

    __init__ = thresholded_init(DDIMScheduler)

    def step(  # the arguments are diffusers'
        self,
        model_output: Tensor,
        timestep: int,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: Generator | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple:
        """As stock; `use_clipped_model_output` is on where x0 is thresholded, unless it is given."""
        if use_clipped_model_output is None:
            use_clipped_model_output = bool(self.config.thresholding or self.config.clip_sample)
        return super().step(model_output, timestep, sample, eta, use_clipped_model_output, generator, variance_noise, return_dict)
