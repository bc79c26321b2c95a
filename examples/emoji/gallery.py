"""All images that a cascade of emoji was trained on, and which of them is nearest to an image, pixel by pixel.

A training image is a rendering in some size and place, mirrored or not, on a plain colour. So the search is over all of these, on the
background that the image has: among all renderings at 32px, and among the `KEPT` nearest of them at 64px. The distances at all places are
one correlation, by Fourier transforms.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.fft import irfft2, rfft2

from .colors import background
from .compositions import SIZE, Place, compose, layer, open_thing
from .things import IMAGES, Thing, trained_files

SIDE = 64  # pixels of what is compared
KEPT = 16
AT_ONCE = 256  # renderings


class Rendering(NamedTuple):
    """What a training image shows, and its file."""

    thing: Thing
    file: str


class Near(NamedTuple):
    """The nearest training image.

    Args:
        distance: root of the mean squared difference of all channels, in levels of 255.
        number: of the rendering in the gallery.
        at: its place in an image of `SIZE`.
    """

    distance: float
    number: int
    at: Place


class Gallery:
    """The renderings of a folder's things.

    Args:
        things: all that were trained on.
        folder: of their images.
    """

    def __init__(self, things: Sequence[Thing], folder: Path):
        self.folder = folder
        self.renderings = [Rendering(thing, file) for thing, file in trained_files(things)]

    def open(self, number: int) -> Image.Image:
        return open_thing(self.folder / IMAGES / self.renderings[number].file)

    def shown(self, number: int, at: Place, color: np.ndarray) -> Tensor:
        """A training image on a colour (3,) in [0, 255]: (3, `SIZE`, `SIZE`) in [0, 1]."""
        return torch.from_numpy(compose(layer(self.open(number), at), color.astype(np.float32))).float() / 255

    def nearest(self, images: Tensor, without: Sequence[str | None] | None = None) -> list[Near]:
        """The nearest training image of each (B, 3, 64, 64) in [0, 1].

        Args:
            without: for each image the name of a thing that is passed over, with all its renderings.
        """
        every = range(len(self.renderings))
        parts = [every[start : start + AT_ONCE] for start in range(0, len(every), AT_ONCE)]
        small = F.avg_pool2d(images, 2)
        coarse = torch.cat([self._search(part, small)[0] for part in parts], 1)
        for squares, name in zip(coarse, without or (), strict=False):
            squares[torch.tensor([one.thing.name == name for one in self.renderings])] = torch.inf
        return [self._among(squares, image) for squares, image in zip(coarse, images, strict=True)]

    def _among(self, squares: Tensor, image: Tensor) -> Near:
        """The nearest of the renderings with the least squares (N,), its distance taken from the training image itself."""
        kept = squares.topk(min(KEPT, int(squares.isfinite().sum())), largest=False).indices.tolist()
        (found,), (places,) = self._search(kept, image[None])
        best = int(found.argmin())
        at = self._place(kept[best], *places[best].tolist())
        shown = F.adaptive_avg_pool2d(self.shown(kept[best], at, color_behind(image)), SIDE)
        return Near((shown - image).square().mean().sqrt().item() * 255, kept[best], at)

    def _search(self, numbers: Sequence[int], images: Tensor) -> tuple[Tensor, Tensor]:
        """Of images (B, 3, H, H) and these N renderings the least squares (B, N), and where: (B, N, 3), length, mirrored and place."""
        side, things = images.shape[-1], [self.open(number) for number in numbers]
        mirrors = torch.tensor([self.renderings[number].thing.mirrors for number in numbers])
        least, at = torch.full((len(images), len(things)), torch.inf), torch.zeros(len(images), len(things), 3, dtype=torch.long)
        for length in range(side * 3 // 4, side + 1, 2):  # of a thing's longer side: 75 to 100 %, as in training
            bank = Bank.of([thing.resize(_scaled(thing, length), Image.Resampling.LANCZOS) for thing in things], side)
            for mirrored in (False, True):
                for i, image in enumerate(images.flip(-1) if mirrored else images):
                    squares, places = bank.nearest(image)
                    better = (squares < least[i]) & (mirrors | (not mirrored))
                    least[i, better] = squares[better]
                    at[i, better] = torch.stack((torch.full_like(places, length), torch.full_like(places, mirrored), places), 1)[better]
        return least, at

    def _place(self, number: int, length: int, mirrored: int, place: int) -> Place:
        """In a composition of `SIZE`, of what was found in an image of 64px, which was mirrored or not."""
        (width, height), (top, left) = _scaled(self.open(number), length), divmod(place, SIDE)
        left = SIDE - left - width if mirrored else left
        return Place(*(value * (SIZE // SIDE) for value in (left, top, width, height)), mirrored=bool(mirrored))


class Bank(NamedTuple):
    """Renderings of some size, to be laid over an image's background at every place.

    Args:
        spectra: of the renderings at the top left (N, 4, H, H // 2 + 1): colours times alpha in [0, 255], and alpha in [0, 1].
        products: sums over pixels of the products of these four (N, 4, 4).
        inside: at which places the whole rendering is inside the image (N, H, H).
    """

    spectra: Tensor
    products: Tensor
    inside: Tensor

    @classmethod
    def of(cls, renderings: Sequence[Image.Image], side: int) -> "Bank":
        values, inside = torch.zeros(len(renderings), 4, side, side), torch.zeros(len(renderings), side, side, dtype=torch.bool)
        for pixels, places, thing in zip(values, inside, renderings, strict=True):
            pixels[:, : thing.height, : thing.width] = torch.from_numpy(np.array(thing, np.float32)).permute(2, 0, 1)
            places[: side - thing.height + 1, : side - thing.width + 1] = True
        values[:, 3] /= 255
        return cls(rfft2(values), torch.einsum("nixy,njxy->nij", values, values), inside)

    def nearest(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Of an image (3, H, H) in [0, 1] each rendering's least sum of squares, in levels, and its place, row by row: (N,) each.

        The image and a rendering both differ from the background; |a - b|^2 = |a|^2 - 2 a b + |b|^2, where b = colours - background alpha.
        """
        color = torch.from_numpy(color_behind(image)).float()
        rest = image * 255 - color[:, None, None]
        weights = torch.cat((torch.eye(3), -color[:, None]), 1)  # of the four in b's channels
        spectrum = torch.einsum("ci,cxy->ixy", weights.to(torch.cfloat), rfft2(rest))
        matched = irfft2((spectrum * self.spectra.conj()).sum(1), s=rest.shape[1:])
        own = torch.einsum("ci,nij,cj->n", weights, self.products, weights)
        squares = rest.square().sum() - 2 * matched + own[:, None, None]
        return squares.masked_fill(~self.inside, torch.inf).flatten(1).min(1)


def color_behind(image: Tensor) -> np.ndarray:
    """The background of an image (3, H, W) in [0, 1]: (3,) in [0, 255]."""
    return background((image * 255).permute(1, 2, 0).numpy())


def _scaled(thing: Image.Image, length: int) -> tuple[int, int]:
    """Width and height of a thing whose longer side has this length."""
    width, height = (max(round(side * length / max(thing.size)), 1) for side in thing.size)
    return width, height
