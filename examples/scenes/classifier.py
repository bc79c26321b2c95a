"""A small network that tells two kinds of 256px images apart; it has only ever seen renders."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from .raytrace import render
from .scene import Scene

WIDTHS = (16, 24, 32, 48)


class Classifier(nn.Module):
    """Scores above 0 for the second kind; of the most telling place in the image and of the whole."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide, to in zip((3, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(wide, to, 3, 2, 1, bias=False), nn.BatchNorm2d(to), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(2 * WIDTHS[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 256, 256) in [-1, 1] to (B,)."""
        maps = self.body(images)
        return self.head(torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), 1))[:, 0]

    @torch.no_grad()
    def count(self, images: Tensor) -> int:
        """How many of the images are of the second kind."""
        return sum(int((self(few) > 0).sum()) for few in images.split(16))


def train(first: Tensor, second: Tensor, steps: int = 300) -> Classifier:
    """On images (N, 3, 256, 256) of both kinds, with noise, so that it does not lean on single pixels."""
    torch.manual_seed(0)
    classifier, generator = Classifier(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3)
    for _ in trange(steps, desc="classifier"):
        one, two = (kind[torch.randint(len(kind), (8,), generator=generator)] for kind in (first, second))
        images = torch.cat((one, two))
        images = images + 0.1 * torch.rand(16, 1, 1, 1, generator=generator) * torch.randn(images.shape, generator=generator)
        loss = F.binary_cross_entropy_with_logits(classifier(images), torch.arange(16) // 8 * 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier.eval()


def draw_scenes(scenes: list[Scene], size: int = 256) -> Tensor:
    return torch.cat([render(scenes[i : i + 8], size, samples=2) for i in trange(0, len(scenes), 8, desc="renders")])
