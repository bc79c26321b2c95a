"""Curves, predictions and augmentation against closed forms and stock diffusers."""

import math

import pytest
import torch
from diffusers import DDPMScheduler

from imagen_diffusers.schedulers.noise import (
    BETA_SCHEDULES,
    alpha_sigma,
    augment,
    beta_table,
    log_snr_at,
    log_snr_shift_for,
    log_snr_table,
    q_sample,
    resize,
    same_curve,
    shift_betas,
    timestep_at,
)
from imagen_diffusers.schedulers.prediction import PREDICTION_TYPES, from_x0, target, to_x0

from .conftest import seeded

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("schedule", BETA_SCHEDULES)
def test_curves_equal_stock_diffusers(schedule) -> None:
    stock = DDPMScheduler(beta_schedule=schedule)
    betas = beta_table(schedule)
    assert torch.equal(betas, stock.betas)
    alpha, sigma = alpha_sigma(log_snr_table(betas))
    torch.testing.assert_close(alpha**2, stock.alphas_cumprod, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(1000))


def test_curves_are_the_same_up_to_rounding() -> None:
    betas = beta_table("squaredcos_cap_v2")
    nudged = betas.nextafter(torch.tensor(1.0))
    assert same_curve(betas.tolist(), nudged.tolist())
    assert not same_curve(betas.tolist(), shift_betas(betas, -0.05).tolist())
    assert not same_curve(betas.tolist(), betas[:-1].tolist())


def test_fractions_lie_between_their_neighbours() -> None:
    table = log_snr_table(beta_table("squaredcos_cap_v2"))
    middle = log_snr_at(table, torch.tensor([10.0, 10.25, 11.0, 999.0]))
    torch.testing.assert_close(middle[1], 0.75 * table[10] + 0.25 * table[11])
    assert torch.equal(middle[[0, 2, 3]], table[[10, 11, 999]])


def test_cosine_is_the_papers_closed_form() -> None:
    table = log_snr_table(beta_table("squaredcos_cap_v2"))
    for t in (100, 500, 900):
        angle = ((t + 1) / 1000 + 0.008) / 1.008 * math.pi / 2
        alpha_bar = math.cos(angle) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        assert table[t].item() == pytest.approx(math.log(alpha_bar / (1 - alpha_bar)), abs=1e-3)


def test_shift_moves_log_snr_by_a_constant() -> None:
    betas = beta_table("squaredcos_cap_v2")
    assert log_snr_shift_for(256) == pytest.approx(-2 * math.log(4))
    moved = log_snr_table(shift_betas(betas, log_snr_shift_for(256)))
    torch.testing.assert_close(moved[:990], log_snr_table(betas)[:990] - 2 * math.log(4), atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_predictions_convert_both_ways(kind) -> None:
    x0, noise = (torch.randn(2, 3, 4, 4, generator=seeded(i)) for i in (0, 1))
    alpha, sigma = alpha_sigma(torch.tensor([2.0, -3.0])[:, None, None, None])
    z = alpha * x0 + sigma * noise
    said = target(x0, noise, alpha, sigma, kind)
    torch.testing.assert_close(to_x0(said, z, alpha, sigma, kind), x0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(from_x0(x0, z, alpha, sigma, kind), said, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_times_of_a_log_snr_are_the_inverse_of_the_curve(name) -> None:
    table = log_snr_table(beta_table(name))
    times = torch.linspace(0.3, 998.7, 500)
    torch.testing.assert_close(timestep_at(table, log_snr_at(table, times)), times, atol=0.02, rtol=0)  # float32 of a flat curve
    assert timestep_at(table, torch.tensor([99.0, -99.0])).tolist() == [0, 999]


def test_augmentation_is_stock_add_noise_at_whole_levels() -> None:
    x, noise = (torch.randn(3, 3, 8, 8, generator=seeded(i)) for i in (0, 1))
    levels = torch.tensor([0, 250, 900])
    stock = DDPMScheduler(beta_schedule="squaredcos_cap_v2").add_noise(x, noise, levels)
    torch.testing.assert_close(augment(x, levels.float(), noise), stock, atol=2e-5, rtol=1e-5)


def test_q_sample_has_unit_variance() -> None:
    x, noise = (torch.randn(1, 3, 200, 200, generator=seeded(i)) for i in (0, 1))
    assert q_sample(x, noise, torch.tensor([0.7])).var().item() == pytest.approx(1, abs=0.02)


def test_resize_keeps_range_and_mean() -> None:
    image = torch.rand(1, 3, 8, 12, generator=seeded()).round() * 2 - 1
    big = resize(image, (32, 48))
    assert big.shape == (1, 3, 32, 48)
    assert big.abs().max() <= 1
    torch.testing.assert_close(resize(big, (8, 12)).mean(), image.mean(), atol=0.03, rtol=0)
