"""DDIM with the paper's thresholding, from each time to the next one."""

from fractions import Fraction

from diffusers.schedulers.scheduling_ddim import DDIMScheduler, DDIMSchedulerOutput
from torch import Generator, Tensor

from .swapping import ImagenSchedulerMixin
from .thresholded import thresholded_init


class ImagenDDIMScheduler(ImagenSchedulerMixin, DDIMScheduler):
    """Stock `DDIMScheduler` but for two things: thresholded x0 and its noise agree, and a step ends where the next one begins.

    Stock keeps the noise of the x0 before thresholding, and goes back by `num_train_timesteps // num_inference_steps` wherever its times
    stand: under `linspace`, or in a number of steps that does not divide the timesteps, latents then have another level of noise than the
    network is told, and the finished image may have some left. Where both agree, so do all bits.

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
        """As stock, to the next of `timesteps`, and from the last to the image.

        `use_clipped_model_output` is on where x0 is thresholded, unless it is given.
        """
        if use_clipped_model_output is None:
            use_clipped_model_output = bool(self.config.thresholding or self.config.clip_sample)
        if self.num_inference_steps is None:
            raise ValueError("ImagenDDIMScheduler has no times yet; call set_timesteps first")
        later = self.timesteps[self.timesteps < timestep]
        gap = int(timestep) - (int(later.max()) if len(later) else -1)
        asked, self.num_inference_steps = self.num_inference_steps, Fraction(len(self), gap)  # stock goes back by len(self) // it
        try:
            return super().step(model_output, timestep, sample, eta, use_clipped_model_output, generator, variance_noise, return_dict)
        finally:
            self.num_inference_steps = asked
