"""diffusers' U-Net as DeepFloyd IF uses it, for sampling and training."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from imagen_diffusers.sampling.network import StageNetwork, adapt
from imagen_diffusers.text.encoding import TextEmbedding


class DeepFloydNetwork(StageNetwork):
    """diffusers' U-Net as DeepFloyd IF uses it: the enlarged image as more channels, its level as a class label, no mask.

    Enlarged bilinearly with aligned corners and noised by the cosine curve at a whole step, as in IFSuperResolutionPipeline. It was
    trained at whole timesteps alone.
    """

    module: UNet2DConditionModel

    def __init__(self, module: UNet2DConditionModel):
        super().__init__(module)
        found = module.config["in_channels"]
        if found not in (self.channels, 2 * self.channels):
            raise ValueError(
                f"{type(module).__name__} takes {found} channels; DeepFloyd IF's networks, as which it can be a stage, take "
                f"{self.channels}, a base, or {2 * self.channels}, a super-resolution stage"
            )

    @property
    def stride(self) -> int:
        return 2 ** (len(self.module.config["block_out_channels"]) - 1)

    @property
    def text_dim(self) -> int | None:
        return self.module.config["encoder_hid_dim"]

    @property
    def has_low_res(self) -> bool:
        return self.module.config["in_channels"] == 2 * self.channels

    def trained_at(self, timesteps: Tensor) -> Tensor:
        return timesteps.round()

    def condition(self, low_res: Tensor, noise: Tensor, noise_level: Tensor) -> Tensor:
        enlarged = F.interpolate(low_res, noise.shape[-2:], mode="bilinear", align_corners=True)
        return _noising_scheduler().add_noise(enlarged, noise, noise_level.long())  # pyright: ignore

    def arguments(self, text: TextEmbedding | None, low_res: Tensor | None, noise_level: Tensor | None) -> dict[str, Any]:
        condition: dict[str, Any] = {"encoder_hidden_states": None if text is None else text.embeds.to(self.dtype)}
        if low_res is not None and noise_level is not None:
            condition |= {"low_res": low_res, "class_labels": noise_level.long()}
        return condition

    def predict(self, sample: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Tensor:
        more = dict(arguments)
        if "low_res" in more:
            sample = torch.cat((sample, more.pop("low_res")), dim=1)
        return super().predict(sample, timestep, more)


adapt.register(UNet2DConditionModel, DeepFloydNetwork)


@cache
def _noising_scheduler() -> DDPMScheduler:
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2")
