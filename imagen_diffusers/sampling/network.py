"""What sampling and training ask of a network, and the adapter that answers for the networks of this package.

Neither asks which kind of network it holds. Kinds differ in how they take their conditions and in how these were made in
training; each says so in an adapter of its own, which registers itself with `adapt`. What is random comes in, and levels are
one for each image: one and the same for all of them in sampling, each example's own in training.
"""

from abc import ABC, abstractmethod
from copy import copy
from functools import singledispatch
from typing import Any, Self

import torch
from diffusers.utils.torch_utils import is_compiled_module
from torch import Tensor

from imagen_diffusers.models.conditioned_unet import ConditionedUNet
from imagen_diffusers.models.unet_imagen import ImagenUNet2DConditionModel
from imagen_diffusers.models.unet_imagen_efficient import ImagenEfficientUNet2DConditionModel
from imagen_diffusers.schedulers.noise import augment, log_snr_at, resize
from imagen_diffusers.schedulers.precision import at_least_float32
from imagen_diffusers.text.encoding import TextEmbedding

from .compiled_network import run_compiled


class StageNetwork(ABC):
    """A network as sampling and training see it. Letters in shapes: B images, C channels, L tokens.

    Args:
        module: the network itself.
    """

    channels = 3

    def __init__(self, module: Any):
        self.module = self.runner = module

    def through(self, runner: Any) -> Self:
        """The same network, run by calling what it was wrapped in: by `torch.compile(module)`, or by accelerate."""
        wrapped = copy(self)
        wrapped.runner = runner
        return wrapped

    @property
    def compiled(self) -> bool:
        """Whether it runs compiled graphs, which fit one shape each: by `module.compile()` or `torch.compile(module)`."""
        return is_compiled_module(self.runner) or getattr(self.runner, "_compiled_call_impl", None) is not None

    @property
    def sample_size(self) -> int:
        """Side of the images it was trained on."""
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
    def low_res_channels(self) -> int:
        """Channels of the images that a super-resolution network enlarges."""
        return self.channels

    @property
    def cond_channels(self) -> int:
        """Channels of the conditioning images it takes; 0 for none."""
        return 0

    @property
    def self_conditioned(self) -> bool:
        """Whether it is conditioned on its x0 of the step before (Chen et al. 2022)."""
        return False

    @property
    def preconditioned(self) -> bool:
        """Whether it was trained under EDM's preconditioning, and so is driven by EDM schedulers alone."""
        return False

    def trained_at(self, timesteps: Tensor) -> Tensor:
        """The timesteps nearest to these that it is trained at: these, unless it knows whole steps alone."""
        return timesteps

    def log_snr(self, table: Tensor, timesteps: Tensor) -> Tensor:
        """How noisy the images it is trained on are at timesteps (B,): on the curve of its scheduler, unless it has one of its own."""
        return log_snr_at(table, timesteps)

    @abstractmethod
    def condition(self, low_res: Tensor, noise: Tensor, noise_level: Tensor) -> Tensor:
        """The previous stage's images as it was trained to see them: enlarged and augmented.

        Args:
            low_res: (B, C, h, w).
            noise: standard normal (B, C, H, W), of the size to enlarge to.
            noise_level: of the augmentation (B,), in [0, 1000).
        """

    @abstractmethod
    def arguments(self, text: TextEmbedding | None, low_res: Tensor | None, noise_level: Tensor | None) -> dict[str, Any]:
        """What `predict` is to be given besides the noisy images; made once a stage, since no step changes it.

        Conditioning images, for a network that takes them, are added to it as "cond_images", from `sized`.

        Args:
            text: B rows, or None.
            low_res: from `condition`, B rows, or None.
            noise_level: its augmentation level (B,), or None with it.
        """

    def sized(self, cond_images: Tensor, height: int, width: int) -> Tensor:
        """Conditioning images (B, c, h, w) in [0, 1] as it was trained to see them (B, c, height, width): in its own type.

        Cubic curves overshoot, which values in [0, 1] do not.
        """
        return resize(cond_images, (height, width)).clamp(min=0).to(self.dtype)

    def predict(self, sample: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Tensor:
        """Its output, in float32 at least, for noisy images (B, C, H, W) under as many rows of `arguments`."""
        given = (sample.to(self.dtype), timestep)
        output = (
            run_compiled(self.runner, self.module, *given, arguments)
            if self.compiled
            else self.runner(*given, return_dict=False, **arguments)
        )
        return at_least_float32(output[0])


class ImagenNetwork(StageNetwork):
    """A network of this package."""

    module: ConditionedUNet

    @property
    def channels(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.module.config["in_channels"]

    @property
    def low_res_channels(self) -> int:
        return self.module.config["low_res_channels"]

    @property
    def cond_channels(self) -> int:
        return self.module.config.get("cond_channels", 0)

    def condition(self, low_res: Tensor, noise: Tensor, noise_level: Tensor) -> Tensor:
        return augment(resize(low_res, (noise.shape[-2], noise.shape[-1])), noise_level, noise)

    def arguments(self, text: TextEmbedding | None, low_res: Tensor | None, noise_level: Tensor | None) -> dict[str, Any]:
        condition: dict[str, Any] = {}
        if text is not None:
            # Attention kernels that take no mask can run when nothing is padded; a graph is for one kind of input, and a step of
            # training does not choose its kernel by what captions it meets.
            mask = None if not self.compiled and not self.module.training and text.mask.all() else text.mask
            condition |= {"encoder_hidden_states": text.embeds.to(self.dtype), "encoder_attention_mask": mask}
        if low_res is not None:
            condition |= {"low_res": low_res.to(self.dtype), "noise_level": noise_level}
        return condition


@singledispatch
def adapt(module: Any) -> StageNetwork:
    """A network as sampling and training see it. Other kinds of networks join by `adapt.register`; see `imagen_diffusers.interop`.

    Raises:
        ValueError: for a kind no stage can be.
    """
    if is_compiled_module(module):  # `torch.compile(module)`, which runs it
        return adapt(module._orig_mod).through(module)
    names = ", ".join(kind.__name__ for kind in adapt.registry if kind is not object)
    raise ValueError(
        f"{type(module).__name__} cannot be a stage; a stage is one of {names}. Networks of other origins join by import "
        "imagen_diffusers.interop, and your own by adapt.register"
    )


for kind in (ImagenUNet2DConditionModel, ImagenEfficientUNet2DConditionModel):
    adapt.register(kind, ImagenNetwork)
