"""The loss of one stage (Imagen, equation 1 and appendix A): noise an image, ask the network, compare.

Knows networks and noise; no data, no optimizer, no pipeline. What is random comes in as `Draws`, so that the loss itself is
a plain function, and the same examples give the same losses on any number of processes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.schedulers.noise import alpha_sigma, q_sample
from imagen_diffusers.schedulers.prediction import check_prediction_type, target
from imagen_diffusers.text.encoding import TextEmbedding, pad_together

from .distillation import guided
from .network import with_cond_images
from .seeds import seed_of
from .times import TimeSampling, check_time_sampling, draw_times
from .weighting import CAP, CAPPED, RunningError, Weighting, check_weighting, output_weight

LossType = Literal["l2", "l1", "huber"]
LOSS_TYPES = get_args(LossType)


@dataclass(frozen=True)
class LossSettings:
    """How a stage is trained. Field names are the flags of the example scripts."""

    prediction_type: str | None = field(
        default=None, metadata={"help": "What the network predicts: epsilon, v_prediction or sample; what its scheduler says by default."}
    )
    loss_type: LossType = field(
        default="l2", metadata={"help": "How an error of a pixel counts: squared, by its size, or, near huber_c, from one to the other."}
    )
    huber_c: float = field(default=0.1, metadata={"help": "Where the pseudo-Huber loss turns linear; images are in [-1, 1]."})
    weighting: Weighting = field(
        default="uniform", metadata={"help": "How much an error counts at each noise level; training/weighting.py has the formulas."}
    )
    snr_gamma: float | None = field(
        default=None, metadata={"help": f"Cap of the weightings {', '.join(CAPPED)}; {CAP:g} by default. Others take none."}
    )
    time_sampling: TimeSampling = field(default="stratified", metadata={"help": "Which noise levels are trained on."})
    logit_mean: float = field(default=0.0, metadata={"help": "For logit_normal times; above 0 favours noise."})
    logit_std: float = field(default=1.0, metadata={"help": "For logit_normal times."})
    log_snr_mean: float = field(default=-1.0, metadata={"help": "For log_snr_normal times; above 0 favours detail."})
    log_snr_std: float = field(default=2.6, metadata={"help": "For log_snr_normal times."})
    text_dropout: float = field(
        default=0.1, metadata={"help": "How often text is replaced by the checkpoint's null text, for guidance (section 2.2: 0.1)."}
    )
    max_noise_level: float = field(
        default=999.0, metadata={"help": "Augmentation levels are uniform in [0, this), one for each example (section 2.4)."}
    )
    noise_offset: float = field(default=0.0, metadata={"help": "Standard deviation of one more noise value a channel; 0 is off."})
    droplet_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of a penalty on places of the features that outshine all others, see training/droplets.py; 0 is off."},
    )
    distilled_guidance = None  # learns from images

    def __post_init__(self) -> None:
        if self.prediction_type is not None:
            check_prediction_type(self.prediction_type)
        if self.loss_type not in LOSS_TYPES:
            raise ValueError(f'loss_type="{self.loss_type}" is unknown; use one of {", ".join(LOSS_TYPES)}')
        if not 0 < self.huber_c <= 1e6:
            raise ValueError(f"huber_c is {self.huber_c}; it is the size of an error, above 0 and at most 1e6")
        check_weighting(self.weighting, self.snr_gamma, self.prediction_type)
        check_time_sampling(self.time_sampling)
        if not 0 <= self.text_dropout < 1:
            raise ValueError(f"text_dropout is {self.text_dropout}; it is a share in [0, 1)")
        if not 0 < self.max_noise_level <= 999:
            raise ValueError(f"max_noise_level is {self.max_noise_level}; it lies in (0, 999]")
        for name in ("logit_std", "log_snr_std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a standard deviation, above 0")
        if self.noise_offset < 0:
            raise ValueError(f"noise_offset is {self.noise_offset}; it is a standard deviation, 0 for none")
        if not 0 <= self.droplet_weight < math.inf:
            raise ValueError(f"droplet_weight is {self.droplet_weight}; it is the weight of a penalty, 0 for none")

    @property
    def cap(self) -> float:
        """Of the weighting, where it has one."""
        return CAP if self.snr_gamma is None else self.snr_gamma


@dataclass(frozen=True)
class DistillationSettings(LossSettings):
    """The loss of an adapter that learns what guidance of a scale does, in place of what images show; see `distillation.py`."""

    distilled_guidance: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.distilled_guidance > 1:
            raise ValueError(f"distilled_guidance is {self.distilled_guidance}; it is a guidance scale above 1, where guidance begins")


@dataclass(frozen=True)
class Draws:
    """All that is random in a batch of B examples.

    Args:
        times: (B,) in [0, 1), the noise level of each image.
        noise: (B, C, H, W), standard normal.
        text: (B,) in [0, 1); text is dropped where it is below `text_dropout`.
        level: (B,) in [0, 1), the augmentation level of each condition.
        low_res_noise: (B, C, H, W), standard normal.
    """

    times: Tensor
    noise: Tensor
    text: Tensor
    level: Tensor
    low_res_noise: Tensor


def draw(
    shape: Sequence[int],
    positions: range,
    whole: range,
    settings: LossSettings,
    *,
    seed: int,
    device: torch.device,
    log_snr_table: Tensor | None = None,
) -> Draws:
    """What is random for the examples at `positions` of a run: a function of the seed and the position alone.

    Args:
        shape: (C, H, W) of the images.
        positions: of this batch's examples, counted from the start of the run.
        whole: of all examples of this step, over all processes and accumulated batches.
        settings: how times are drawn and whether noise has an offset.
        seed: the run's.
        device: where the tensors live and are drawn.
        log_snr_table: the noise curve, for times by log-SNR.
    """
    # Times are drawn together, since stratified ones depend on each other; they are B numbers, drawn alike everywhere.
    step = torch.Generator().manual_seed(seed_of(seed, whole.start, 1))
    by_log_snr = settings.time_sampling == "log_snr_normal"
    mean, std = (settings.log_snr_mean, settings.log_snr_std) if by_log_snr else (settings.logit_mean, settings.logit_std)
    times = draw_times(len(whole), settings.time_sampling, step, mean=mean, std=std, log_snr_table=log_snr_table)
    own = [torch.Generator(device).manual_seed(seed_of(seed, p, 2)) for p in positions]
    batch_shape = (len(own), *shape)
    noise = randn_tensor(batch_shape, generator=own, device=device)
    if settings.noise_offset:
        noise = noise + settings.noise_offset * randn_tensor((len(own), shape[0], 1, 1), generator=own, device=device)
    text, level = torch.stack([torch.rand(2, generator=g, device=device) for g in own], dim=1)
    low_res_noise = randn_tensor(batch_shape, generator=own, device=device)
    return Draws(times[positions.start - whole.start : positions.stop - whole.start].to(device), noise, text, level, low_res_noise)


class StageLoss(NamedTuple):
    """Of each example of a batch, (B,): its loss, its log-SNR, and its error before the noise level is weighed."""

    losses: Tensor
    log_snr: Tensor
    errors: Tensor


def stage_loss(
    network: StageNetwork,
    images: Tensor,
    *,
    draws: Draws,
    log_snr_table: Tensor,
    settings: LossSettings,
    text: TextEmbedding | None = None,
    null_text: TextEmbedding | None = None,
    low_res: Tensor | None = None,
    cond_images: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    running: RunningError | None = None,
) -> StageLoss:
    """Weighted error for each example: of what the network predicts, and where it is taught by itself also of a variance that it learned.

    Args:
        network: the stage's, by its adapter.
        images: clean images (B, C, H, W) in [-1, 1].
        draws: all that is random.
        log_snr_table: the noise curve, from `schedulers.noise.log_snr_table`.
        settings: what is predicted and how errors are weighted.
        text: embeddings and mask, before dropout.
        null_text: one row that stands for no text; None for zeros, as in the paper.
        low_res: for super-resolution, the small images, not yet resized or augmented.
        cond_images: for a network conditioned on images (B, c, h, w), in [0, 1] as in sampling.
        pixel_weight: how much each pixel's error counts (B, H, W); None for 1.
        running: the errors of late, for the weighting "running".
    """
    assert settings.prediction_type is not None, "whoever knows the scheduler sets it"
    table = log_snr_table.to(images.device)
    times = network.trained_at(draws.times * (len(table) - 1))
    log_snr = network.log_snr(table, times)
    noisy = q_sample(images, draws.noise, log_snr)

    level = draws.level * settings.max_noise_level
    if low_res is not None:
        low_res = network.condition(low_res, draws.low_res_noise, level)

    def predict(dropped: Tensor) -> Tensor:
        told = None if text is None else drop_text(text, null_text, dropped)
        arguments = with_cond_images(network, network.arguments(told, low_res, level), cond_images, images)
        return network.predict(noisy, times, arguments)

    dropped = draws.text < settings.text_dropout
    if settings.distilled_guidance is None:
        alpha, sigma = alpha_sigma(log_snr[:, None, None, None])
        wanted = target(images, draws.noise, alpha, sigma, settings.prediction_type)
    else:
        wanted = guided(network, predict, dropped, settings.distilled_guidance)
    counted = pixel_errors(predict(dropped)[:, : wanted.shape[1]] - wanted, settings)
    errors = (counted if pixel_weight is None else counted * pixel_weight[:, None]).mean((1, 2, 3))
    if settings.weighting == "running":
        assert running is not None
        weight = running.weight(log_snr)
    else:
        by_time = settings.weighting == "sigmoid" and settings.time_sampling != "log_snr_normal"
        slope = _slope(table, times) if by_time else None
        weight = output_weight(log_snr, settings.weighting, settings.cap, settings.prediction_type, slope)
    return StageLoss(weight * errors, log_snr, errors)


def pixel_errors(difference: Tensor, settings: LossSettings) -> Tensor:
    """What each pixel's difference counts, of any shape.

    Huber's is the pseudo-Huber loss as diffusers' scripts have it, 2 c (sqrt(d^2 + c^2) - c): d^2 for small d, 2 c |d| for large ones. The
    squared error hardly sees grain on plain surfaces beside errors at edges; this one does.
    """
    if settings.loss_type == "l2":
        return difference.square()
    if settings.loss_type == "l1":
        return difference.abs()
    c = settings.huber_c
    return 2 * difference.square() * (c / ((difference.square() + c * c).sqrt() + c))  # without the cancellation of the difference


def drop_text(text: TextEmbedding, null_text: TextEmbedding | None, dropped: Tensor) -> TextEmbedding:
    """Text with the rows where `dropped` (B,) holds replaced by no text: zeros under the same mask, or `null_text`'s one row."""
    if null_text is None:
        return TextEmbedding(text.embeds * ~dropped[:, None, None], text.mask)
    text, null_text = pad_together(text, null_text)
    embeds = torch.where(dropped[:, None, None], null_text.embeds.to(text.embeds), text.embeds)
    return TextEmbedding(embeds, torch.where(dropped[:, None], null_text.mask, text.mask))


def _slope(table: Tensor, times: Tensor) -> Tensor:
    """|d log-SNR / dt| of the curve's straight pieces, with t in [0, 1]."""
    low = times.floor().long().clamp(0, len(table) - 2)
    return (table[low] - table[low + 1]).abs() * (len(table) - 1)
