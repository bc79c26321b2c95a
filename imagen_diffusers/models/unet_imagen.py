"""The base network: ADM's U-Net with text (Imagen, section 2.5 and appendix F.1)."""

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from .attention import ImagenAttention, check_heads
from .blocks import ResnetBlock
from .conditioned_unet import ConditionedUNet


class ImagenUNet2DConditionModel(ConditionedUNet):
    """A U-Net with BigGAN-style resampling and text joined to its self-attention.

    Going down, each level is `layers_per_block` residual blocks (with attention where `attention_levels` says so) and a
    down-sampling block; every output is kept. Going up, one block more a level, each given one kept output.

    Args:
        sample_size: the side it was trained at; a hint, any multiple of `stride` runs.
        in_channels, out_channels: of the image; `out_channels` is twice that for a learned variance.
        low_res_channels: 3 makes it a super-resolution network that takes `low_res` and `noise_level`; 0 does not.
        cond_channels: of the images it is conditioned on (`cond_images`: a mask and what it leaves, edges, ...); 0 for none.
        block_out_channels: width of each level, finest first.
        layers_per_block: residual blocks per level; one number, or one per level.
        attention_levels: which levels attend, one bool each.
        attention_head_dim: channels a head.
        encoder_hid_dim: width of the text embeddings; None for an unconditional network.
        time_embed_dim: width of the conditioning embedding; None for four times the finest level.
        patch_size: patches of this side become the pixels of the finest level.
        noisy_skip: whether the noisy image reaches the output past all norms, too (`blocks.LinearSkip`); for networks that predict the
            clean image. The paper's does without, as without the next.
        detail_channels: channels at full resolution that add what patches are too coarse for (`blocks.DetailHead`); 0 for none.
        norm_num_groups: groups of every group norm.
        dropout: inside residual blocks.
    """

    @register_to_config
    def __init__(  # noqa: PLR0913 (one argument per config value, as diffusers has it)
        self,
        sample_size: int = 64,
        in_channels: int = 3,
        out_channels: int = 3,
        low_res_channels: int = 0,
        cond_channels: int = 0,
        block_out_channels: tuple[int, ...] = (128, 256, 384, 512),
        layers_per_block: int | tuple[int, ...] = 3,
        attention_levels: tuple[bool, ...] = (False, True, True, True),
        attention_head_dim: int = 64,
        encoder_hid_dim: int | None = 4096,
        time_embed_dim: int | None = None,
        patch_size: int = 1,
        noisy_skip: bool = False,
        detail_channels: int = 0,
        norm_num_groups: int = 32,
        dropout: float = 0.0,
    ):
        super().__init__()
        if len(attention_levels) != len(block_out_channels):
            raise ValueError(
                f"attention_levels has {len(attention_levels)} values and block_out_channels {len(block_out_channels)}; give one per level"
            )
        given = len(block_out_channels)
        layers = (layers_per_block,) * given if isinstance(layers_per_block, int) else layers_per_block
        if len(layers) != given:
            raise ValueError(f"layers_per_block has {len(layers)} values and block_out_channels {given}; give one number, or one per level")
        self._build_ends(block_out_channels[0])
        levels = list(zip(block_out_channels, attention_levels, layers, strict=True))
        width, kept = block_out_channels[0], [block_out_channels[0]]

        self.down_blocks = nn.ModuleList()
        for i, (channels, attends, blocks) in enumerate(levels):
            for _ in range(blocks):
                self.down_blocks.append(self._layer(width, channels, attends))
                width = channels
                kept.append(width)
            if i + 1 < len(levels):
                self.down_blocks.append(self._layer(width, width, False, resample="down"))
                kept.append(width)

        self.mid_block = nn.ModuleList([self._layer(width, width, True), self._layer(width, width, False)])

        self.up_blocks = nn.ModuleList()
        for i, (channels, attends, blocks) in reversed(list(enumerate(levels))):
            for _ in range(blocks + 1):
                self.up_blocks.append(self._layer(width + kept.pop(), channels, attends))
                width = channels
            if i > 0:
                self.up_blocks.append(self._layer(width, width, False, resample="up"))

    @property
    def stride(self) -> int:
        return self.config["patch_size"] * 2 ** (len(self.config["block_out_channels"]) - 1)

    def body(self, x: Tensor, embedding: Tensor, text: Tensor | None, mask: Tensor | None) -> Tensor:
        kept = [x]
        for layer in self.down_blocks:
            x = self._run(layer, x, embedding, text, mask)
            kept.append(x)
        for layer in self.mid_block:
            x = self._run(layer, x, embedding, text, mask)
        for layer in self.up_blocks:
            assert isinstance(layer, AttendingLayer)
            if layer.resnet.resample is None:
                x = torch.cat((x, kept.pop()), dim=1)
            x = self._run(layer, x, embedding, text, mask)
        return x

    def _layer(self, in_channels: int, out_channels: int, attends: bool, resample: str | None = None) -> "AttendingLayer":
        c: Any = self.config
        resnet = ResnetBlock(
            in_channels,
            out_channels,
            embedding_dim=self.embedding_dim,
            norm_groups=c.norm_num_groups,
            dropout=c.dropout,
            resample=resample,
        )
        if attends:
            check_heads(f"attention_head_dim={c.attention_head_dim}", out_channels, c.attention_head_dim)
        kind = "self" if self.text_dim is None else "self_text"
        dims = {"head_dim": c.attention_head_dim, "hidden_dim": out_channels, "norm_groups": c.norm_num_groups}
        return AttendingLayer(resnet, ImagenAttention(out_channels, kind, text_dim=self.text_dim, **dims) if attends else None)


class AttendingLayer(nn.Module):
    """A residual block, then attention if the level has it."""

    def __init__(self, resnet: ResnetBlock, attention: ImagenAttention | None):
        super().__init__()
        self.resnet = resnet
        self.attention = attention

    def forward(self, x: Tensor, embedding: Tensor, text: Tensor | None, mask: Tensor | None) -> Tensor:
        x = self.resnet(x, embedding)
        return x if self.attention is None else self.attention(x, text, mask)
