"""DPM-Solver++ multistep for networks under EDM's preconditioning, with the paper's thresholding."""

from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler

from .swapping import ImagenSchedulerMixin


class ImagenEDMDPMSolverMultistepScheduler(ImagenSchedulerMixin, EDMDPMSolverMultistepScheduler):
    """Stock `EDMDPMSolverMultistepScheduler`; for networks of imagen-pytorch's `ElucidatedImagen`, and no other."""
