"""Which noise levels a step trains on."""

from typing import Literal, get_args

import torch
from torch import Tensor

from imagen_diffusers.schedulers.noise import timestep_at

TimeSampling = Literal["uniform", "stratified", "logit_normal", "log_snr_normal"]
TIME_SAMPLINGS = get_args(TimeSampling)


def draw_times(
    count: int, time_sampling: str, generator: torch.Generator, *, mean: float = 0.0, std: float = 1.0, log_snr_table: Tensor | None = None
) -> Tensor:
    """Times (count,) in [0, 1), on the generator's device.

    - ``"uniform"``: each on its own (Imagen, appendix A);
    - ``"stratified"``: one in each count-th of [0, 1), so that a small batch still sees all of them (Variational Diffusion
      Models, appendix I.1, without its evenly spaced offsets), in any order: whatever stands first in a step meets every level in time;
    - ``"logit_normal"``: the sigmoid of a normal, more in the middle (Stable Diffusion 3, equation 19);
    - ``"log_snr_normal"``: the times whose log-SNR is normal, as EDM trains (Karras et al., 2022, table 1), one in each count-th of
      the distribution. So which noise levels are trained on does not depend on the curve that is sampled along.

    Args:
        mean, std: of the logit or the log-SNR; a positive mean favours noise for the one, detail for the other.
        log_snr_table: the noise curve, for "log_snr_normal".
    """
    like = {"device": generator.device, "generator": generator}
    if time_sampling == "logit_normal":
        return (mean + std * torch.randn(count, **like)).sigmoid()
    times = torch.rand(count, **like)
    if time_sampling == "uniform":
        return times
    times = (times + torch.randperm(count, **like)) / count
    if time_sampling == "stratified":
        return times
    assert log_snr_table is not None
    log_snr = mean + std * torch.special.ndtri(times.double()).float()
    return timestep_at(log_snr_table.to(times.device), log_snr) / (len(log_snr_table) - 1)


def check_time_sampling(time_sampling: str) -> None:
    if time_sampling not in TIME_SAMPLINGS:
        raise ValueError(f'time_sampling="{time_sampling}" is unknown; use one of {", ".join(TIME_SAMPLINGS)}')
