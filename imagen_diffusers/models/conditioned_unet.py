"""The outside of every Imagen network: what it is given, what it checks, what it returns.

`ConditionedUNet` holds what the base network and the efficient super-resolution network share: the embedding of time,
augmentation level and text, the stem, the head, and the checks. A subclass brings the body between stem and head. It
knows no scheduler and no text encoder, and does no guidance, no text dropout and no resizing: whoever calls it has done that
(`sampling/network.py`).
"""

from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor

from .attention import FusableAttentionMixin
from .blocks import CondImages, DetailHead, LinearSkip, PatchHead, PatchStem
from .checkpointing import CheckpointingMixin
from .embeddings import ConditioningEmbedding
from .graphs import OwnGraphsMixin
from .loading import OwnMemoryMixin

# Networks whose configurations share names of values and mean other things by them.
NETWORK_CLASSES = (
    "ImagenUNet2DConditionModel",
    "ImagenEfficientUNet2DConditionModel",
    "LucidrainsUNet2DConditionModel",
    "UNet2DConditionModel",
)


class ConditionedUNet(OwnMemoryMixin, OwnGraphsMixin, CheckpointingMixin, ModelMixin, FusableAttentionMixin, ConfigMixin, PeftAdapterMixin):
    """Abstract: call `_build_ends` in `__init__` and implement `body` and `stride`."""

    _no_split_modules = ["ResnetBlock", "ImagenAttention"]
    _repeated_blocks = ["ResnetBlock", "ImagenAttention"]
    _skip_layerwise_casting_patterns = ["norm", "embedding"]

    # Submodules between the body and the world: images, times and text come in there, the image goes out. Muon leaves all of them to
    # AdamW, and adapters go on none of the first three.
    WITHOUT_LORA = ("embedding", "stem", "head")
    ENDS = (*WITHOUT_LORA, "skip", "noisy_path", "detail", "cond")

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this."""
        raise NotImplementedError

    def body(self, x: Tensor, embedding: Tensor, text: Tensor | None, mask: Tensor | None) -> Tensor:
        """Features (B, C, H, W) to features of the same shape."""
        raise NotImplementedError

    def _reset_stateful_cache(self, recurse: bool = True) -> None:
        """A pipeline calls it when a call ends, so that diffusers' hooks that keep attention over steps begin the next call anew.

        Without the rest of the mixin: other caches are for transformers, and none knows that guidance in part of the steps changes the
        number of rows. Where there is no hook none is made, which would refer back to the network and keep it when it is deleted.
        """
        if any(hasattr(module, "_diffusers_hook") for module in self.modules()):
            CacheMixin._reset_stateful_cache(cast(CacheMixin, self), recurse)

    @property
    def text_dim(self) -> int | None:
        """Width of the text embeddings it takes; None for an unconditional network."""
        return self.config["encoder_hid_dim"]

    @property
    def has_low_res(self) -> bool:
        """Whether it is a super-resolution network."""
        return self.config["low_res_channels"] > 0

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        low_res: Tensor | None = None,
        noise_level: Tensor | float | int | None = None,
        cond_images: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """Predict what the scheduler asks for (noise, v or the clean image) from a noisy image.

        Args:
            sample: the noisy image (B, C, H, W); H and W multiples of `stride`.
            timestep: in [0, 1000), a number or (B,); fractions are meant.
            encoder_hidden_states: text embeddings (B, L, text_dim); none for an unconditional network.
            encoder_attention_mask: (B, L), non-zero at tokens, zero at padding; None when nothing is padded.
            low_res: for super-resolution, the previous stage's image already resized to H x W and augmented.
            noise_level: how much noise `low_res` was given, on the scale of `timestep`, a number or (B,).
            cond_images: for a network conditioned on images (B, cond_channels, H, W), in [0, 1].
            return_dict: False returns a tuple.

        Raises:
            ValueError: for a size, a width or a condition the network was not built for.
        """
        self._check_inputs(sample, low_res, noise_level)
        self._check_text(sample, encoder_hidden_states, encoder_attention_mask)
        self._check_cond_images(sample, cond_images)
        timestep = _per_example(timestep, sample)
        level = None if noise_level is None else _per_example(noise_level, sample)
        mask = None if encoder_attention_mask is None else encoder_attention_mask.bool()
        embedding = self.embedding(timestep, level, encoder_hidden_states, mask, sample.dtype)  # B E
        given = sample if low_res is None else torch.cat((sample, low_res), dim=1)
        x, cond_detail = self.stem(given), None
        if self.cond is not None:
            cond_stem, cond_detail = self.cond(cond_images)
            x = x + cond_stem
        features = self.body(x, embedding, encoder_hidden_states, mask)
        x = self.head(features)
        if self.skip is not None:
            x = x + self.skip(low_res, embedding)
        if self.noisy_path is not None:
            x = x + self.noisy_path(sample, embedding)
        if self.detail is not None:
            x = x + self.detail(features, given, embedding, cond_detail)
        return UNet2DConditionOutput(sample=x) if return_dict else (x,)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """diffusers' hook behind `from_config` and `from_pretrained`.

        Raises:
            ValueError: for the configuration of a network of another class, whose values mean other things.
        """
        saved = config_dict.get("_class_name")
        if saved in NETWORK_CLASSES and saved not in {kind.__name__ for kind in cls.__mro__}:
            raise ValueError(f"this folder or configuration is of {saved}, not of {cls.__name__}; load it by {saved}.from_pretrained")
        return super().extract_init_dict(config_dict, **kwargs)

    def _build_ends(self, width: int) -> None:
        """Create embedding, stem and head from the config; `width` is the number of channels between them."""
        c: Any = self.config
        if c.get("noisy_skip") and c.in_channels != c.out_channels:
            raise ValueError(f"noisy_skip leads from in_channels={c.in_channels} to out_channels={c.out_channels}; they must be equal")
        embedding_dim = c.time_embed_dim or 4 * c.block_out_channels[0]
        self.embedding_dim = embedding_dim
        self.embedding = ConditioningEmbedding(c.block_out_channels[0], embedding_dim, c.encoder_hid_dim, self.has_low_res)
        self.stem = PatchStem(c.in_channels + c.low_res_channels, width, c.patch_size)
        self.head = PatchHead(width, c.out_channels, c.patch_size, c.norm_num_groups)
        self.skip = LinearSkip(c.low_res_channels, c.patch_size, embedding_dim, start=1.0) if c.get("linear_skip") else None
        self.noisy_path = LinearSkip(c.in_channels, c.patch_size, embedding_dim, start=0.0) if c.get("noisy_skip") else None
        self.detail = None
        if c.get("detail_channels"):
            channels = c.in_channels + c.low_res_channels, c.out_channels, c.detail_channels
            sizes = {"patch_size": c.patch_size, "embedding_dim": embedding_dim, "norm_groups": c.norm_num_groups}
            self.detail = DetailHead(width, *channels, **sizes)
        self.cond = None
        if c.cond_channels:
            self.build_cond()

    def build_cond(self) -> CondImages:
        """Create the way in for conditioning images from the config, with weights of zero."""
        c: Any = self.config
        self.cond = CondImages(c.cond_channels, c.block_out_channels[0], c.patch_size, c.detail_channels)
        return self.cond

    def _check_inputs(self, sample: Tensor, low_res: Tensor | None, noise_level: Tensor | float | int | None) -> None:
        name = type(self).__name__
        for what, images, channels in (("sample", sample, "in_channels"), ("low_res", low_res, "low_res_channels")):
            if images is not None and self.config[channels] and images.shape[1] != self.config[channels]:
                raise ValueError(f"{what} has {images.shape[1]} channels; {name} was built for {self.config[channels]} ({channels})")
        height, width = sample.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(f"{name} got an image of {width}x{height}; both sides must be multiples of {self.stride}")
        if self.has_low_res != (low_res is not None) or self.has_low_res != (noise_level is not None):
            need = "needs both low_res and noise_level" if self.has_low_res else "takes neither low_res nor noise_level"
            raise ValueError(f"{name} (low_res_channels={self.config['low_res_channels']}) {need}")
        if low_res is not None and low_res.shape[-2:] != sample.shape[-2:]:
            given = "x".join(map(str, low_res.shape[-2:]))
            raise ValueError(f"low_res is {given} but sample is {height}x{width}; resize low_res to the sample's size first")
        if low_res is not None and len(low_res) != len(sample):
            raise ValueError(f"there are {len(low_res)} low_res images for {len(sample)} samples; give one for each")

    def _check_text(self, sample: Tensor, text: Tensor | None, mask: Tensor | None) -> None:
        name = type(self).__name__
        if (self.text_dim is None) != (text is None):
            state = "is unconditional: pass no" if self.text_dim is None else f"needs {self.text_dim}-wide"
            raise ValueError(f"{name} {state} encoder_hidden_states")
        if text is not None and text.shape[-1] != self.text_dim:
            raise ValueError(f"encoder_hidden_states are {text.shape[-1]} wide; {name} was built for {self.text_dim} (encoder_hid_dim)")
        if text is not None and len(text) != len(sample):
            raise ValueError(f"encoder_hidden_states are of {len(text)} texts, and there are {len(sample)} images; give one text for each")
        if text is not None and mask is not None and mask.shape != text.shape[:2]:
            raise ValueError(f"encoder_attention_mask is {tuple(mask.shape)}; it must be {tuple(text.shape[:2])}, a value for each token")

    def _check_cond_images(self, sample: Tensor, cond_images: Tensor | None) -> None:
        wanted, name = self.config["cond_channels"], type(self).__name__
        if not wanted and cond_images is not None:
            raise ValueError(
                f"{name} (cond_channels=0) takes no cond_images; leave them out, or make a network that takes them "
                "with models/conditioning_images.py: with_cond_channels"
            )
        if wanted and (cond_images is None or cond_images.shape[1] != wanted or cond_images.shape[-2:] != sample.shape[-2:]):
            given = "none" if cond_images is None else f"the shape {tuple(cond_images.shape)}"
            size = "x".join(map(str, sample.shape[-2:]))  # not further up: it would bind a compiled graph to this size
            raise ValueError(f"{name} (cond_channels={wanted}) needs cond_images of {wanted} channels, {size} as sample is; it got {given}")


def _per_example(value: Tensor | float | int, sample: Tensor) -> Tensor:
    """A number or a tensor to (B,) on the sample's device, in float32 so that fractions of a step survive half precision."""
    return torch.as_tensor(value, dtype=torch.float32, device=sample.device).expand(sample.shape[0])
