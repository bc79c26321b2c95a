"""Attention between pixels, and from pixels to text (Imagen, section 2.5 and appendix D.3.1).

Letters in shapes: B batch, C channels, N = H * W pixels, L text tokens, D text width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import AttentionMixin, AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor, nn

from .adapters import holds_adapter
from .blocks import zeroed
from .group_norm import GroupNorm

ATTENTION_KINDS = ("self", "self_text", "cross_text")


class ImagenAttnProcessor:
    """Projects, joins text to the keys and values, and attends by diffusers' dispatcher."""

    _attention_backend = None
    _parallel_config = None

    def __call__(self, attn: "ImagenAttention", hidden_states: Tensor, text: Tensor | None, mask: Tensor | None) -> Tensor:
        source = text if attn.is_cross_attention else hidden_states
        if attn.fused_projections and not attn.is_cross_attention:
            q, k, v = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        elif attn.fused_projections:
            q, (k, v) = attn.to_q(hidden_states), attn.to_kv(source).chunk(2, dim=-1)
        else:
            q, k, v = attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)
        if attn.add_k_proj is not None and attn.add_v_proj is not None:
            k = torch.cat((attn.add_k_proj(text), k), dim=1)
            v = torch.cat((attn.add_v_proj(text), v), dim=1)
            if mask is not None:
                mask = F.pad(mask, (0, hidden_states.shape[1]), value=True)  # pixels are never padding
        q, k, v = (x.unflatten(-1, (attn.heads, -1)) for x in (q, k, v))
        mask = None if mask is None else mask[:, None, None]
        out = dispatch_attention_fn(q, k, v, attn_mask=mask, backend=self._attention_backend, parallel_config=self._parallel_config)
        if mask is not None and attn.is_cross_attention:
            # A row without a token attends to nothing; kernels differ in what they make of it, and some runtimes average the padding.
            out = out.masked_fill(~mask.any(-1, keepdim=True), 0)
        return attn.to_out(out.flatten(2))


def has_fused_projections(unet: nn.Module) -> bool:
    """Whether an attention computes by a copy of its projections that are fused into one, and no longer by these themselves."""
    return any(getattr(module, "fused_projections", False) for module in unet.modules())


class FusableAttentionMixin(AttentionMixin):
    """diffusers' methods for all attention of a network."""

    def fuse_qkv_projections(self) -> None:
        """As in diffusers: one product in place of three.

        Raises:
            ValueError: while the network holds a LoRA adapter, which goes on the projections themselves and would not act.
        """
        if holds_adapter(self):  # type: ignore[arg-type]
            raise ValueError(
                "this network holds a LoRA adapter, which would not act on fused projections; call fuse_lora() and unload_lora() to have "
                "it in the weights first, or unload_lora() to go on without"
            )
        super().fuse_qkv_projections()


def check_heads(name: str, channels: int, width: int) -> None:
    """Channels divide into heads of `width` each, or are too few for more than one head.

    Raises:
        ValueError: with the configuration value's name.
    """
    if width < 1 or (channels > width and channels % width):
        raise ValueError(f"{name} makes heads of {width} channels, which do not divide {channels}; choose a divisor")


class ImagenAttention(nn.Module, AttentionModuleMixin):
    """Residual attention over the pixels of a feature map, in one of three kinds.

    - ``"self"``: pixels attend to pixels;
    - ``"self_text"``: text tokens join the pixels' keys and values (base and 256px networks);
    - ``"cross_text"``: pixels attend to text alone, at a cost linear in the pixels (1024px network).

    The output projection starts at zero, so a fresh layer changes nothing.
    """

    _default_processor_cls = ImagenAttnProcessor
    _available_processors = [ImagenAttnProcessor]
    use_bias = False
    processor: Any

    def __init__(self, channels: int, kind: str, *, text_dim: int | None, head_dim: int, hidden_dim: int, norm_groups: int):
        super().__init__()
        assert kind == "self" or text_dim is not None, "the networks check this for their users"
        text_width = text_dim or 0
        self.heads = max(hidden_dim // head_dim, 1)
        self.is_cross_attention = kind == "cross_text"
        self.norm = GroupNorm(norm_groups, channels)
        self.norm_text = nn.LayerNorm(text_width) if kind != "self" else None
        source_dim = text_width if self.is_cross_attention else channels
        self.to_q = nn.Linear(channels, hidden_dim, bias=False)
        self.to_k = nn.Linear(source_dim, hidden_dim, bias=False)
        self.to_v = nn.Linear(source_dim, hidden_dim, bias=False)
        self.add_k_proj = nn.Linear(text_width, hidden_dim, bias=False) if kind == "self_text" else None
        self.add_v_proj = nn.Linear(text_width, hidden_dim, bias=False) if kind == "self_text" else None
        self.to_out = zeroed(nn.Linear(hidden_dim, channels))
        self.processor = ImagenAttnProcessor()

    def forward(self, x: Tensor, text: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to the same; text (B, L, D), mask (B, L) bool, True at tokens."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # B N C
        if self.norm_text is None:
            text = mask = None
        else:
            text = self.norm_text(text)
        out = self.processor(self, tokens, text, mask)
        return x + out.transpose(1, 2).unflatten(2, x.shape[2:])
