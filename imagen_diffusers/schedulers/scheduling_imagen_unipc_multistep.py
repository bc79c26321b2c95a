"""UniPC with the paper's thresholding."""

from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from .swapping import ImagenSchedulerMixin


class ImagenUniPCMultistepScheduler(ImagenSchedulerMixin, UniPCMultistepScheduler):
    """Stock `UniPCMultistepScheduler`, which predicts x0 and so thresholds where the paper does."""
