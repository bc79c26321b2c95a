"""The super-resolution networks: the Efficient U-Net (Imagen, appendix B.1, F.2 and F.3)."""

from typing import Any

from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from .attention import ATTENTION_KINDS, ImagenAttention
from .blocks import ResnetBlock, Upsample
from .conditioned_unet import ConditionedUNet

SKIP_SCALE = 2**-0.5  # "significantly improves convergence" (B.1)


class ImagenEfficientUNet2DConditionModel(ConditionedUNet):
    """A U-Net with its weight at low resolution, down-sampling before the blocks of a level and up-sampling after them.

    Args:
        sample_size: the side it was trained for; a hint, any multiple of `stride` runs.
        in_channels, out_channels: of the image.
        low_res_channels: 3 takes `low_res` and `noise_level`; 0 makes an unconditioned (base) network.
        cond_channels: as in `ImagenUNet2DConditionModel`.
        block_out_channels: width of each level, finest first; every level halves the size.
        layers_per_block: residual blocks per level; one number, or one per level.
        attention_kind: what the coarsest level does, as in `ImagenAttention`: "self_text" (F.2: self-attention joined
            by text), "cross_text" (F.3: text alone, so the cost stays linear in the pixels), "self" or None.
        num_attention_heads: of the coarsest level, with twice its channels between them (B.1).
        encoder_hid_dim: width of the text embeddings; None for an unconditional network.
        time_embed_dim: width of the conditioning embedding; None for four times the finest level.
        patch_size: patches of this side become the pixels of the stem.
        linear_skip: whether the condition reaches the image past all norms, too (`blocks.LinearSkip`); for networks that predict
            the clean image. The paper's do without.
        noisy_skip, detail_channels: as in `ImagenUNet2DConditionModel`.
        norm_num_groups: groups of every group norm.
        dropout: inside residual blocks.
    """

    @register_to_config
    def __init__(  # noqa: PLR0913 (one argument per config value, as diffusers has it)
        self,
        sample_size: int = 256,
        in_channels: int = 3,
        out_channels: int = 3,
        low_res_channels: int = 3,
        cond_channels: int = 0,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 1024),
        layers_per_block: int | tuple[int, ...] = (2, 4, 8, 8),
        attention_kind: str | None = "self_text",
        num_attention_heads: int = 8,
        encoder_hid_dim: int | None = 4096,
        time_embed_dim: int | None = None,
        patch_size: int = 1,
        linear_skip: bool = False,
        noisy_skip: bool = False,
        detail_channels: int = 0,
        norm_num_groups: int = 32,
        dropout: float = 0.0,
    ):
        super().__init__()
        given = len(block_out_channels)
        depths = (layers_per_block,) * given if isinstance(layers_per_block, int) else layers_per_block
        if len(depths) != given:
            raise ValueError(f"layers_per_block has {len(depths)} values and block_out_channels {given}; give one number, or one per level")
        if linear_skip and not low_res_channels == out_channels > 0:
            raise ValueError(
                f"linear_skip leads from low_res_channels={low_res_channels} to out_channels={out_channels}; they must be equal"
            )
        if attention_kind not in (*ATTENTION_KINDS, None):
            raise ValueError(f'attention_kind="{attention_kind}" is unknown; use one of {", ".join(ATTENTION_KINDS)}, or None')
        widest = 2 * block_out_channels[-1]
        if attention_kind is not None and (num_attention_heads < 1 or widest % num_attention_heads):
            raise ValueError(f"num_attention_heads={num_attention_heads} does not divide {widest}, twice the coarsest level's channels")
        if attention_kind in ("self_text", "cross_text") and encoder_hid_dim is None:
            raise ValueError(f'attention_kind="{attention_kind}" needs text: give encoder_hid_dim, or "self" or None as the kind')
        self._build_ends(block_out_channels[0])
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        finer = block_out_channels[0]
        for i, (channels, layers) in enumerate(zip(block_out_channels, depths, strict=True)):
            coarsest = i + 1 == len(block_out_channels)
            down, up = nn.Conv2d(finer, channels, 3, stride=2, padding=1), Upsample(channels, finer)
            self.down_blocks.append(EfficientLevel(self._resnets(channels, layers), self._attention(channels, coarsest), before=down))
            self.up_blocks.insert(0, EfficientLevel(self._resnets(channels, layers), self._attention(channels, coarsest), after=up))
            finer = channels

    @property
    def stride(self) -> int:
        return self.config["patch_size"] * 2 ** len(self.config["block_out_channels"])

    def body(self, x: Tensor, embedding: Tensor, text: Tensor | None, mask: Tensor | None) -> Tensor:
        kept = []
        for level in self.down_blocks:
            kept.append(x)
            x = self._run(level, x, embedding, text, mask)
        for level in self.up_blocks:
            x = self._run(level, x, embedding, text, mask)
            x = x + SKIP_SCALE * kept.pop()
        return x

    def _resnets(self, channels: int, count: int) -> nn.ModuleList:
        c: Any = self.config
        dims = {"embedding_dim": self.embedding_dim, "norm_groups": c.norm_num_groups, "dropout": c.dropout}
        return nn.ModuleList(ResnetBlock(channels, channels, always_project=True, **dims) for _ in range(count))

    def _attention(self, channels: int, coarsest: bool) -> ImagenAttention | None:
        c: Any = self.config
        if not coarsest or c.attention_kind is None:
            return None
        dims = {"head_dim": 2 * channels // c.num_attention_heads, "hidden_dim": 2 * channels, "norm_groups": c.norm_num_groups}
        return ImagenAttention(channels, c.attention_kind, text_dim=self.text_dim, **dims)


class EfficientLevel(nn.Module):
    """DBlock and UBlock of figures A.28 and A.29: resampling before (down) or after (up), blocks, attention."""

    def __init__(
        self,
        resnets: nn.ModuleList,
        attention: ImagenAttention | None,
        *,
        before: nn.Module | None = None,
        after: nn.Module | None = None,
    ):
        super().__init__()
        self.before = before
        self.resnets = resnets
        self.attention = attention
        self.after = after

    def forward(self, x: Tensor, embedding: Tensor, text: Tensor | None, mask: Tensor | None) -> Tensor:
        if self.before is not None:
            x = self.before(x)
        for resnet in self.resnets:
            x = resnet(x, embedding)
        if self.attention is not None:
            x = self.attention(x, text, mask)
        return x if self.after is None else self.after(x)
