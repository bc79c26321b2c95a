"""A difference known in a part of an image, carried into the rest as smoothly as can be (Perez et al. 2003, "Poisson image editing").

Added to a painting, it moves the painting's level to that of what stands beside it and leaves its gradients, which are what one sees.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 16  # steps of conjugate gradients at a size; small sizes make more, until they are solved
WORK = 8192  # steps at a size times its side


def membrane(values: Tensor, known: Tensor) -> Tensor:
    """Values where they are known, and between them the solution of Laplace's equation; zero where an image knows nothing.

    Each unknown pixel is the mean of its four neighbours; one beyond the image's border is as the pixel at it. Solved from small sizes
    to large ones (Bornemann and Deuflhard 1996): what is far away comes near at a small size, and a large one smooths. The error left is
    some hundredths of the solution's spread, and least beside what is known.

    Args:
        values: (B, C, H, W).
        known: (B, 1, H, W), bool.
    """
    weight = known.to(values)
    side = max(values.shape[-2:])
    if side > 1:
        share = _halved(weight)
        smaller = membrane(_halved(values * weight) / share.clamp(min=1e-6), share > 0)
        start = F.interpolate(smaller, values.shape[-2:], mode="bilinear", align_corners=False)
    else:
        start = torch.zeros_like(values)
    return _conjugate_gradients(torch.where(known, values, start), 1 - weight, min(2 * side, max(LEAST, WORK // side)))


def _conjugate_gradients(solution: Tensor, unknown: Tensor, steps: int) -> Tensor:
    """`steps` steps towards no pixel differing from the mean of its neighbours, where `unknown` is 1; each channel of its own."""
    residual = unknown * (_of_neighbours(solution) - solution)
    direction, size = residual, _dot(residual, residual)
    tiny = torch.finfo(solution.dtype).tiny  # where all is solved, nothing moves
    for _ in range(steps):
        change = unknown * (direction - _of_neighbours(direction))
        along = size / _dot(direction, change).clamp(min=tiny)
        solution = solution + along * direction
        residual = residual - along * change
        last, size = size, _dot(residual, residual)
        direction = residual + size / last.clamp(min=tiny) * direction
    return solution


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def _of_neighbours(x: Tensor) -> Tensor:
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return (padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]) / 4


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1), keepdim=True)
