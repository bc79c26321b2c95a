"""Networks evaluated piece by piece, where a batch or an image is too large for the memory at hand.

The denoising loop keeps whole images: their noise, the solver and the thresholds are the same with pieces and without. Only the
network sees less at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from .network import StageNetwork


@dataclass(frozen=True)
class Pieces:
    """What a network is given at once.

    Args:
        rows: images of a batch, a guided one counting two; None for all.
        tile: side of the tiles in pixels; None for whole images.
        overlap: of neighbouring tiles, as a share of the tile's side, in [0, 1).
    """

    rows: int | None = None
    tile: int | None = None
    overlap: float = 0.25

    def predict(self, network: StageNetwork, sample: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Tensor:
        """`network.predict`, in pieces."""
        count = len(sample)
        rows = self.rows or count
        parts = []
        for start in range(0, count, rows):
            few = slice(start, start + rows)
            given = {k: v[few] if isinstance(v, Tensor) and v.ndim and len(v) == count else v for k, v in arguments.items()}
            its_time = timestep[few] if timestep.ndim else timestep
            parts.append(self._in_tiles(network, sample[few], its_time, given))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _in_tiles(self, network: StageNetwork, sample: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Tensor:
        """Where tiles overlap, their predictions fade into each other."""
        height, width = sample.shape[-2:]
        if self.tile is None or (height <= self.tile and width <= self.tile):
            return network.predict(sample, timestep, arguments)
        tile = max(self.tile // network.stride, 1) * network.stride
        shared = min(int(tile * self.overlap) // network.stride * network.stride, tile - network.stride)
        total, weights = torch.zeros(()), torch.zeros(height, width, device=sample.device)
        for y, x in product(spans(height, tile, shared), spans(width, tile, shared)):
            given = {k: v[..., y, x] if _is_image(k, v, (height, width)) else v for k, v in arguments.items()}
            part = network.predict(sample[..., y, x], timestep, given)
            weight = ramp(y, height, shared, sample.device)[:, None] * ramp(x, width, shared, sample.device)
            if not total.ndim:
                total = part.new_zeros(*part.shape[:2], height, width)
            total[..., y, x] += part * weight
            weights[y, x] += weight
        return total / weights


def spans(side: int, tile: int, shared: int) -> Iterator[slice]:
    """Stretches of `tile` pixels that cover `side`, neighbours sharing at least `shared`; the last one ends where the side does."""
    starts = range(0, max(side - tile, 0), tile - shared)
    for start in [*starts, max(side - tile, 0)]:
        yield slice(start, min(start + tile, side))


def ramp(span: slice, side: int, shared: int, device: torch.device) -> Tensor:
    """Weights (length,) of a stretch: 1 in its middle, falling over `shared` pixels to each end that is not the image's own."""
    at = torch.arange(span.start, span.stop, device=device)
    up = (at - span.start + 0.5) / max(shared, 1) if span.start > 0 else torch.ones_like(at)
    down = (span.stop - at - 0.5) / max(shared, 1) if span.stop < side else torch.ones_like(at)
    return torch.minimum(up, down).clamp(max=1.0)


def _is_image(name: str, value: Any, size: tuple[int, int]) -> bool:
    """Whether this argument is to be cut into tiles, too.

    Raises:
        ValueError: for images of another size, whose tiles nobody knows.
    """
    if not isinstance(value, Tensor) or value.ndim != 4:
        return False
    if tuple(value.shape[-2:]) != size:
        raise ValueError(f"{name} is {tuple(value.shape[-2:])}; in tiles it must be as large as the stage's image, {size}")
    return True
