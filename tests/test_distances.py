"""Distances against closed forms, scipy, torch-fidelity, clean-fid and torchmetrics, and against what they are estimates of."""

import numpy as np
import pytest
import scipy.linalg
import torch

from imagen_diffusers.evaluation import distances
from imagen_diffusers.evaluation.distances import frechet_distance, frechet_spread, inception_score, kernel_distance, kernel_interval
from imagen_diffusers.evaluation.statistics import Statistics

from . import fidelity
from .conftest import seeded

COUNT, WIDTH = 300, 24


@pytest.fixture(scope="module")
def features() -> tuple[torch.Tensor, torch.Tensor]:
    """Two sets of features that differ in mean and covariance, as float32 like a network's."""
    g = seeded(1)
    mixed = [torch.randn(COUNT, WIDTH, generator=g) @ torch.randn(WIDTH, WIDTH, generator=g) for _ in range(2)]
    return mixed[0], mixed[1] + 0.5


def gaussian(mean: torch.Tensor, covariance: torch.Tensor) -> Statistics:
    return Statistics(mean.double(), covariance.double(), 10_000)


def positive(g: torch.Generator, width: int = 8) -> torch.Tensor:
    root = torch.randn(width, width, generator=g, dtype=torch.float64)
    return root @ root.T


def test_frechet_of_gaussians_with_a_known_distance() -> None:
    """Of diagonal covariances it is |m - n|^2 + sum (a^(1/2) - b^(1/2))^2, and turning both changes nothing."""
    g = seeded(2)
    a, b = torch.rand(2, 8, generator=g, dtype=torch.float64) * 3
    m, n = torch.randn(2, 8, generator=g, dtype=torch.float64)
    wanted = ((m - n).square().sum() + (a.sqrt() - b.sqrt()).square().sum()).item()
    assert frechet_distance(gaussian(m, a.diag()), gaussian(n, b.diag())) == pytest.approx(wanted, abs=1e-6)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=g, dtype=torch.float64))[0]
    turned = gaussian(turn @ m, turn @ a.diag() @ turn.T), gaussian(turn @ n, turn @ b.diag() @ turn.T)
    assert frechet_distance(*turned) == pytest.approx(wanted, abs=1e-6)


def test_frechet_of_covariances_that_do_not_commute_is_scipys() -> None:
    g = seeded(3)
    a, b, m, n = positive(g), positive(g), torch.randn(8, generator=g), torch.randn(8, generator=g)
    root = scipy.linalg.sqrtm((a @ b).numpy())
    wanted = (m - n).double().square().sum().item() + np.trace(a.numpy() + b.numpy() - 2 * root.real)
    assert frechet_distance(gaussian(m, a), gaussian(n, b)) == pytest.approx(wanted, abs=1e-6)
    assert frechet_distance(gaussian(m, a), gaussian(m, a)) == pytest.approx(0, abs=1e-6)


@pytest.mark.numeric
def test_frechet_of_features_is_that_of_other_packages(features) -> None:
    a, b = features
    ours = frechet_distance(Statistics.of(a), Statistics.of(b))
    theirs = fidelity.load("torch_fidelity.metric_fid")
    told = (theirs.fid_features_to_statistics(x.double()) for x in features)
    assert ours == pytest.approx(theirs.fid_statistics_to_metric(*told, verbose=False)["frechet_inception_distance"], abs=1e-4)
    means = [x.double().mean(0).numpy() for x in features]
    covariances = [np.cov(x.double().numpy(), rowvar=False) for x in features]
    clean = fidelity.load("cleanfid.fid").frechet_distance
    assert ours == pytest.approx(clean(means[0], covariances[0], means[1], covariances[1]), abs=1e-4)


def test_frechet_of_features_is_that_of_torchmetrics(features) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Given(torch.nn.Module):
        num_features = WIDTH

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows.double()

    metric = FrechetInceptionDistance(feature=Given())
    metric.update(features[0], real=True)
    metric.update(features[1], real=False)
    assert frechet_distance(*map(Statistics.of, features)) == pytest.approx(metric.compute().item(), abs=1e-4)


@pytest.mark.numeric
def test_kernel_distance_is_that_of_other_packages(features) -> None:
    """All images in each subset, so that nothing is left to chance."""
    from torchmetrics.image.kid import poly_mmd

    a, b = (x.double() / WIDTH for x in features)
    mean, std = kernel_distance(a, b, 3, COUNT, seeded())
    theirs = fidelity.load("torch_fidelity.metric_kid").kid_features_to_metric
    told = theirs(a, b, kid_subsets=2, kid_subset_size=COUNT, verbose=False)
    assert std < 1e-10
    assert mean == pytest.approx(told["kernel_inception_distance_mean"], abs=1e-4, rel=1e-9)
    clean = fidelity.load("cleanfid.fid").kernel_distance(a.numpy(), b.numpy(), num_subsets=2, max_subset_size=COUNT)
    assert mean == pytest.approx(clean, abs=1e-4, rel=1e-9)
    assert mean == pytest.approx(poly_mmd(a, b).item(), rel=1e-9)
    assert kernel_interval(a, b)[0] == pytest.approx(mean, rel=1e-9)


def test_subsets_vary_about_the_distance_of_all(features) -> None:
    a, b = (x / WIDTH for x in features)
    whole, _ = kernel_interval(a, b)
    mean, std = kernel_distance(a, b, 200, 50, seeded(4))
    assert std > 0 and abs(mean - whole) < 4 * std / 200**0.5
    assert kernel_distance(a, b, 5, 50, seeded(4)) == kernel_distance(a, b, 5, 50, seeded(4))


def test_sets_of_several_sizes_and_blocks_of_any(features, monkeypatch) -> None:
    a, b = features[0][:70] / WIDTH, features[1][:45] / WIDTH
    x, y = a.double().numpy(), b.double().numpy()

    def mean(p: np.ndarray, q: np.ndarray) -> float:
        return float(np.mean([(u @ v / WIDTH + 1) ** 3 for i, u in enumerate(p) for j, v in enumerate(q) if p is not q or i != j]))

    wanted = mean(x, x) + mean(y, y) - 2 * mean(x, y)
    for rows in (512, 32, 7):
        monkeypatch.setattr(distances, "ROWS", rows)
        assert kernel_interval(a, b)[0] == pytest.approx(wanted, rel=1e-10)


def test_the_kernel_distance_of_one_distribution_is_none_on_average() -> None:
    g, values = seeded(5), []
    for _ in range(400):
        values.append(kernel_interval(*torch.randn(2, 40, 6, generator=g, dtype=torch.float64))[0])
    together = torch.tensor(values)
    assert abs(together.mean()) < 3 * together.std() / 20  # with every image compared with itself it would be 70 of these
    assert together.min() < 0


@pytest.mark.thorough
def test_the_interval_of_the_kernel_distance_covers_it() -> None:
    """Features of 24 kinds, whose shares are known in both distributions, and so the distance; two pairs of distributions."""
    g, inside, off = seeded(6), [], []
    for _ in range(2):
        kinds = torch.randn(24, 64, generator=g, dtype=torch.float64)
        p = torch.rand(24, generator=g, dtype=torch.float64).softmax(0)
        q = (p.log() + torch.linspace(-2, 2, 24)).softmax(0)
        kernel = (kinds @ kinds.T / 64 + 1) ** 3
        truth = (p @ kernel @ p + q @ kernel @ q - 2 * p @ kernel @ q).item()
        for _ in range(500):
            value, (low, high) = kernel_interval(*(kinds[torch.multinomial(s, 200, replacement=True, generator=g)] for s in (p, q)))
            inside.append(low <= truth <= high)
            off.append(value / truth - 1)
    assert 0.93 <= np.mean(inside) <= 0.97, np.mean(inside)
    assert abs(np.mean(off)) < 3 * np.std(off) / len(off) ** 0.5


def test_the_kernel_distance_of_pairs_is_that_of_independent_sets() -> None:
    """Kinds with known shares, of which the second image of a pair is often the first's: the distance is that of the two marginals."""
    g, inside, off = seeded(11), [], []
    kinds = torch.randn(24, 64, generator=g, dtype=torch.float64)
    p = torch.rand(24, generator=g, dtype=torch.float64).softmax(0)
    other = torch.linspace(-2, 2, 24).double().softmax(0)
    moved = 0.3 * other.expand(24, 24) + 0.7 * torch.eye(24, dtype=torch.float64)  # p(second | first)
    q = p @ moved
    kernel = (kinds @ kinds.T / 64 + 1) ** 3
    truth = (p @ kernel @ p + q @ kernel @ q - 2 * p @ kernel @ q).item()
    for _ in range(500):
        first = torch.multinomial(p, 200, replacement=True, generator=g)
        second = torch.multinomial(moved[first], 1, generator=g)[:, 0]
        value, (low, high) = kernel_interval(kinds[first], kinds[second], paired=True)
        inside.append(low <= truth <= high)
        off.append(value / truth - 1)
    assert abs(np.mean(off)) < 3 * np.std(off) / len(off) ** 0.5, np.mean(off)
    assert 0.92 <= np.mean(inside) <= 0.98, np.mean(inside)


def test_the_spread_of_a_frechet_distance_is_that_of_new_images() -> None:
    g = seeded(7)
    reference = Statistics.of(torch.randn(5000, 4, generator=g) * 1.3)
    sets = [torch.randn(400, 4, generator=g) for _ in range(120)]
    spread = torch.tensor([frechet_distance(Statistics.of(one), reference) for one in sets]).std().item()
    told = np.mean([frechet_spread(one, reference) for one in sets])
    assert told == pytest.approx(spread, rel=0.2)


def test_the_spread_does_not_depend_on_the_order_of_prompts() -> None:
    """Ten prompts in turns, as tables of prompts by kind have them."""
    g = seeded(12)
    reference, kinds = Statistics.of(torch.randn(5000, 4, generator=g)), 2 * torch.randn(10, 4, generator=g)
    in_turns = kinds.repeat(40, 1) + torch.randn(400, 4, generator=g)
    told = frechet_spread(in_turns, reference)
    shuffled = [frechet_spread(in_turns[torch.randperm(400, generator=g)], reference) for _ in range(10)]
    assert told == pytest.approx(np.mean(shuffled), rel=0.6)


def test_fewer_images_give_a_larger_frechet_distance() -> None:
    """Why a distance is told with its count."""
    g = seeded(8)
    reference, few = Statistics.of(torch.randn(5000, 16, generator=g)), Statistics.of(torch.randn(50, 16, generator=g))
    assert frechet_distance(few, reference) > 5 * frechet_distance(Statistics.of(torch.randn(5000, 16, generator=g)), reference)


@pytest.mark.numeric
@pytest.mark.parametrize("splits", [1, 10])
def test_the_inception_score_is_torch_fidelitys(splits) -> None:
    logits = 3 * torch.randn(200, 12, generator=seeded(9))
    order = torch.randperm(200, generator=seeded(10))
    theirs = fidelity.load("torch_fidelity.metric_isc").isc_features_to_metric(logits[order], splits, shuffle=False)
    mean, std = inception_score(logits, splits, seeded(10))
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert std == pytest.approx(theirs["inception_score_std"], rel=1e-9, abs=1e-12)


def test_a_class_that_no_image_can_be_of_counts_nothing_in_the_inception_score() -> None:
    certain = torch.tensor([[0.0, 1000, 0], [1000, 0, 0]])
    assert inception_score(certain, 1, seeded(0)) == pytest.approx((2.0, 0.0))


def test_too_few_images_are_told_of_the_kernel_distance(features) -> None:
    enough, few = Statistics.of(features[0]), Statistics.of(features[1][:WIDTH])
    for pair in ((enough, few), (few, enough)):
        with pytest.raises(ValueError, match=r"24 features needs at least 25 images for its covariance, and there are 24; .* \(kid\)"):
            frechet_distance(*pair)
    frechet_distance(enough, Statistics.of(features[1][: WIDTH + 1]))


def test_what_has_no_distance_is_refused(features) -> None:
    a, b = features
    with pytest.raises(ValueError, match="features of 24 and of 20 numbers"):
        frechet_distance(Statistics.of(a), Statistics.of(b[:, :20]))
    for function in (kernel_interval, lambda x, y: kernel_distance(x, y, 2, 10, seeded())):
        with pytest.raises(ValueError, match="features of 24 and of 20 numbers"):
            function(a, b[:, :20])
    with pytest.raises(ValueError, match="size is 32, not 64"):
        frechet_distance(Statistics.of(a, {"size": 64}), Statistics.of(b, {"size": 32}))
    with pytest.raises(ValueError, match="subsets of 301 images .* give a subset_size from 2 to 300"):
        kernel_distance(a, b, 2, 301, seeded())
    with pytest.raises(ValueError, match="at least two images of each set; there are 300 and 1"):
        kernel_interval(a, b[:1])
    with pytest.raises(ValueError, match="not finite"):
        kernel_interval(a, torch.cat([b, torch.full((1, 24), float("nan"))]))
    with pytest.raises(ValueError, match="300 and 299 images are no pairs"):
        kernel_interval(a, b[1:], paired=True)
    with pytest.raises(ValueError, match="cannot be split into 301 parts; give 1 to 300"):
        inception_score(a, 301, seeded())
