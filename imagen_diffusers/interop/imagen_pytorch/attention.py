"""Attention as imagen-pytorch's U-Net has it, for checkpoints that were trained with it.

Parameters are named and laid out as there, so that its weights load as they are; the arithmetic is diffusers' and torch's own.
Letters in shapes: B batch, C channels, N = H * W pixels, L tokens, D width of the conditioning tokens.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor, nn

LOGIT_SCALE = 8  # of attention between unit vectors


class UnitAttnProcessor:
    """Attends by diffusers' dispatcher, so that its attention backends can be chosen."""

    _attention_backend = None
    _parallel_config = None

    def __call__(self, attn: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries, keys and values (B, tokens, heads, d) before they are made unit vectors, to (B, tokens, heads * d)."""
        q, k = F.normalize(q, dim=-1) * attn.q_scale, F.normalize(k, dim=-1) * attn.k_scale
        out = dispatch_attention_fn(q, k, v, scale=LOGIT_SCALE, backend=self._attention_backend, parallel_config=self._parallel_config)
        return out.flatten(2)


class UnitAttentionMixin(AttentionModuleMixin):
    """What diffusers asks of an attention module. One projection makes keys and values already, so there is nothing to fuse."""

    _default_processor_cls = UnitAttnProcessor
    _available_processors = [UnitAttnProcessor]
    _supports_qkv_fusion = False
    processor: Any


class GainNorm(nn.Module):
    """Layer norm with a gain alone, over the last dimension, or over channels of a map."""

    def __init__(self, width: int, *, of_map: bool = False):
        super().__init__()
        self.g = nn.Parameter(torch.ones(width, 1, 1) if of_map else torch.ones(width))
        self.of_map = of_map

    def forward(self, x: Tensor) -> Tensor:
        epsilon = 1e-3 if x.dtype.itemsize < 4 else 1e-5  # as it was trained
        if not self.of_map:
            return F.layer_norm(x, x.shape[-1:], self.g, eps=epsilon)
        return F.layer_norm(x.movedim(1, -1), x.shape[1:2], self.g.flatten(), eps=epsilon).movedim(-1, 1)


class UnitAttention(nn.Module, UnitAttentionMixin):
    """Queries and keys of unit length with a gain a channel; a learned null key and value; the output is normed.

    Args:
        width: of the queries' input and of the output.
        heads, head_dim: of the queries.
        context_dim: D of the tokens; attended to beside the pixels, or, with `cross`, alone.
        cross: keys and values come from the context, each head its own; otherwise one head of them is shared by all.
    """

    def __init__(self, width: int, *, heads: int, head_dim: int, context_dim: int | None, cross: bool):
        super().__init__()
        self.heads, self.cross = heads, cross
        self.norm = GainNorm(width)
        self.null_kv = nn.Parameter(torch.randn(2, head_dim))
        self.to_q = nn.Linear(width, heads * head_dim, bias=False)
        source, keys = (context_dim or width, heads * head_dim) if cross else (width, head_dim)
        self.to_kv = nn.Linear(source, 2 * keys, bias=False)
        self.q_scale = nn.Parameter(torch.ones(head_dim))
        self.k_scale = nn.Parameter(torch.ones(head_dim))
        self.to_context = None
        if context_dim is not None and not cross:
            self.to_context = nn.Sequential(nn.LayerNorm(context_dim), nn.Linear(context_dim, 2 * head_dim))
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, width, bias=False), GainNorm(width))
        self.processor = UnitAttnProcessor()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, N, width) and tokens (B, L, D) to (B, N, width)."""
        x = self.norm(x)
        q = self.to_q(x).unflatten(-1, (self.heads, -1))  # B N heads d
        heads = self.heads if self.cross else 1
        kv = self.to_kv(context if self.cross else x)
        pair = [part.unflatten(-1, (heads, -1)) for part in kv.chunk(2, dim=-1)]
        pair = [torch.cat((null.expand(x.shape[0], 1, heads, -1), part), 1) for null, part in zip(self.null_kv, pair, strict=True)]
        if self.to_context is not None and context is not None:
            pair = [torch.cat((c[:, :, None], part), 1) for c, part in zip(self.to_context(context).chunk(2, dim=-1), pair, strict=True)]
        k, v = (part.expand(-1, -1, self.heads, -1) for part in pair)
        return self.to_out(self.processor(self, q, k, v))


class LinearCrossAttention(UnitAttention):
    """Cross-attention whose softmaxes are taken of queries and keys by themselves: a cost linear in pixels and tokens."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        q = self.to_q(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        kv = self.to_kv(context).chunk(2, dim=-1)
        pair = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in kv]
        k, v = (torch.cat((null.expand(x.shape[0], self.heads, 1, -1), part), 2) for null, part in zip(self.null_kv, pair, strict=True))
        summary = k.softmax(dim=-2).transpose(-1, -2) @ v  # B heads d d
        out = (q.softmax(dim=-1) * LOGIT_SCALE) @ summary
        return self.to_out(out.transpose(1, 2).flatten(2))


class LinearAttention(nn.Module):
    """The same between pixels, tokens joined to the keys and values; queries, keys and values come of depthwise convolutions."""

    DROPOUT = 0.05

    def __init__(self, width: int, *, heads: int, head_dim: int, context_dim: int | None):
        super().__init__()
        self.heads, inner = heads, heads * head_dim
        self.norm = GainNorm(width, of_map=True)

        def projection() -> nn.Sequential:
            depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
            return nn.Sequential(nn.Dropout(self.DROPOUT), nn.Conv2d(width, inner, 1, bias=False), depthwise)

        self.to_q, self.to_k, self.to_v = projection(), projection(), projection()
        self.to_context = None
        if context_dim is not None:
            self.to_context = nn.Sequential(nn.LayerNorm(context_dim), nn.Linear(context_dim, 2 * inner, bias=False))
        self.to_out = nn.Sequential(nn.Conv2d(inner, width, 1, bias=False), GainNorm(width, of_map=True))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, C, H, W) and tokens (B, L, D) to (B, C, H, W)."""
        size, x = x.shape[2:], self.norm(x)
        q, k, v = (f(x).flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3) for f in (self.to_q, self.to_k, self.to_v))
        if self.to_context is not None and context is not None:
            told = (c.unflatten(-1, (self.heads, -1)).transpose(1, 2) for c in self.to_context(context).chunk(2, dim=-1))
            k, v = (torch.cat((part, c), 2) for part, c in zip((k, v), told, strict=True))
        summary = k.softmax(dim=-2).transpose(-1, -2) @ v
        out = (q.softmax(dim=-1) * q.shape[-1] ** -0.5) @ summary
        return self.to_out(F.silu(out.transpose(2, 3).flatten(1, 2).unflatten(2, size)))


def feed_forward(width: int, mult: float, *, of_map: bool = False) -> nn.Sequential:
    hidden = int(width * mult)

    def linear(wide: int, to: int) -> nn.Module:
        return nn.Conv2d(wide, to, 1, bias=False) if of_map else nn.Linear(wide, to, bias=False)

    norms = GainNorm(width, of_map=of_map), GainNorm(hidden, of_map=of_map)
    return nn.Sequential(norms[0], linear(width, hidden), nn.GELU(), norms[1], linear(hidden, width))


class Transformer(nn.Module):
    """Layers of attention and feed-forward over a feature map; linear attention keeps it a map."""

    def __init__(self, width: int, *, depth: int, heads: int, head_dim: int, mult: float, context_dim: int | None, linear: bool):
        super().__init__()
        self.linear = linear
        dims = {"heads": heads, "head_dim": head_dim, "context_dim": context_dim}
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    LinearAttention(width, **dims) if linear else UnitAttention(width, **dims, cross=False),
                    feed_forward(width, mult, of_map=linear),
                ]
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        size = x.shape[2:]
        x = x if self.linear else x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            attention, feed = layer  # pyright: ignore[reportGeneralTypeIssues]
            x = attention(x, context) + x
            x = feed(x) + x
        return x if self.linear else x.transpose(1, 2).unflatten(2, size)


class PerceiverAttention(nn.Module, UnitAttentionMixin):
    """Latents attend to tokens and to themselves."""

    def __init__(self, width: int, *, heads: int, head_dim: int):
        super().__init__()
        self.heads = heads
        self.norm, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * head_dim, bias=False)
        self.q_scale, self.k_scale = nn.Parameter(torch.ones(head_dim)), nn.Parameter(torch.ones(head_dim))
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, width, bias=False), nn.LayerNorm(width))
        self.processor = UnitAttnProcessor()

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        tokens, latents = self.norm(tokens), self.norm_latents(latents)
        kv = self.to_kv(torch.cat((tokens, latents), 1)).chunk(2, dim=-1)
        return self.to_out(self.processor(self, *(part.unflatten(-1, (self.heads, -1)) for part in (self.to_q(latents), *kv))))


class PerceiverResampler(nn.Module):
    """Any number of tokens to `num_latents` + 4: two layers of `PerceiverAttention`. Padding is not masked here."""

    MEAN_POOLED, LONGEST, DEPTH, MULT = 4, 512, 2, 4

    def __init__(self, width: int, *, heads: int, head_dim: int, num_latents: int):
        super().__init__()
        self.pos_emb = nn.Embedding(self.LONGEST, width)
        self.latents = nn.Parameter(torch.randn(num_latents, width))
        self.to_latents_from_mean_pooled_seq = nn.Sequential(GainNorm(width), nn.Linear(width, width * self.MEAN_POOLED))
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(width, heads=heads, head_dim=head_dim), feed_forward(width, self.MULT)])
            for _ in range(self.DEPTH)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        pooled = self.to_latents_from_mean_pooled_seq(tokens.mean(1)).unflatten(-1, (self.MEAN_POOLED, -1))
        latents = torch.cat((pooled, self.latents.expand(tokens.shape[0], -1, -1)), 1)
        placed = tokens + self.pos_emb(torch.arange(tokens.shape[1], device=tokens.device))  # by a call: offloaded weights come then
        for layer in self.layers:
            attention, feed = layer  # pyright: ignore[reportGeneralTypeIssues]
            latents = attention(placed, latents) + latents
            latents = feed(latents) + latents
        return latents
