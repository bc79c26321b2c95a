"""DPM-Solver++ multistep with the paper's thresholding."""

from typing import Any

from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from .thresholded import ThresholdedSolverMixin, thresholded_init


class ImagenDPMSolverMultistepScheduler(ThresholdedSolverMixin, DPMSolverMultistepScheduler):
    """Stock `DPMSolverMultistepScheduler`, thresholded where the paper does it: on x0.

    The arguments are the stock ones, with `clip_sample` and `clip_sample_range` (static thresholding) after them;
    `sample_max_value` is None by default, as in the paper: dynamic thresholding without a cap.
    """

    __init__ = thresholded_init(DPMSolverMultistepScheduler)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """diffusers' hook behind `from_config`. DEIS writes a word of its own over `algorithm_type`; it means the default here."""
        if config_dict.get("algorithm_type") == "deis":
            config_dict = {**config_dict, "algorithm_type": "dpmsolver++"}
        return super().extract_init_dict(config_dict, **kwargs)

    @property
    def _integrates_noise(self) -> bool:
        return self.config.algorithm_type in ("dpmsolver", "sde-dpmsolver")
