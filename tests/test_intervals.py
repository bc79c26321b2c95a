"""Intervals against scipy's, and how often they hold the truth."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from imagen_diffusers.evaluation.intervals import bootstrap, normal, paired, wilson

from .conftest import seeded


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (0, 20), (13, 20), (150, 200), (64, 64)])
def test_wilsons_interval_is_scipys(right, count) -> None:
    theirs = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right, count) == pytest.approx((theirs.low, theirs.high), abs=1e-7)


@pytest.mark.parametrize(("share", "count"), [(0.5, 64), (0.8, 200), (0.93, 200)])
def test_wilsons_interval_covers_the_share(share, count) -> None:
    right = np.random.default_rng(1).binomial(count, share, 4000)
    covering = [n for n in range(count + 1) if wilson(n, count).low <= share <= wilson(n, count).high]
    assert 0.93 <= np.isin(right, covering).mean() <= 0.97


@pytest.mark.parametrize(("only_first", "only_second"), [(0.01, 0.01), (0.05, 0.01), (0.1, 0.05)])
def test_the_interval_of_a_paired_difference_covers_it(only_first, only_second) -> None:
    """Also where no pair differs, of which resampling knows one difference alone."""
    drawn = np.random.default_rng(1).multinomial(100, [only_first, only_second, 1 - only_first - only_second], 2000)
    covered = [low <= only_first - only_second <= high for low, high in (paired(int(a), int(b), 100) for a, b, _ in drawn)]
    assert np.mean(covered) >= 0.94
    assert paired(0, 0, 100) == pytest.approx((-0.027, 0.027), abs=5e-4) and paired(3, 0, 3).high == 1.0


def clip_scores(*shape: int, seed: int) -> torch.Tensor:
    """As CLIP scores lie: about 26, with a tail of images that miss their prompts, cut at 0."""
    g = seeded(seed)
    hit = torch.rand(shape, generator=g) < 0.9
    return torch.where(hit, 27 + 3 * torch.randn(shape, generator=g), 15 + 5 * torch.randn(shape, generator=g)).clamp(min=0)


@pytest.mark.thorough
def test_the_interval_of_a_mean_covers_it() -> None:
    truth = clip_scores(2_000_000, seed=2).double().mean().item()
    covered = sum(low <= truth <= high for low, high in (bootstrap(one, resamples=500) for one in clip_scores(1000, 200, seed=3)))
    assert 930 <= covered <= 970, covered


def test_an_interval_is_the_same_in_every_run(monkeypatch) -> None:
    values = clip_scores(300, seed=4)
    state = torch.get_rng_state()
    assert bootstrap(values) == bootstrap(values)
    assert torch.equal(torch.get_rng_state(), state)
    assert bootstrap(values) != bootstrap(values, seed=1)
    low, high = bootstrap(values)
    assert normal(values.mean().item(), (values.std() / 300**0.5).item()) == pytest.approx((low, high), abs=0.1)


@pytest.mark.parametrize(("right", "count"), [(0, 0), (3, 2), (-1, 5)])
def test_shares_that_are_none_are_refused(right, count) -> None:
    with pytest.raises(ValueError, match=f"{right} right ones of {count}"):
        wilson(right, count)


def test_a_mean_of_one_value_has_no_interval() -> None:
    for values in (torch.ones(1), torch.ones(3, 2)):
        with pytest.raises(ValueError, match="at least two values in one dimension"):
            bootstrap(values)
