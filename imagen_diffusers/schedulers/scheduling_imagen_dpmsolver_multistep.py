"""DPM-Solver++ multistep with the paper's thresholding."""

from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from .swapping import ImagenSchedulerMixin


class ImagenDPMSolverMultistepScheduler(ImagenSchedulerMixin, DPMSolverMultistepScheduler):
    """Stock `DPMSolverMultistepScheduler`, which predicts x0 and so thresholds where the paper does."""
