"""The pieces of imagen-pytorch's U-Net around its attention, for checkpoints that were trained with it.

Parameters are named and laid out as there, so that its weights load as they are; the arithmetic is diffusers' and torch's own.
Letters in shapes: B batch, C channels, N = H * W pixels, L tokens, D width of the conditioning tokens, T of the time embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import LinearCrossAttention, UnitAttention

GROUPS = 8  # of group norm, in releases that have it, where nothing else is said


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


class GlobalContext(nn.Module):
    """A gate for each channel, from an image-wide summary that attends to telling places."""

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
