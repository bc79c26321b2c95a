"""The loss of one stage (Imagen, appendix A): noise a picture, ask the network, compare.

Knows networks and noise; no data, no optimizer, no pipeline.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from imagen_diffusers.models.unet import ConditionedUNet
from imagen_diffusers.schedulers.noise import alpha_sigma, augment, log_snr_at, q_sample, resize
from imagen_diffusers.schedulers.prediction import check_prediction_type, to_x0
from imagen_diffusers.text.t5 import TextEmbedding


@dataclass(frozen=True)
class LossSettings:
    """How a stage is trained.

    Args:
        prediction_type: what the network predicts, as in the scheduler.
        max_weight: errors are measured in v space, that is (x0 error)^2 weighted by 1 + SNR, up to this weight; beyond
            it nearly clean pictures would drown the rest.
        text_dropout: how often text is replaced by zeros, for guidance (section 2.2: 10 %).
        max_noise_level: augmentation levels are uniform in [0, this), one for each example (section 2.4).
    """

    prediction_type: str = "sample"
    max_weight: float = 50.0
    text_dropout: float = 0.1
    max_noise_level: float = 999.0

    def __post_init__(self) -> None:
        check_prediction_type(self.prediction_type)
        if not 0 <= self.text_dropout < 1:
            raise ValueError(f"text_dropout is {self.text_dropout}; it is a share in [0, 1)")
        if not 0 < self.max_noise_level <= 999:
            raise ValueError(f"max_noise_level is {self.max_noise_level}; it lies in (0, 999]")


def stage_loss(
    unet: ConditionedUNet | torch.nn.Module,
    pictures: Tensor,
    *,
    log_snr_table: Tensor,
    settings: LossSettings,
    generator: torch.Generator,
    text: TextEmbedding | None = None,
    low_res: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted squared error for each example, and the times drawn, both (B,).

    Args:
        unet: the stage's network.
        pictures: clean pictures (B, C, H, W) in [-1, 1].
        log_snr_table: the noise curve, from `schedulers.noise.log_snr_table`.
        settings: what is predicted and how errors are weighted.
        generator: all randomness of the step, on the pictures' device.
        text: embeddings and mask, before dropout.
        low_res: for super-resolution, the small pictures, not yet resized or augmented.
    """
    batch, like = len(pictures), {"device": pictures.device, "generator": generator}
    # Stratified: one time in each B-th of [0, 1), so that a small batch still sees all of them.
    times = (torch.rand(batch, **like) + torch.arange(batch, device=pictures.device)) / batch * (len(log_snr_table) - 1)
    log_snr = log_snr_at(log_snr_table.to(pictures.device), times)
    noisy = q_sample(pictures, torch.randn(pictures.shape, **like), log_snr)

    condition = {}
    if text is not None:
        keep = torch.rand(batch, **like) >= settings.text_dropout
        condition = {"encoder_hidden_states": text.embeds * keep[:, None, None], "encoder_attention_mask": text.mask}
    if low_res is not None:
        level = torch.rand(batch, **like) * settings.max_noise_level
        enlarged = resize(low_res, (pictures.shape[-2], pictures.shape[-1]))
        condition["low_res"] = augment(enlarged, level, torch.randn(enlarged.shape, **like))
        condition["noise_level"] = level

    output = unet(noisy, times, return_dict=False, **condition)[0].float()
    alpha, sigma = alpha_sigma(log_snr[:, None, None, None])
    x0 = to_x0(output, noisy, alpha, sigma, settings.prediction_type)
    weight = (1 + log_snr.exp()).clamp(max=settings.max_weight)
    return weight * (x0 - pictures).square().mean((1, 2, 3)), times
