"""imagen-pytorch's U-Net (lucidrains, releases 1.22 to 2.1), so that checkpoints trained with it run here.

Arguments keep that package's names, so that a saved configuration builds the network; parameters keep its layout, so that its
weights load as they are. Arguments that do nothing there are left out.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from imagen_diffusers.models.checkpointing import CheckpointingMixin
from imagen_diffusers.models.graphs import OwnGraphsMixin
from imagen_diffusers.models.loading import OwnMemoryMixin

from .attention import PerceiverResampler, Transformer
from .blocks import GROUPS, ConvBlock, CrossEmbed, LearnedFourier, Parallel, ResnetBlock, downsample, upsample

EDM = "edm"  # the noise_schedule of a network trained under EDM's preconditioning

T = TypeVar("T")


class LucidrainsUNet2DConditionModel(
    OwnMemoryMixin, OwnGraphsMixin, CheckpointingMixin, ModelMixin, AttentionMixin, ConfigMixin, PeftAdapterMixin
):
    """The network of imagen-pytorch's `Unet`, `BaseUnet64`, `SRUnet256` and `SRUnet1024`.

    It is conditioned on time as log-SNR. What stands for no text is learned, a vector per position; rows are dropped with `drop_text`.

    Args:
        sample_size: side of the images it was trained on.
        dim, dim_mults: width of the finest level, and of each level as a multiple of it.
        text_embed_dim: width of the text embeddings.
        num_resnet_blocks, layer_attns, layer_attns_depth, layer_cross_attns, use_linear_attn, use_linear_cross_attn: one value for
            all levels, or one each, finest first.
        cond_dim: width of the conditioning tokens; `dim` by default.
        memory_efficient: resample before a level's blocks going down and after them going up.
        resnet_groups: of group norm, in releases up to 1.26, one value for all levels, or one each; None for the RMS norm of later ones.
        resize_mode: how conditioning images of another size are resized.
        noise_schedule, low_res_noise_schedule, low_res_resize_mode: what `Imagen` was given for this stage: the curves that
            time and level are on, and how the condition is enlarged. "edm" is `ElucidatedImagen`'s, whose network is
            conditioned on EDM's noise, 0.25 ln(sigma).

    The others are as in imagen-pytorch.
    """

    _no_split_modules = ["ResnetBlock", "Transformer"]
    _repeated_blocks = ["ResnetBlock", "Transformer"]

    # Where images, times and text come in and the image goes out.
    WITHOUT_LORA = (
        *("init_conv", "final_conv", "text_to_cond", "to_text_non_attn_cond", "to_time_hiddens", "to_time_cond", "to_time_tokens"),
        *("to_lowres_time_hiddens", "to_lowres_time_cond", "to_lowres_time_tokens"),
    )

    @register_to_config
    def __init__(  # noqa: PLR0913 (one argument per config value, as diffusers has it)
        self,
        sample_size: int = 64,
        dim: int = 128,
        text_embed_dim: int = 768,
        num_resnet_blocks: int | tuple[int, ...] = 1,
        cond_dim: int | None = None,
        num_time_tokens: int = 2,
        learned_sinu_pos_emb_dim: int = 16,
        dim_mults: tuple[int, ...] = (1, 2, 4, 8),
        cond_images_channels: int = 0,
        channels: int = 3,
        channels_out: int | None = None,
        attn_dim_head: int = 64,
        attn_heads: int = 8,
        ff_mult: float = 2.0,
        lowres_cond: bool = False,
        layer_attns: bool | tuple[bool, ...] = True,
        layer_attns_depth: int | tuple[int, ...] = 1,
        layer_mid_attns_depth: int = 1,
        attend_at_middle: bool = True,
        layer_cross_attns: bool | tuple[bool, ...] = True,
        use_linear_attn: bool | tuple[bool, ...] = False,
        use_linear_cross_attn: bool | tuple[bool, ...] = False,
        cond_on_text: bool = True,
        max_text_len: int = 256,
        init_dim: int | None = None,
        init_conv_kernel_size: int = 7,
        init_cross_embed: bool = True,
        init_cross_embed_kernel_sizes: tuple[int, ...] = (3, 7, 15),
        attn_pool_text: bool = True,
        attn_pool_num_latents: int = 32,
        memory_efficient: bool = False,
        init_conv_to_final_conv_residual: bool = False,
        use_global_context_attn: bool = True,
        scale_skip_connection: bool = True,
        final_resnet_block: bool = True,
        final_conv_kernel_size: int = 3,
        self_cond: bool = False,
        combine_upsample_fmaps: bool = False,
        pixel_shuffle_upsample: bool = True,
        resnet_groups: int | tuple[int, ...] | None = None,
        resize_mode: str = "nearest",
        noise_schedule: str = "cosine",
        low_res_noise_schedule: str = "linear",
        low_res_resize_mode: str = "nearest",
    ):
        super().__init__()
        c: Any = self.config
        self.levels = len(dim_mults)
        self.token_dim, self.time_dim = cond_dim or dim, dim * 4 * (2 if lowres_cond else 1)
        self.skip_scale = 2**-0.5 if scale_skip_connection else 1.0
        groups = per_level(resnet_groups, self.levels)
        self._build_conditioning(c)
        in_channels = channels * (1 + lowres_cond + self_cond) + cond_images_channels
        width = init_dim or dim
        self.init_conv = (
            CrossEmbed(in_channels, width, init_cross_embed_kernel_sizes)
            if init_cross_embed
            else nn.Conv2d(in_channels, width, init_conv_kernel_size, padding=init_conv_kernel_size // 2)
        )
        self.init_resnet_block = self._block(width, width, groups[0], gated=use_global_context_attn) if memory_efficient else None
        self._build_levels(c, [width, *(dim * m for m in dim_mults)], groups)
        wide = dim
        self.upsample_combiner = None
        if combine_upsample_fmaps:
            maps = [dim * m for m in reversed(dim_mults)]
            of_maps = None if resnet_groups is None else GROUPS  # whatever the other blocks have
            self.upsample_combiner = nn.ModuleDict({"fmap_convs": nn.ModuleList(ConvBlock(m, dim, of_maps) for m in maps)})
            wide += dim * len(maps)
        wide += dim if init_conv_to_final_conv_residual else 0
        self.final_res_block = self._block(wide, dim, groups[0], gated=True) if final_resnet_block else None
        wide = (dim if final_resnet_block else wide) + (channels if lowres_cond else 0)
        self.final_conv = nn.Conv2d(wide, channels_out or channels, final_conv_kernel_size, padding=final_conv_kernel_size // 2)
        nn.init.zeros_(self.final_conv.weight)
        nn.init.zeros_(self.final_conv.bias)  # pyright: ignore[reportArgumentType]

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this."""
        return 2 ** (self.levels if self.config["memory_efficient"] else self.levels - 1)

    @property
    def text_dim(self) -> int | None:
        """Width of the text embeddings it takes; None for an unconditional network."""
        return self.config["text_embed_dim"] if self.config["cond_on_text"] else None

    @property
    def has_low_res(self) -> bool:
        """Whether it is a super-resolution network."""
        return self.config["lowres_cond"]

    def forward(
        self,
        sample: Tensor,
        log_snr: Tensor,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        low_res: Tensor | None = None,
        low_res_log_snr: Tensor | None = None,
        cond_images: Tensor | None = None,
        self_cond: Tensor | None = None,
        drop_text: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """Predict what it was trained to (noise, v or the clean image).

        Args:
            sample: the noisy image (B, C, H, W); H and W multiples of `stride`.
            log_snr: (B,), of the noisy image.
            encoder_hidden_states: text embeddings (B, L, D).
            encoder_attention_mask: (B, L), True at tokens; None when nothing is padded.
            low_res, low_res_log_snr: for super-resolution, the enlarged and noised image of the stage before, and its log-SNR.
            cond_images: (B, cond_images_channels, h, w), for a network conditioned on images.
            self_cond: the clean image guessed at the step before; zeros at the first.
            drop_text: (B,) True for rows that are generated without their text.
            return_dict: False returns a tuple.
        """
        if cond_images is not None and cond_images.shape[-2:] != sample.shape[-2:]:
            cond_images = F.interpolate(cond_images, sample.shape[-2:], mode=self.config["resize_mode"])
        if self.config["self_cond"]:
            sample = torch.cat((sample, torch.zeros_like(sample) if self_cond is None else self_cond), 1)
        x = torch.cat([part for part in (cond_images, sample, low_res) if part is not None], 1)
        time, tokens = self._condition(log_snr, low_res_log_snr, encoder_hidden_states, encoder_attention_mask, drop_text)
        x = first = self.init_conv(x)
        if self.init_resnet_block is not None:
            x = self._run(self.init_resnet_block, x, time)
        x, maps = self._through_levels(x, time, tokens)
        if self.upsample_combiner is not None:
            size, convs = x.shape[-2:], self.upsample_combiner["fmap_convs"]
            resized = [m if m.shape[-2:] == size else F.interpolate(m, size) for m in maps]
            x = torch.cat((x, *(conv(m) for conv, m in zip(convs, resized, strict=True))), 1)  # pyright: ignore
        if self.config["init_conv_to_final_conv_residual"]:
            x = torch.cat((x, first), 1)
        if self.final_res_block is not None:
            x = self._run(self.final_res_block, x, time)
        if low_res is not None:
            x = torch.cat((x, low_res), 1)
        x = self.final_conv(x)
        return UNet2DConditionOutput(sample=x) if return_dict else (x,)

    def _build_conditioning(self, c: Any) -> None:
        """Time, augmentation level and text to one vector and a row of tokens."""
        fourier, tokens = c.learned_sinu_pos_emb_dim, self.token_dim * c.num_time_tokens
        for name in ("time", "lowres_time") if c.lowres_cond else ("time",):
            hiddens = nn.Sequential(LearnedFourier(fourier), nn.Linear(fourier + 1, self.time_dim), nn.SiLU())
            setattr(self, f"to_{name}_hiddens", hiddens)
            setattr(self, f"to_{name}_cond", nn.Sequential(nn.Linear(self.time_dim, self.time_dim)))
            setattr(self, f"to_{name}_tokens", nn.Sequential(nn.Linear(self.time_dim, tokens)))
        self.norm_cond = nn.LayerNorm(self.token_dim)
        self.text_to_cond = self.to_text_non_attn_cond = None
        if c.cond_on_text:
            self.text_to_cond = nn.Linear(c.text_embed_dim, self.token_dim)
            self.to_text_non_attn_cond = nn.Sequential(
                nn.LayerNorm(self.token_dim),
                nn.Linear(self.token_dim, self.time_dim),
                nn.SiLU(),
                nn.Linear(self.time_dim, self.time_dim),
            )
        # Saved by unconditional networks, too, though unused.
        heads = {"heads": c.attn_heads, "head_dim": c.attn_dim_head}
        self.attn_pool = PerceiverResampler(self.token_dim, **heads, num_latents=c.attn_pool_num_latents) if c.attn_pool_text else None
        self.null_text_embed = nn.Parameter(torch.randn(1, c.max_text_len, self.token_dim))
        self.null_text_hidden = nn.Parameter(torch.randn(1, self.time_dim))

    def _build_levels(self, c: Any, widths: list[int], groups: tuple[int | None, ...]) -> None:
        """Going down, in the middle, and going up; `downs` and `ups` are lists of the parts of a level."""
        names = ("num_resnet_blocks", "layer_attns", "layer_attns_depth", "layer_cross_attns", "use_linear_attn", "use_linear_cross_attn")
        settings = list(zip(groups, *(per_level(c[name], self.levels) for name in names), strict=True))
        pairs, efficient, gated = list(zip(widths[:-1], widths[1:], strict=True)), c.memory_efficient, c.use_global_context_attn
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i, ((narrow, wide), (norm, blocks, attends, depth, crosses, linear, linear_cross)) in enumerate(
            zip(pairs, settings, strict=True)
        ):
            here, last = wide if efficient else narrow, i + 1 == self.levels
            attention = "linear" if linear_cross else "cross" if crosses else None
            after = nn.Identity() if efficient else Parallel(narrow, wide) if last else downsample(narrow, wide)
            down = [
                downsample(narrow, wide) if efficient else nn.Identity(),
                self._block(here, here, norm, attention=attention),
                nn.ModuleList(self._block(here, here, norm, gated=gated) for _ in range(blocks)),
                self._transformer(here, depth, attends, linear),
                after,
            ]
            up = [
                self._block(wide + here, wide, norm, attention=attention),
                nn.ModuleList(self._block(wide + here, wide, norm, gated=gated) for _ in range(blocks)),
                self._transformer(wide, depth, attends, linear),
                upsample(wide, narrow, c.pixel_shuffle_upsample) if i > 0 or efficient else nn.Identity(),
            ]
            self.downs.append(nn.ModuleList(down))
            self.ups.insert(0, nn.ModuleList(up))
        # The middle is always cross-attended by 8 heads of 64, whatever the others have.
        middle = {"time_dim": self.time_dim, "groups": groups[-1], "attention": "cross", "context_dim": self.token_dim}
        self.mid_block1 = ResnetBlock(widths[-1], widths[-1], **middle)
        dims = {"heads": c.attn_heads, "head_dim": c.attn_dim_head, "mult": 2.0, "context_dim": None, "linear": False}
        self.mid_attn = Transformer(widths[-1], depth=c.layer_mid_attns_depth, **dims) if c.attend_at_middle else None
        self.mid_block2 = ResnetBlock(widths[-1], widths[-1], **middle)

    def _condition(
        self, log_snr: Tensor, level: Tensor | None, text: Tensor | None, mask: Tensor | None, dropped: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The time embedding (B, T) and the conditioning tokens (B, L', D)."""
        modules: Any = self
        hiddens = modules.to_time_hiddens(log_snr.to(self.dtype))
        time = modules.to_time_cond(hiddens)
        tokens = [modules.to_time_tokens(hiddens)]
        if level is not None:
            hiddens = modules.to_lowres_time_hiddens(level.to(self.dtype))
            time = time + modules.to_lowres_time_cond(hiddens)
            tokens.append(modules.to_lowres_time_tokens(hiddens))
        tokens = [t.unflatten(-1, (self.config["num_time_tokens"], -1)) for t in tokens]
        if text is not None and self.text_to_cond is not None and self.to_text_non_attn_cond is not None:
            keep = torch.ones(text.shape[0], dtype=torch.bool, device=text.device) if dropped is None else ~dropped
            told = self._text_tokens(text, mask, keep)
            pooled = self.to_text_non_attn_cond(told.mean(1))
            time = time + torch.where(keep[:, None], pooled, self.null_text_hidden)
            tokens.append(told)
        return time, self.norm_cond(torch.cat(tokens, 1))

    def _text_tokens(self, text: Tensor, mask: Tensor | None, keep: Tensor) -> Tensor:
        """Learned null tokens stand in at padding, at positions beyond the text, and in dropped rows."""
        assert self.text_to_cond is not None
        longest = self.config["max_text_len"]
        mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device) if mask is None else mask.bool()
        # Padded first and cut then, the same is done to text of any length, which one exported graph takes.
        mask = F.pad(mask, (0, longest))[:, :longest]
        text = F.pad(self.text_to_cond(text), (0, 0, 0, longest))[:, :longest]
        text = torch.where((mask & keep[:, None])[..., None], text, self.null_text_embed)
        return text if self.attn_pool is None else self.attn_pool(text)

    def _through_levels(self, x: Tensor, time: Tensor, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features after the last level, and those of each level going up."""
        kept, maps = [], []
        for level in self.downs:
            before, first, blocks, attention, after = level  # pyright: ignore[reportGeneralTypeIssues]
            x = self._run(first, before(x), time, tokens)
            for block in blocks:
                x = self._run(block, x, time)
                kept.append(x)
            x = x if isinstance(attention, nn.Identity) else self._run(attention, x, tokens)
            kept.append(x)
            x = after(x)
        x = self._run(self.mid_block1, x, time, tokens)
        x = x if self.mid_attn is None else self._run(self.mid_attn, x)
        x = self._run(self.mid_block2, x, time, tokens)
        for level in self.ups:
            first, blocks, attention, after = level  # pyright: ignore[reportGeneralTypeIssues]
            x = self._run(first, torch.cat((x, kept.pop() * self.skip_scale), 1), time, tokens)
            for block in blocks:
                x = self._run(block, torch.cat((x, kept.pop() * self.skip_scale), 1), time)
            x = x if isinstance(attention, nn.Identity) else self._run(attention, x, tokens)
            maps.append(x)
            x = after(x)
        return x, maps

    def _block(self, wide: int, to: int, groups: int | None, *, attention: str | None = None, gated: bool = False) -> ResnetBlock:
        c: Any = self.config
        heads = {"heads": c.attn_heads, "head_dim": c.attn_dim_head}
        given = {"time_dim": self.time_dim, "groups": groups, "context_dim": self.token_dim}
        return ResnetBlock(wide, to, attention=attention, gated=gated, **given, **heads)

    def _transformer(self, width: int, depth: int, attends: bool, linear: bool) -> nn.Module:
        c: Any = self.config
        if not (attends or linear):
            return nn.Identity()
        heads = {"heads": c.attn_heads, "head_dim": c.attn_dim_head}
        return Transformer(width, depth=depth, mult=c.ff_mult, context_dim=self.token_dim, linear=not attends, **heads)


def per_level(value: T | Sequence[T], levels: int) -> tuple[T, ...]:
    """One value for all levels, or one each."""
    if not isinstance(value, list | tuple):
        return (value,) * levels  # pyright: ignore[reportReturnType]
    if len(value) != levels:
        raise ValueError(f"{value} has {len(value)} values for {levels} levels; give one, or one each")
    return tuple(value)
