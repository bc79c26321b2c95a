"""The pieces both U-Nets are made of: residual block, resampling, patch stem, heads and linear paths.

Letters in shapes: B batch, C channels, E width of the conditioning embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .group_norm import GroupNorm


class ResnetBlock(nn.Module):
    """GN-SiLU-conv, GN-SiLU-conv and a shortcut (Imagen, figure A.27), conditioned by scale and shift of the second norm.

    The second convolution starts at zero, so a fresh block is its shortcut.

    Args:
        in_channels, out_channels: C before and after.
        embedding_dim: E.
        norm_groups: of both group norms.
        resample: "up" or "down" changes the size by two inside the block, on both paths (BigGAN's block, F.1).
        always_project: a 1x1 convolution on the shortcut even where the widths agree (figure A.27).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding_dim: int,
        norm_groups: int,
        dropout: float = 0.0,
        resample: str | None = None,
        always_project: bool = False,
    ):
        super().__init__()
        self.resample = resample
        self.norm1 = GroupNorm(norm_groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.to_scale_shift = nn.Linear(embedding_dim, 2 * out_channels)
        self.norm2 = GroupNorm(norm_groups, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        project = always_project or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if project else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = F.silu(self.norm1(x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = upsample_nearest(h), upsample_nearest(x)
        h = self.conv1(h)
        scale, shift = self.to_scale_shift(embedding)[..., None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.conv2(self.dropout(F.silu(h))) + self.shortcut(x)


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with weights and bias at zero, for the end of a residual branch."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def upsample_nearest(x: Tensor) -> Tensor:
    """Each pixel to 2 x 2."""
    if torch.compiler.is_compiling():
        # Compiled for a processor, the backward of `interpolate` is silently zero in bfloat16 (torch 2.13).
        return x[..., :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Upsample(nn.Module):
    """Nearest neighbours, then a convolution."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(upsample_nearest(x))


class PatchStem(nn.Module):
    """Image to features: patches of pixels become channels (a plain convolution when `patch_size` is 1)."""

    def __init__(self, in_channels: int, out_channels: int, patch_size: int, *, bias: bool = True):
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(patch_size)
        self.conv = nn.Conv2d(in_channels * patch_size**2, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.unshuffle(x))


class PatchHead(nn.Module):
    """Features to image, the inverse of `PatchStem`; starts at zero."""

    def __init__(self, in_channels: int, out_channels: int, patch_size: int, norm_groups: int):
        super().__init__()
        self.norm = GroupNorm(norm_groups, in_channels)
        self.conv = zeroed(nn.Conv2d(in_channels, out_channels * patch_size**2, 3, padding=1))
        self.shuffle = nn.PixelShuffle(patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.conv(F.silu(self.norm(x))))


class LinearSkip(nn.Module):
    """A linear path past all norms, from the low-resolution condition or the noisy image to the output.

    Group norms forget how bright an image is and how full of contrast. A network that predicts noise need not know; one that predicts
    the clean image does, and learns sooner what to add to an image it is given than to generate it again.

    Args:
        channels: of the image.
        patch_size: patches of this side become channels, each with a gate of its own.
        embedding_dim: E; the gates follow the conditioning embedding.
        start: all gates of a fresh path: 1 passes the image through, 0 nothing.
    """

    def __init__(self, channels: int, patch_size: int, embedding_dim: int, *, start: float):
        super().__init__()
        self.start = start
        self.unshuffle = nn.PixelUnshuffle(patch_size)
        self.scale = zeroed(nn.Linear(embedding_dim, channels * patch_size**2))
        self.conv = nn.Conv2d(channels * patch_size**2, channels * patch_size**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(patch_size)
        nn.init.zeros_(self.conv.bias)  # pyright: ignore[reportArgumentType]
        nn.init.dirac_(self.conv.weight)

    def forward(self, image: Tensor, embedding: Tensor) -> Tensor:
        patches = self.unshuffle(image) * (self.start + self.scale(embedding)[:, :, None, None])
        return self.shuffle(self.conv(patches))


class DetailHead(nn.Module):
    """What the patches of `PatchHead` are too coarse for: a few channels at full resolution, of the features and of the noisy image.

    It costs what a few channels cost, and gives most of what finer patches would. It starts at zero.

    Args:
        in_channels: of the features, patch by patch.
        image_channels: of the noisy image, with a low-resolution condition's.
        out_channels: of the output.
        channels: at full resolution.
        patch_size, norm_groups: as in `PatchHead`.
        embedding_dim: E; it scales and shifts the channels.
    """

    def __init__(
        self,
        in_channels: int,
        image_channels: int,
        out_channels: int,
        channels: int,
        *,
        patch_size: int,
        embedding_dim: int,
        norm_groups: int,
    ):
        super().__init__()
        self.norm = GroupNorm(norm_groups, in_channels)
        self.from_features = nn.Conv2d(in_channels, channels * patch_size**2, 1)
        self.shuffle = nn.PixelShuffle(patch_size)
        self.from_image = nn.Conv2d(image_channels, channels, 3, padding=1)
        self.to_scale_shift = nn.Linear(embedding_dim, 2 * channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = zeroed(nn.Conv2d(channels, out_channels, 3, padding=1))

    def forward(self, features: Tensor, image: Tensor, embedding: Tensor, more: Tensor | None = None) -> Tensor:
        """Features (B, in_channels, H / patch, W / patch) and the image (B, image_channels, H, W) to (B, out_channels, H, W).

        `more` (B, channels, H, W) is added to what comes of the image.
        """
        x = self.shuffle(self.from_features(F.silu(self.norm(features)))) + self.from_image(image)
        x = x if more is None else x + more
        scale, shift = self.to_scale_shift(embedding)[..., None, None].chunk(2, dim=1)
        x = self.conv(F.silu(torch.addcmul(shift, x, 1 + scale)))
        return self.out(F.silu(x))


class CondImages(nn.Module):
    """Conditioning images, which come in wherever the noisy image does: at the stem and, where there is one, at the detail head.

    They are more input channels of the convolutions there, whose weights start at zero. These channels are added up apart from the
    others: so zeros change not one bit, where a wider convolution would add in another order.

    Args:
        channels: of the conditioning images.
        width, patch_size: of the stem.
        detail_channels: of the detail head; 0 where there is none.
    """

    def __init__(self, channels: int, width: int, patch_size: int, detail_channels: int):
        super().__init__()
        self.stem = zeroed(PatchStem(channels, width, patch_size, bias=False))
        self.detail = zeroed(nn.Conv2d(channels, detail_channels, 3, padding=1, bias=False)) if detail_channels else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (B, channels, H, W) to what is added at the stem and at the detail head, None where there is none."""
        return self.stem(images), None if self.detail is None else self.detail(images)
