"""Which noise levels a step trains on."""

import torch
from torch import Tensor

TIME_SAMPLINGS = ("uniform", "stratified", "logit_normal")


def draw_times(count: int, time_sampling: str, generator: torch.Generator, *, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Times (count,) in [0, 1), on the generator's device.

    - ``"uniform"``: each on its own (Imagen, appendix A);
    - ``"stratified"``: one in each count-th of [0, 1), so that a small batch still sees all of them (Variational Diffusion
      Models, appendix I.1, without its evenly spaced offsets);
    - ``"logit_normal"``: the sigmoid of a normal, more in the middle (Stable Diffusion 3, equation 19).

    Args:
        mean, std: of the logit, for "logit_normal"; a positive mean favours noise.
    """
    like = {"device": generator.device, "generator": generator}
    if time_sampling == "logit_normal":
        return (mean + std * torch.randn(count, **like)).sigmoid()
    times = torch.rand(count, **like)
    return (times + torch.arange(count, device=times.device)) / count if time_sampling == "stratified" else times


def check_time_sampling(time_sampling: str) -> None:
    if time_sampling not in TIME_SAMPLINGS:
        raise ValueError(f'time_sampling="{time_sampling}" is unknown; use one of {", ".join(TIME_SAMPLINGS)}')
