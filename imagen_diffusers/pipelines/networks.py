"""What the denoising loop asks of a network, and the adapters that answer for each kind of it.

The loop never asks what it holds: a network of this package and one of DeepFloyd IF take their conditions in different ways and
were trained on differently made ones, and that is said here, once each.
"""

from abc import ABC, abstractmethod
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils.torch_utils import is_compiled_module
from torch import Tensor

from imagen_diffusers.models.unet import ConditionedUNet
from imagen_diffusers.models.unet_imagen_pytorch import EDM, ImagenPytorchUNet2DConditionModel
from imagen_diffusers.schedulers.noise import NUM_TRAIN_TIMESTEPS, augment, q_sample, resize
from imagen_diffusers.schedulers.precision import at_least_float32, standard_normal
from imagen_diffusers.schedulers.scheduling_imagen_pytorch import curve_log_snr, time_of
from imagen_diffusers.text.t5 import TextEmbedding


class StageNetwork(ABC):
    """A network as the loop sees it. Letters in shapes: B pictures, C channels, L tokens.

    Args:
        module: the network itself.
    """

    channels = 3

    def __init__(self, module: Any):
        self.module = module

    @property
    def compiled(self) -> bool:
        """Whether it runs compiled graphs, which fit one shape each: by `module.compile()` or `torch.compile(module)`."""
        return is_compiled_module(self.module) or getattr(self.module, "_compiled_call_impl", None) is not None

    @property
    def sample_size(self) -> int:
        """Side of the pictures it was trained on."""
        return self.module.config["sample_size"]

    @property
    def dtype(self) -> torch.dtype:
        return self.module.dtype

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this."""
        return self.module.stride

    @property
    def text_dim(self) -> int | None:
        """Width of the text it takes; None for none."""
        return self.module.text_dim

    @property
    def has_low_res(self) -> bool:
        """Whether it is a super-resolution network."""
        return self.module.has_low_res

    @property
    def learns_variance(self) -> bool:
        """Whether its output holds a variance after the prediction."""
        return self.module.config["out_channels"] == 2 * self.channels

    @property
    def cond_channels(self) -> int:
        """Channels of the conditioning pictures it takes; 0 for none."""
        return 0

    @property
    def self_conditioned(self) -> bool:
        """Whether it is told what it guessed at the step before (Chen et al. 2022)."""
        return False

    @property
    def preconditioned(self) -> bool:
        """Whether it was trained under EDM's preconditioning, and so is driven by EDM schedulers alone."""
        return False

    @abstractmethod
    def condition(self, low_res: Tensor, size: tuple[int, int], noise_level: float, generators: list[torch.Generator]) -> Tensor:
        """The previous stage's pictures (B, C, h, w) as it was trained to see them: enlarged to (height, width) and augmented."""

    @abstractmethod
    def arguments(self, text: TextEmbedding | None, low_res: Tensor | None, noise_level: float) -> dict[str, Any]:
        """What `predict` is to be given besides the noisy pictures; made once a stage, since no step changes it.

        Args:
            text: B rows, or None.
            low_res: from `condition`, B rows, or None.
            noise_level: its augmentation level.
        """

    def predict(self, sample: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Tensor:
        """Its output, in float32 at least, for noisy pictures (B, C, H, W) under as many rows of `arguments`."""
        return at_least_float32(self.module(sample.to(self.dtype), timestep, return_dict=False, **arguments)[0])


class ImagenNetwork(StageNetwork):
    """A network of this package."""

    module: ConditionedUNet

    @property
    def channels(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.module.config["in_channels"]

    def condition(self, low_res: Tensor, size: tuple[int, int], noise_level: float, generators: list[torch.Generator]) -> Tensor:
        enlarged = resize(low_res, size)
        noise = standard_normal(enlarged.shape, generators, enlarged.device, enlarged.dtype)
        return augment(enlarged, _filled(enlarged, noise_level), noise)

    def arguments(self, text: TextEmbedding | None, low_res: Tensor | None, noise_level: float) -> dict[str, Any]:
        condition: dict[str, Any] = {}
        if text is not None:
            # Attention kernels that take no mask can run when nothing is padded; a graph is for one kind of input.
            mask = None if not self.compiled and text.mask.all() else text.mask
            condition |= {"encoder_hidden_states": text.embeds.to(self.dtype), "encoder_attention_mask": mask}
        if low_res is not None:
            condition |= {"low_res": low_res.to(self.dtype), "noise_level": _filled(low_res, noise_level)}
        return condition


class DeepFloydNetwork(StageNetwork):
    """diffusers' U-Net as DeepFloyd IF uses it: the enlarged picture as more channels, its level as a class label, no mask.

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
        return _noising_scheduler().add_noise(enlarged, noise, _filled(enlarged, noise_level).long())  # pyright: ignore

    def arguments(self, text: TextEmbedding | None, low_res: Tensor | None, noise_level: float) -> dict[str, Any]:
        condition: dict[str, Any] = {"encoder_hidden_states": None if text is None else text.embeds.to(self.dtype)}
        if low_res is not None:
            condition |= {"low_res": low_res, "class_labels": _filled(low_res, noise_level).long()}
        return condition

    def predict(self, sample: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Tensor:
        more = dict(arguments)
        if "low_res" in more:
            sample = torch.cat((sample, more.pop("low_res")), dim=1)
        return super().predict(sample, timestep, more)


class ImagenPytorchNetwork(StageNetwork):
    """A network of imagen-pytorch: time and level as log-SNR on its own curves, the condition enlarged and noised as there.

    One of its `ElucidatedImagen` is given EDM's times, which are the scheduler's timesteps, as they are.
    """

    module: ImagenPytorchUNet2DConditionModel

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

    def condition(self, low_res: Tensor, size: tuple[int, int], noise_level: float, generators: list[torch.Generator]) -> Tensor:
        mode = self.module.config["low_res_resize_mode"]
        enlarged = F.interpolate(low_res, size, mode=mode, **({} if mode == "nearest" else {"align_corners": False}))
        noise = standard_normal(enlarged.shape, generators, enlarged.device, enlarged.dtype)
        return q_sample(enlarged, noise, self._level(enlarged, noise_level))

    def arguments(self, text: TextEmbedding | None, low_res: Tensor | None, noise_level: float) -> dict[str, Any]:
        condition: dict[str, Any] = {}
        if text is not None:
            condition = {"encoder_hidden_states": text.embeds.to(self.dtype), "encoder_attention_mask": text.mask}
            condition["drop_text"] = ~text.mask.any(1)
        if low_res is not None:
            condition |= {"low_res": low_res.to(self.dtype), "low_res_log_snr": self._level(low_res, noise_level)}
        return condition

    def predict(self, sample: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Tensor:
        if not self.preconditioned:
            timestep = curve_log_snr(self.module.config["noise_schedule"], time_of(timestep)).to(sample.device)
        return super().predict(sample, timestep.expand(len(sample)), arguments)

    def _level(self, like: Tensor, noise_level: float) -> Tensor:
        return curve_log_snr(self.module.config["low_res_noise_schedule"], _filled(like, noise_level / NUM_TRAIN_TIMESTEPS))


def adapt(module: Any) -> StageNetwork:
    """The adapter of a network.

    Raises:
        ValueError: for a kind no stage can be.
    """
    plain = module._orig_mod if is_compiled_module(module) else module
    for kind, adapter in ADAPTERS.items():
        if isinstance(plain, kind):
            return adapter(module)
    names = ", ".join(kind.__name__ for kind in ADAPTERS)
    raise ValueError(f"{type(plain).__name__} cannot be a stage; a stage is one of {names}")


ADAPTERS: dict[type, type[StageNetwork]] = {
    ConditionedUNet: ImagenNetwork,
    UNet2DConditionModel: DeepFloydNetwork,
    ImagenPytorchUNet2DConditionModel: ImagenPytorchNetwork,
}


def _filled(like: Tensor, value: float) -> Tensor:
    return torch.full((len(like),), float(value), device=like.device)


@cache
def _noising_scheduler() -> DDPMScheduler:
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2")
