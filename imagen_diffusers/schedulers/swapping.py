"""What must survive `X.from_config(y.config)`: the noise curve, the prediction type and the thresholding.

Plain diffusers drops every value the other scheduler had left at its default, and so falls back to the new class's
defaults: another curve, without a word. The mixin keeps these values in both directions, and replaces the stock
thresholding (capped at 1.0 by default, which is plain clipping) by the paper's.
"""

from typing import Any

from torch import Tensor

from .thresholding import dynamic_threshold

KEPT = frozenset(
    {
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "prediction_type",
        "thresholding",
        "dynamic_thresholding_ratio",
        "sample_max_value",
        "clip_sample",
        "clip_sample_range",
    }
)


class ImagenSchedulerMixin:
    """First base of every Imagen scheduler; put it before the stock class."""

    config: Any

    def _keep_on_swap(self) -> None:
        """Call at the end of an `__init__` whose defaults differ from the stock ones."""
        dropped = self.config.get("_use_default_values") or []
        self.register_to_config(_use_default_values=[k for k in dropped if k not in KEPT])  # type: ignore[attr-defined]

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """diffusers' hook behind `from_config`: take the kept values even where the other scheduler had its defaults.

        Raises:
            ValueError: between EDM's preconditioning, which has no betas, and a curve of betas: neither can be told by the other.
        """
        taken = cls._get_init_keys(cls)  # type: ignore[attr-defined]
        told_by, other = ("sigma_data", "beta_schedule") if "sigma_data" in taken else ("beta_schedule", "sigma_data")
        if other in config_dict and told_by not in config_dict:
            raise ValueError(
                f"{cls.__name__} is for networks trained under a scheduler with `{told_by}`; the config it was given has `{other}` "
                "instead. A curve of betas and EDM's preconditioning cannot be swapped: take a scheduler of the same kind."
            )
        dropped = [k for k in config_dict.get("_use_default_values", []) if k not in KEPT]
        return super().extract_init_dict({**config_dict, "_use_default_values": dropped}, **kwargs)  # type: ignore[misc]

    def _threshold_sample(self, sample: Tensor) -> Tensor:
        """Stock solvers call this on x0; here it is the paper's (section 2.3), exact and at any size."""
        c = self.config
        return dynamic_threshold(sample, c.dynamic_thresholding_ratio, c.sample_max_value)
