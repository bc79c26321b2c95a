"""UniPC with the paper's thresholding."""

from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from .thresholded import ThresholdedSolverMixin, thresholded_init


class ImagenUniPCMultistepScheduler(ThresholdedSolverMixin, UniPCMultistepScheduler):
    """Stock `UniPCMultistepScheduler`, thresholded where the paper does it: on x0, with `predict_x0=False` as well.

    The arguments are the stock ones, with `clip_sample` and `clip_sample_range` (static thresholding) after them;
    `sample_max_value` is None by default, as in the paper: dynamic thresholding without a cap.
    """

    __init__ = thresholded_init(UniPCMultistepScheduler)

    @property
    def _integrates_noise(self) -> bool:
        return not self.predict_x0
