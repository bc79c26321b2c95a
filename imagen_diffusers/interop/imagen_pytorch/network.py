"""imagen-pytorch's U-Net, for sampling and training."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from imagen_diffusers.sampling.network import StageNetwork, adapt
from imagen_diffusers.schedulers.noise import NUM_TRAIN_TIMESTEPS, q_sample
from imagen_diffusers.text.encoding import TextEmbedding

from .scheduling_lucidrains import curve_log_snr, time_of
from .unet_lucidrains import EDM, LucidrainsUNet2DConditionModel


class LucidrainsNetwork(StageNetwork):
    """A network of imagen-pytorch: time and level as log-SNR on its own curves, the condition enlarged and noised as there.

    One of its `ElucidatedImagen` is given EDM's times, which are the scheduler's timesteps, as they are.
    """

    module: LucidrainsUNet2DConditionModel

    @property
    def channels(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.module.config["channels"]

    @property
    def learns_variance(self) -> bool:
        return self.module.config["channels_out"] == 2 * self.channels

    @property
    def cond_channels(self) -> int:
        return self.module.config["cond_images_channels"]

    @property
    def self_conditioned(self) -> bool:
        return self.module.config["self_cond"]

    @property
    def preconditioned(self) -> bool:
        return self.module.config["noise_schedule"] == EDM

    def log_snr(self, table: Tensor, timesteps: Tensor) -> Tensor:
        return self._own_log_snr(timesteps).to(timesteps.device)

    def condition(self, low_res: Tensor, noise: Tensor, noise_level: Tensor) -> Tensor:
        mode = self.module.config["low_res_resize_mode"]
        enlarged = F.interpolate(low_res, noise.shape[-2:], mode=mode, **({} if mode == "nearest" else {"align_corners": False}))
        return q_sample(enlarged, noise, self._low_res_log_snr(noise_level))

    def arguments(self, text: TextEmbedding | None, low_res: Tensor | None, noise_level: Tensor | None) -> dict[str, Any]:
        condition: dict[str, Any] = {}
        if text is not None:
            condition = {"encoder_hidden_states": text.embeds.to(self.dtype), "encoder_attention_mask": text.mask}
            condition["drop_text"] = ~text.mask.any(1)
        if low_res is not None and noise_level is not None:
            condition |= {"low_res": low_res.to(self.dtype), "low_res_log_snr": self._low_res_log_snr(noise_level)}
        return condition

    def sized(self, cond_images: Tensor, height: int, width: int) -> Tensor:
        return F.interpolate(cond_images, (height, width), mode=self.module.config["resize_mode"]).to(self.dtype)

    def predict(self, sample: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Tensor:
        if not self.preconditioned:
            timestep = self._own_log_snr(timestep).to(sample.device)
        return super().predict(sample, timestep.expand(len(sample)), arguments)

    def _own_log_snr(self, timestep: Tensor) -> Tensor:
        """On the CPU."""
        return curve_log_snr(self.module.config["noise_schedule"], time_of(timestep))

    def _low_res_log_snr(self, noise_level: Tensor) -> Tensor:
        return curve_log_snr(self.module.config["low_res_noise_schedule"], noise_level / NUM_TRAIN_TIMESTEPS)


adapt.register(LucidrainsUNet2DConditionModel, LucidrainsNetwork)
