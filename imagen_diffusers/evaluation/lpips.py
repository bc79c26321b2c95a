"""LPIPS with VGG16 (Zhang et al. 2018), from given weights: torchvision's file of the network, and the published layers upon it."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from imagen_diffusers.extras import install

WIDTHS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)  # M is a pooling
COMPARED = (3, 8, 15, 22, 29)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]


class Lpips(nn.Module):
    """Images and true ones, (B, 3, H, W) in [0, 1], to (B,): 0 for the same, larger for what looks less alike.

    Args:
        weights: of torchvision's VGG16, its file as it is (vgg16-397923af.pth) or as safetensors.
        linear: the published weights of the squared differences; those that torchmetrics brings along by default.

    Raises:
        ValueError: for a file of other weights.
        ImportError: without torchmetrics.
    """

    def __init__(self, weights: Path, linear: Path | None = None):
        super().__init__()
        self.features = _vgg16()
        own = {name: value for name, value in _read(weights).items() if name.startswith("features.")}
        missing, unexpected = self.load_state_dict(own, strict=False)
        if missing or unexpected:
            raise ValueError(f"{weights} holds no VGG16 as torchvision saves it; its file is vgg16-397923af.pth")
        lins = _read(linear or _published())
        for n in range(len(COMPARED)):
            self.register_buffer(f"lin{n}", lins[f"lin{n}.model.1.weight"])
        for name, value in (("shift", SHIFT), ("scale", SCALE)):
            self.register_buffer(name, torch.tensor(value)[None, :, None, None])
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor, true: Tensor) -> Tensor:
        ones, others = self._levels(images), self._levels(true)
        distance = torch.zeros(len(images), device=images.device)
        for n, (one, other) in enumerate(zip(ones, others, strict=True)):
            squares = (one - other).square()  # (B, C, h, w)
            distance = distance + nn.functional.conv2d(squares, self.get_buffer(f"lin{n}")).mean((1, 2, 3))
        return distance

    def _levels(self, images: Tensor) -> list[Tensor]:
        """The network's activations at the compared layers, each pixel's of length 1."""
        x, found = (images * 2 - 1 - self.get_buffer("shift")) / self.get_buffer("scale"), []
        for n, layer in enumerate(self.features):
            x = layer(x)
            if n in COMPARED:
                found.append(x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt())
        return found


def _vgg16() -> nn.Sequential:
    """Up to its last compared layer, with torchvision's numbers."""
    layers, channels = [], 3
    for width in WIDTHS:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def _published() -> Path:
    try:
        from torchmetrics.functional.image import lpips
    except ImportError:
        raise ImportError(f"LPIPS needs torchmetrics: {install('evaluation')}") from None
    return Path(lpips.__file__).parent / "lpips_models" / "vgg.pth"


def _read(path: Path) -> dict[str, Tensor]:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
