"""The membrane against a direct solution of Laplace's equation, and a painting whose level it moves."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from imagen_diffusers.sampling.inpainting import Inpainting
from imagen_diffusers.sampling.membrane import membrane

from .conftest import seeded

SIZE = (33, 48)
HALF = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
HALF[..., :20] = True
ISLANDS = torch.rand(1, 1, *SIZE, generator=seeded(3)) > 0.98
FRAME = torch.ones(1, 1, *SIZE, dtype=torch.bool)
FRAME[..., 3:-3, 5:-9] = False


def smooth(seed: int) -> Tensor:
    """(1, 2, H, W): what a painting is off by, which changes slowly."""
    coarse = torch.randn(1, 2, 4, 5, generator=seeded(seed), dtype=torch.float64)
    return F.interpolate(coarse, SIZE, mode="bicubic")


def solved(values: Tensor, known: Tensor) -> Tensor:
    """Each unknown pixel the mean of its neighbours, by a sparse solver; the image's border is free."""
    height, width = SIZE
    equations = lil_matrix((height * width, height * width))
    right = np.zeros((height * width, values.shape[1]))
    for row in range(height):
        for column in range(width):
            here = row * width + column
            if known[0, 0, row, column]:
                equations[here, here] = 1
                right[here] = values[0, :, row, column].numpy()
                continue
            beside = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            inside = [r * width + c for r, c in beside if 0 <= r < height and 0 <= c < width]
            equations[here, here] = len(inside)
            for there in inside:
                equations[here, there] = -1
    return torch.from_numpy(spsolve(equations.tocsr(), right)).T.reshape(1, -1, height, width)


@pytest.mark.numeric
@pytest.mark.parametrize("known", [HALF, ISLANDS, FRAME], ids=["half", "islands", "frame"])
def test_solves_laplaces_equation(known) -> None:
    """Solved at small sizes, and smoothed at this one: what is left are differences that no eye sees."""
    values = smooth(1)
    expected = solved(values, known)
    made = membrane(values, known)
    spread = expected.std()
    assert torch.equal(made[known.expand_as(made)], values[known.expand_as(values)])
    beside = (F.max_pool2d(known.double(), 3, 1, 1) > 0).expand_as(made)
    assert (made - expected)[beside].abs().max() < 0.01 * spread
    assert (made - expected).abs().max() < 0.05 * spread


def test_a_constant_is_carried_everywhere_and_nothing_from_nowhere() -> None:
    values = torch.full((2, 3, *SIZE), 0.25)
    known = torch.cat((ISLANDS, torch.zeros_like(ISLANDS)))
    made = membrane(torch.where(known, values, 7.0), known)
    torch.testing.assert_close(made[0], values[0])
    assert not made[1].any()


def test_a_seamless_painting_keeps_its_gradients_and_takes_the_level_beside_it() -> None:
    """A painting that is too dark by a constant comes out as if it were not."""
    truth = torch.rand(1, 3, *SIZE, generator=seeded(5)) - 0.5
    painted = Inpainting(truth, ~FRAME, seamless=True).finished(truth - 0.3)
    torch.testing.assert_close(painted, truth)
    assert torch.equal(painted[FRAME.expand_as(truth)], truth[FRAME.expand_as(truth)])
    plain = Inpainting(truth, ~FRAME).finished(truth - 0.3)
    assert torch.equal(plain[~FRAME.expand_as(truth)], (truth - 0.3)[~FRAME.expand_as(truth)])
