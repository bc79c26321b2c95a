"""The pieces of imagen-pytorch's U-Net, for checkpoints that were trained with it.

Parameters are named and laid out as there, so that its weights load as they are; the arithmetic is diffusers' and torch's own.
Letters in shapes: B batch, C channels, N = H * W pixels, L tokens, D width of the conditioning tokens, T of the time embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOGIT_SCALE = 8  # of attention between unit vectors


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


class ChannelRMSNorm(nn.Module):
    """Each pixel's channels to length sqrt(C), times a gain (releases from 2.0 on)."""

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * (self.gamma * x.shape[1] ** 0.5)


def make_norm(channels: int, groups: int | None) -> nn.Module:
    """Of a residual block: channel RMS norm, or group norm up to release 1.26."""
    return ChannelRMSNorm(channels) if groups is None else nn.GroupNorm(groups, channels)


class UnitAttention(nn.Module):
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

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, N, width) and tokens (B, L, D) to (B, N, width)."""
        x = self.norm(x)
        q = self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # B heads N d
        heads = self.heads if self.cross else 1
        kv = self.to_kv(context if self.cross else x)
        pair = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in kv.chunk(2, dim=-1)]
        pair = [torch.cat((null.expand(len(x), heads, 1, -1), part), 2) for null, part in zip(self.null_kv, pair, strict=True)]
        if self.to_context is not None and context is not None:
            pair = [torch.cat((c[:, None], part), 2) for c, part in zip(self.to_context(context).chunk(2, dim=-1), pair, strict=True)]
        k, v = (part.expand(-1, self.heads, -1, -1) for part in pair)
        q, k = F.normalize(q, dim=-1) * self.q_scale, F.normalize(k, dim=-1) * self.k_scale
        out = F.scaled_dot_product_attention(q, k, v, scale=LOGIT_SCALE)
        return self.to_out(out.transpose(1, 2).flatten(2))


class LinearCrossAttention(UnitAttention):
    """Cross-attention whose softmaxes are taken of queries and keys by themselves: a cost linear in pixels and tokens."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        q = self.to_q(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        kv = self.to_kv(context).chunk(2, dim=-1)
        pair = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in kv]
        k, v = (torch.cat((null.expand(len(x), self.heads, 1, -1), part), 2) for null, part in zip(self.null_kv, pair, strict=True))
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


class PerceiverAttention(nn.Module):
    """Latents attend to tokens and to themselves."""

    def __init__(self, width: int, *, heads: int, head_dim: int):
        super().__init__()
        self.heads = heads
        self.norm, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * head_dim, bias=False)
        self.q_scale, self.k_scale = nn.Parameter(torch.ones(head_dim)), nn.Parameter(torch.ones(head_dim))
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, width, bias=False), nn.LayerNorm(width))

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        tokens, latents = self.norm(tokens), self.norm_latents(latents)
        kv = self.to_kv(torch.cat((tokens, latents), 1)).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.to_q(latents), *kv))
        q, k = F.normalize(q, dim=-1) * self.q_scale, F.normalize(k, dim=-1) * self.k_scale
        return self.to_out(F.scaled_dot_product_attention(q, k, v, scale=LOGIT_SCALE).transpose(1, 2).flatten(2))


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
        latents = torch.cat((pooled, self.latents.expand(len(tokens), -1, -1)), 1)
        placed = tokens + self.pos_emb.weight[: tokens.shape[1]]
        for layer in self.layers:
            attention, feed = layer  # pyright: ignore[reportGeneralTypeIssues]
            latents = attention(placed, latents) + latents
            latents = feed(latents) + latents
        return latents


class GlobalContext(nn.Module):
    """A gate for each channel, from a picture-wide summary that attends to telling places."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(3, channels // 2)
        self.to_k = nn.Conv2d(channels, 1, 1)
        self.net = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        weights = self.to_k(x).flatten(2).softmax(dim=-1)  # B 1 N
        return self.net((x.flatten(2) @ weights.transpose(1, 2))[..., None])


class ConvBlock(nn.Module):
    """Norm, scale and shift, SiLU, convolution."""

    def __init__(self, in_channels: int, out_channels: int, groups: int | None):
        super().__init__()
        self.norm = make_norm(in_channels, groups)
        self.project = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        if scale is not None and shift is not None:
            x = torch.addcmul(shift, x, scale + 1)
        return self.project(F.silu(x))


class ResnetBlock(nn.Module):
    """Two convolutions with cross-attention to the tokens between them, time as scale and shift, and a gate.

    Args:
        in_channels, out_channels: C before and after.
        time_dim: T.
        groups: of group norm; None for RMS norm.
        attention: "cross", "linear" or None.
        context_dim: D.
        gated: with a `GlobalContext`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        time_dim: int,
        groups: int | None,
        attention: str | None = None,
        context_dim: int | None = None,
        heads: int = 8,
        head_dim: int = 64,
        gated: bool = False,
    ):
        super().__init__()
        self.time_mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, 2 * out_channels))
        kind = LinearCrossAttention if attention == "linear" else UnitAttention
        dims = {"heads": heads, "head_dim": head_dim, "context_dim": context_dim, "cross": True}
        self.cross_attn = kind(out_channels, **dims) if attention else None
        self.block1, self.block2 = ConvBlock(in_channels, out_channels, groups), ConvBlock(out_channels, out_channels, groups)
        self.gca = GlobalContext(out_channels) if gated else None
        self.res_conv = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor | None = None) -> Tensor:
        h = self.block1(x)
        if self.cross_attn is not None:
            pixels = h.flatten(2).transpose(1, 2)
            h = h + self.cross_attn(pixels, tokens).transpose(1, 2).unflatten(2, h.shape[2:])
        h = self.block2(h, *self.time_mlp(time)[..., None, None].chunk(2, dim=1))
        h = h if self.gca is None else h * self.gca(h)
        return h + self.res_conv(x)


class CrossEmbed(nn.Module):
    """The first convolution in several sizes of kernel, side by side; larger ones get fewer channels."""

    def __init__(self, in_channels: int, out_channels: int, kernel_sizes: tuple[int, ...]):
        super().__init__()
        sizes = sorted(kernel_sizes)
        widths = [out_channels // 2**i for i in range(1, len(sizes))]
        widths.append(out_channels - sum(widths))
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels, width, size, padding=(size - 1) // 2) for width, size in zip(widths, sizes, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([conv(x) for conv in self.convs], 1)


class PixelShuffleUpsample(nn.Module):
    """A pointwise convolution, then four channels become four pixels."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(in_channels, 4 * out_channels, 1), nn.SiLU(), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def upsample(in_channels: int, out_channels: int, pixel_shuffle: bool) -> nn.Module:
    if pixel_shuffle:
        return PixelShuffleUpsample(in_channels, out_channels)
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(in_channels, out_channels, 3, padding=1))


def downsample(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * in_channels, out_channels, 1))


class Parallel(nn.Module):
    """The sum of a 3x3 and a pointwise convolution, where the last level changes its width."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.fns = nn.ModuleList([nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.Conv2d(in_channels, out_channels, 1)])

    def forward(self, x: Tensor) -> Tensor:
        return self.fns[0](x) + self.fns[1](x)


class LearnedFourier(nn.Module):
    """A number with its sines and cosines at learned frequencies: (B,) to (B, width + 1)."""

    def __init__(self, width: int):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(width // 2))

    def forward(self, x: Tensor) -> Tensor:
        angles = x[:, None] * self.weights * 2 * torch.pi
        return torch.cat((x[:, None], angles.sin(), angles.cos()), -1)
