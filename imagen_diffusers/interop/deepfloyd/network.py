"""diffusers' U-Net as DeepFloyd IF uses it, for the denoising loop."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from imagen_diffusers.sampling.network import StageNetwork, adapt, filled
from imagen_diffusers.schedulers.precision import standard_normal
from imagen_diffusers.text.t5 import TextEmbedding


class DeepFloydNetwork(StageNetwork):
    """diffusers' U-Net as DeepFloyd IF uses it: the enlarged image as more channels, its level as a class label, no mask.

    Enlarged bilinearly with aligned corners and noised by the cosine curve at a whole step, as in IFSuperResolutionPipeline.
    """

    module: UNet2DConditionModel

    @property
    def stride(self) -> int:
        return 2 ** (len(self.module.config["block_out_channels"]) - 1)

    @property
    def text_dim(self) -> int | None:
        return self.module.config["encoder_hid_dim"]

    @property
    def has_low_res(self) -> bool:
        return self.module.config["in_channels"] == 2 * self.channels

    def condition(self, low_res: Tensor, size: tuple[int, int], noise_level: float, generators: list[torch.Generator]) -> Tensor:
        enlarged = F.interpolate(low_res, size, mode="bilinear", align_corners=True)
        noise = standard_normal(enlarged.shape, generators, enlarged.device, enlarged.dtype)
        return _noising_scheduler().add_noise(enlarged, noise, filled(enlarged, noise_level).long())  # pyright: ignore

    def arguments(self, text: TextEmbedding | None, low_res: Tensor | None, noise_level: float) -> dict[str, Any]:
        condition: dict[str, Any] = {"encoder_hidden_states": None if text is None else text.embeds.to(self.dtype)}
        if low_res is not None:
            condition |= {"low_res": low_res, "class_labels": filled(low_res, noise_level).long()}
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
