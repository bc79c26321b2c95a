"""What a network predicts, and how one prediction becomes another. Pure functions of tensors.

With z = alpha x0 + sigma eps: "epsilon" is eps (Imagen, equation 2), "sample" is x0, and "v_prediction" is
v = alpha eps - sigma x0 (Salimans and Ho, 2022; used from Imagen Video on).
"""

from torch import Tensor

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def check_prediction_type(prediction_type: str, of: str = "") -> None:
    """A `ValueError` for one that no network has; `of` names the scheduler that says it."""
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f'{of and f"{of}: "}prediction_type="{prediction_type}" is unknown; use one of {", ".join(PREDICTION_TYPES)}')


def to_x0(output: Tensor, sample: Tensor, alpha: Tensor, sigma: Tensor, prediction_type: str) -> Tensor:
    """A network's output at z = `sample` as the clean image it implies."""
    if prediction_type == "epsilon":
        return (sample - sigma * output) / alpha
    if prediction_type == "v_prediction":
        return alpha * sample - sigma * output
    return output


def from_x0(x0: Tensor, sample: Tensor, alpha: Tensor, sigma: Tensor, prediction_type: str) -> Tensor:
    """The inverse of `to_x0`: what a network that saw this clean image would have said."""
    if prediction_type == "epsilon":
        return (sample - alpha * x0) / sigma
    if prediction_type == "v_prediction":
        return (alpha * sample - x0) / sigma
    return x0


def target(x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, prediction_type: str) -> Tensor:
    """What the network should say, in training."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return alpha * noise - sigma * x0
    return x0
