"""Thresholding against torch.quantile and stock diffusers."""

import pytest
import torch
from diffusers import DDPMScheduler

from imagen_diffusers.schedulers.thresholding import dynamic_threshold, quantile, static_threshold

from .conftest import seeded

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("count", [2, 3, 1000, 12_288])
@pytest.mark.parametrize("q", [0.5, 0.9, 0.995])
def test_quantile_is_torchs(count, q) -> None:
    values = torch.randn(3, count, generator=seeded(), dtype=torch.float32)
    expected = torch.quantile(values.double(), q, dim=-1).float()
    torch.testing.assert_close(quantile(values, q), expected, atol=1e-6, rtol=1e-6)


def test_equals_stock_where_stock_has_no_cap() -> None:
    x0 = 3 * torch.randn(4, 3, 16, 16, generator=seeded())
    stock = DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1e9)
    torch.testing.assert_close(dynamic_threshold(x0, 0.9), stock._threshold_sample(x0), atol=1e-5, rtol=1e-5)


def test_each_example_by_itself_and_never_below_one() -> None:
    calm, wild = 0.5 * torch.ones(1, 3, 4, 4), torch.linspace(-5, 5, 48).view(1, 3, 4, 4)
    out = dynamic_threshold(torch.cat((calm, wild)))
    assert torch.equal(out[:1], calm)
    assert out[1:].abs().max() == 1
    assert torch.equal(dynamic_threshold(out), out)  # once is enough


def test_a_cap_of_one_is_static() -> None:
    x0 = 3 * torch.randn(2, 3, 8, 8, generator=seeded())
    assert torch.equal(dynamic_threshold(x0, max_value=1.0), static_threshold(x0))
