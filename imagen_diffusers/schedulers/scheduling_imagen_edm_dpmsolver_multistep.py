"""DPM-Solver++ multistep for networks under EDM's preconditioning, with the paper's thresholding."""

from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler

from .thresholded import ThresholdedSolverMixin, thresholded_init


class ImagenEDMDPMSolverMultistepScheduler(ThresholdedSolverMixin, EDMDPMSolverMultistepScheduler):
    """Stock `EDMDPMSolverMultistepScheduler`; for networks of imagen-pytorch's `ElucidatedImagen`, and no other.

    The arguments are the stock ones, with `clip_sample` and `clip_sample_range` (static thresholding) after them;
    `sample_max_value` is None by default, as in the paper: dynamic thresholding without a cap.
    """

    __init__ = thresholded_init(EDMDPMSolverMultistepScheduler)
