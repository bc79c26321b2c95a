"""How much an error counts at each noise level: one table of weightings, for every kind of prediction.

A weighting is a function of the log-SNR for the error of the clean image, (x0 error)^2. What the network predicts only
changes the unit its own error is measured in (Salimans and Ho, 2022, section 4):

    (x0 error)^2 = (epsilon error)^2 / SNR = (v error)^2 / (1 + SNR)
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

Weighting = Literal["uniform", "truncated_v", "min_snr", "soft_min_snr", "sigmoid", "running", "by_prediction"]
WEIGHTINGS = get_args(Weighting)
CAP = 5.0  # by custom (Hang et al., 2023)


def output_weight(log_snr: Tensor, weighting: str, gamma: float, prediction_type: str, log_snr_slope: Tensor | None = None) -> Tensor:
    """The factor (B,) of the squared error of the network's own output.

    - ``"uniform"``: 1, whatever is predicted (Imagen, appendix A, with epsilon);
    - ``"truncated_v"``: (x0 error)^2 min(1 + SNR, gamma), the v error up to a cap on nearly clean images;
    - ``"min_snr"``: (x0 error)^2 min(SNR, gamma) (Hang et al., 2023, equation 6);
    - ``"soft_min_snr"``: (x0 error)^2 / (1 / SNR + 1 / gamma) (Crowson et al., 2024);
    - ``"sigmoid"``: (epsilon error)^2 sigmoid(log gamma - log-SNR) |d log-SNR / dt|, t in [0, 1] (Kingma and Gao, 2023; simpler
      diffusion, equation 9, with the bias b = log gamma): soft min-SNR on a noise curve that no longer matters. Where levels are
      chosen by their log-SNR, and not by t, the curve does not matter as it is, and the slope is left out;
    - ``"by_prediction"``: "truncated_v", but "uniform" where noise is predicted, whose factor would grow without end towards pure noise.

    "running" depends on the run and is no function of the log-SNR alone: see `RunningError`.

    Args:
        log_snr: (B,).
        gamma: the cap, where there is one.
        prediction_type: "epsilon", "v_prediction" or "sample".
        log_snr_slope: |d log-SNR / dt| (B,), for "sigmoid" of times.
    """
    if weighting == "by_prediction":
        weighting = "uniform" if prediction_type == "epsilon" else "truncated_v"
    if weighting == "uniform":
        return torch.ones_like(log_snr)
    weight = _X0_WEIGHTS[weighting](log_snr, gamma)
    if log_snr_slope is not None:
        weight = weight * log_snr_slope
    return weight / _UNITS[prediction_type](log_snr)


class RunningError:
    """Each noise level counts one over its own error of late, so that all levels count alike: the weighting "running".

    It is what EDM2 learns by a network of its own (Karras et al., 2024, section 2.2), here as a mean in each of `BINS` bins of log-SNR.
    The unit of the error is of no account, and so is what the network predicts. The mean over all levels scales the weights, so that
    losses stay as large as they are.
    """

    LOW, HIGH, BINS = -10.0, 10.0, 40
    DECAY = 0.97  # an example

    def __init__(self) -> None:
        self.errors = torch.zeros(self.BINS)  # zero where there was none so far

    def weight(self, log_snr: Tensor) -> Tensor:
        """The factor (B,) of the squared error of the network's own output at log-SNR (B,); 1 before the first update."""
        known = self.errors > 0
        if not known.any():
            return torch.ones_like(log_snr)
        mean = self.errors[known].mean()
        errors = torch.where(known, self.errors, mean)
        return (mean / errors)[self._bins(log_snr)].to(log_snr)

    def update(self, log_snr: Tensor, errors: Tensor) -> None:
        """Take in the errors (B,) of a step, unweighted, of all processes; those that are not finite are left out."""
        finite = errors.isfinite()
        bins, errors = self._bins(log_snr[finite]), errors[finite].float().cpu()
        count = torch.bincount(bins, minlength=self.BINS)
        mean = torch.bincount(bins, errors, minlength=self.BINS) / count.clamp(min=1)
        keep = torch.where(self.errors > 0, self.DECAY**count, 0.0)
        self.errors = torch.where(count > 0, torch.lerp(mean, self.errors, keep), self.errors)

    def state_dict(self) -> dict[str, Tensor]:
        return {"errors": self.errors}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.errors = state["errors"]

    def _bins(self, log_snr: Tensor) -> Tensor:
        place = (log_snr.float().cpu() - self.LOW) / (self.HIGH - self.LOW) * self.BINS
        return place.long().clamp(0, self.BINS - 1)


def check_weighting(weighting: str, gamma: float | None, prediction_type: str | None = None) -> None:
    """Refuse, by a `ValueError`, a weighting that is none, and a cap, None where none was given, that is none or would not be read.

    Args:
        prediction_type: where it is known; "by_prediction" reads a cap unless it is "epsilon".
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f'weighting="{weighting}" is unknown; use one of {", ".join(WEIGHTINGS)}')
    if gamma is None:
        return
    if not gamma > 0:
        raise ValueError(f"snr_gamma is {gamma}; it is a positive cap, {CAP:g} by custom")
    of_noise = weighting == "by_prediction" and prediction_type == "epsilon"
    if of_noise or weighting not in (*CAPPED, "by_prediction"):
        where = " where noise is predicted" if of_noise else ""
        raise ValueError(
            f'snr_gamma is {gamma}, and weighting is "{weighting}", which takes no cap{where}; set weighting to min_snr, which is what '
            f"snr_gamma switches on in diffusers' scripts, or to another of {', '.join(CAPPED)}, or leave snr_gamma out"
        )


def _soft_min_snr(log_snr: Tensor, gamma: float) -> Tensor:
    return 1 / ((-log_snr).exp() + 1 / gamma)


_X0_WEIGHTS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "truncated_v": lambda log_snr, gamma: (1 + log_snr.exp()).clamp(max=gamma),
    "min_snr": lambda log_snr, gamma: log_snr.exp().clamp(max=gamma),
    "soft_min_snr": _soft_min_snr,
    "sigmoid": _soft_min_snr,  # SNR sigmoid(log gamma - log-SNR), written out
}
CAPPED = tuple(_X0_WEIGHTS)  # the weightings that read a cap which is given
_UNITS: dict[str, Callable[[Tensor], Tensor]] = {
    "sample": torch.ones_like,
    "epsilon": lambda log_snr: log_snr.exp(),
    "v_prediction": lambda log_snr: 1 + log_snr.exp(),
}
