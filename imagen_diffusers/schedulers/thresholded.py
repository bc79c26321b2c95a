"""A stock scheduler plus thresholding: what all of them share."""

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any

from diffusers.configuration_utils import register_to_config
from torch import Tensor

from .prediction import from_x0, to_x0
from .swapping import ImagenSchedulerMixin
from .thresholding import PAPER_RATIO, threshold

# Dynamic thresholding, if it is turned on, is the paper's: of its ratio, and without the cap of stock diffusers.
OPTIONS = {
    "thresholding": False,
    "dynamic_thresholding_ratio": PAPER_RATIO,
    "sample_max_value": None,
    "clip_sample": False,
    "clip_sample_range": 1.0,
}


def thresholded_init(stock: Any) -> Callable[..., None]:
    """An `__init__` for a subclass of a stock scheduler: all of its arguments, then those of `OPTIONS` that it lacks.

    diffusers saves and swaps a scheduler by the signature of its `__init__`, and so finds every option there.
    """
    theirs = inspect.signature(stock.__init__).parameters
    uncapped = [p.replace(default=None) if p.name == "sample_max_value" else p for p in theirs.values()]
    more = [Parameter(k, Parameter.POSITIONAL_OR_KEYWORD, default=v) for k, v in OPTIONS.items() if k not in theirs]
    signature = inspect.Signature([*uncapped, *more])
    # Without the stock decorator, which would register the stock arguments alone; `config` is this class's already.
    stock_init = stock.__init__.__wrapped__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        given = signature.bind(self, *args, **kwargs).arguments
        self._check_config()
        stock_init(**{name: value for name, value in given.items() if name in theirs})
        self._keep_on_swap()

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return register_to_config(__init__)


class ThresholdedSolverMixin(ImagenSchedulerMixin):
    """For multistep solvers, which all bring a network's output into the form they integrate by `convert_model_output`."""

    sigmas: Tensor
    step_index: int
    _sigma_to_alpha_sigma_t: Callable[[Tensor], tuple[Tensor, Tensor]]

    @property
    def _integrates_noise(self) -> bool:
        """Whether that form is the noise and not x0."""
        return False

    def convert_model_output(self, model_output: Tensor, *args: Any, sample: Tensor, **kwargs: Any) -> Tensor:
        """As stock, of the thresholded x0.

        Args:
            model_output: the network's (B, C, H, W).
            sample: the noisy image (B, C, H, W).
        """
        converted = super().convert_model_output(model_output, *args, sample=sample, **kwargs)  # type: ignore[misc]
        if not self._integrates_noise:
            return threshold(converted, self.config)
        if not (self.config.thresholding or self.config.clip_sample):
            return converted
        alpha, sigma = self._sigma_to_alpha_sigma_t(self.sigmas[self.step_index])
        x0 = threshold(to_x0(converted, sample, alpha, sigma, "epsilon"), self.config)
        return from_x0(x0, sample, alpha, sigma, "epsilon")

    def _threshold_sample(self, sample: Tensor) -> Tensor:
        """Nothing: stock calls it for some of its options and not for others, `convert_model_output` thresholds for all of them."""
        return sample
