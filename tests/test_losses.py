"""The loss in closed form: weightings, times, dropout, and what is random."""

import math

import pytest
import torch

from imagen_diffusers.sampling.network import ImagenNetwork
from imagen_diffusers.schedulers.noise import alpha_sigma, beta_table, log_snr_at, log_snr_table
from imagen_diffusers.schedulers.prediction import PREDICTION_TYPES, from_x0
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.training.losses import LossSettings, draw, drop_text, pixel_errors, stage_loss
from imagen_diffusers.training.seeds import seed_of
from imagen_diffusers.training.times import TIME_SAMPLINGS, draw_times
from imagen_diffusers.training.weighting import WEIGHTINGS, RunningError, output_weight

from .conftest import seeded

TABLE = log_snr_table(beta_table("squaredcos_cap_v2"))
CPU = torch.device("cpu")


def draws_of(count: int, settings: LossSettings, shape=(3, 4, 4), seed: int = 0):
    return draw(shape, range(count), range(count), settings, seed=seed, device=CPU)


class Fake(ImagenNetwork):
    """Itself in the place of a network of this package."""

    channels, cond_channels, dtype = 3, 0, torch.float32

    def __init__(self):
        super().__init__(torch.nn.Identity())
        self.runner = self.forward


class Oracle(Fake):
    """Knows the clean images, and says them in each way a network may, with a constant error of x0."""

    def __init__(self, images, kind: str, error: float):
        super().__init__()
        self.images, self.kind, self.error = images, kind, error

    def forward(self, noisy, times, return_dict, **condition):
        alpha, sigma = alpha_sigma(log_snr_at(TABLE, times)[:, None, None, None])
        return (from_x0(self.images + self.error, noisy, alpha, sigma, self.kind),)


X0_WEIGHTS = {  # of (x0 error)^2, as the papers write them; "uniform" depends on what is predicted
    "truncated_v": lambda snr, gamma: torch.minimum(1 + snr, torch.tensor(gamma)),
    "min_snr": lambda snr, gamma: torch.minimum(snr, torch.tensor(gamma)),
    "soft_min_snr": lambda snr, gamma: snr * gamma / (snr + gamma),
}


@pytest.mark.parametrize("error", [1e-4, 0.02, 1.5])
def test_what_an_error_counts_by_its_size(error) -> None:
    images = torch.rand(2, 3, 4, 4, generator=seeded()) * 2 - 1
    c = 0.02
    expected = {"l2": error**2, "l1": error, "huber": 2 * c * (math.sqrt(error**2 + c**2) - c)}
    for loss_type, value in expected.items():
        settings = LossSettings(prediction_type="sample", loss_type=loss_type, huber_c=c, time_sampling="uniform")
        network = Oracle(images.double(), "sample", error)
        errors = stage_loss(network, images.double(), draws=draws_of(2, settings), log_snr_table=TABLE, settings=settings).errors
        torch.testing.assert_close(errors, torch.full_like(errors, value), rtol=1e-7, atol=0)


def test_small_errors_are_squared_exactly() -> None:
    """In float32, where the difference of the textbook's formula is zero."""
    settings = LossSettings(loss_type="huber", huber_c=0.1)
    torch.testing.assert_close(pixel_errors(torch.tensor([1e-6]), settings), torch.tensor([1e-12]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("weighting", sorted(X0_WEIGHTS))
def test_a_constant_error_weighs_the_same_whatever_is_predicted(kind, weighting) -> None:
    images = torch.rand(64, 3, 4, 4, generator=seeded()) * 2 - 1
    assert LossSettings(weighting=weighting).cap == 5
    settings = LossSettings(prediction_type=kind, weighting=weighting, snr_gamma=6.0)
    losses, log_snr, _ = stage_loss(Oracle(images, kind, 0.5), images, draws=draws_of(64, settings), log_snr_table=TABLE, settings=settings)
    usable = log_snr.abs() < 7  # beyond, the oracle's own divisions by alpha or sigma lose float32's digits
    expected = 0.25 * X0_WEIGHTS[weighting](log_snr.exp(), 6.0)
    torch.testing.assert_close(losses[usable], expected[usable], rtol=1e-3, atol=1e-6)


def test_a_pixels_error_counts_by_its_weight() -> None:
    images = torch.rand(4, 3, 4, 4, generator=seeded()) * 2 - 1
    settings = LossSettings(prediction_type="sample")
    weight = torch.rand(4, 4, 4, generator=seeded(1))
    given = {"draws": draws_of(4, settings), "log_snr_table": TABLE, "settings": settings}
    plain = stage_loss(Oracle(images, "sample", 0.5), images, **given)
    weighed = stage_loss(Oracle(images, "sample", 0.5), images, **given, pixel_weight=weight)
    torch.testing.assert_close(weighed.errors, plain.errors * weight.mean((1, 2)))
    assert torch.equal(weighed.losses, weighed.errors)


def test_running_errors_make_all_noise_levels_count_alike() -> None:
    """Fed errors that are a function of the noise level, losses tend to their mean over the levels met."""
    running, log_snr = RunningError(), torch.linspace(-8, 6, 200)
    errors = (-log_snr).sigmoid() + 0.01
    assert torch.equal(running.weight(log_snr), torch.ones(200))
    for _ in range(300):
        running.update(log_snr, errors)
    losses = running.weight(log_snr) * errors
    # Errors differ inside a bin, which is half a unit wide: at most exp(0.25) to either side of its mean.
    assert (losses / losses.mean() - 1).abs().max() < 0.3
    bins = losses.view(-1, 40).mean(1)
    assert (bins / losses.mean() - 1).abs().max() < 0.05
    again = RunningError()
    again.load_state_dict(running.state_dict())
    assert torch.equal(again.weight(log_snr), running.weight(log_snr))


def test_running_errors_follow_and_forget() -> None:
    running, level = RunningError(), torch.zeros(8)
    running.update(level, torch.full((8,), 4.0))
    running.update(torch.zeros(10), torch.tensor([1.0] * 8 + [torch.inf, torch.nan]))
    decay = RunningError.DECAY**8
    assert running.errors[20].item() == pytest.approx(4 * decay + 1 - decay)
    assert (running.errors > 0).sum() == 1


def test_times_by_log_snr_are_normal_in_log_snr_on_any_curve() -> None:
    for name in ("squaredcos_cap_v2", "linear"):
        table = log_snr_table(beta_table(name))
        times = draw_times(4000, "log_snr_normal", seeded(), mean=-1.0, std=1.5, log_snr_table=table)
        assert times.min() >= 0 and times.max() <= 1
        log_snr = log_snr_at(table, times * 999)
        assert log_snr.mean().item() == pytest.approx(-1, abs=0.01)  # one in each 4000th: hardly any spread is left
        assert log_snr.std().item() == pytest.approx(1.5, rel=0.01)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_uniform_is_the_plain_squared_error_of_the_output(kind) -> None:
    ones = torch.ones(5)
    assert torch.equal(output_weight(torch.linspace(-9, 9, 5), "uniform", 5.0, kind), ones)


def test_by_prediction_stays_finite_at_pure_noise() -> None:
    """Where noise is predicted, the weight of a capped v error would be one over the SNR."""
    log_snr = torch.linspace(-20, 8, 29)
    assert torch.equal(output_weight(log_snr, "by_prediction", 5.0, "epsilon"), torch.ones(29))
    assert output_weight(log_snr, "truncated_v", 5.0, "epsilon").max() > 1e8
    for kind in ("sample", "v_prediction"):
        expected = output_weight(log_snr, "truncated_v", 5.0, kind)
        assert torch.equal(output_weight(log_snr, "by_prediction", 5.0, kind), expected)


def test_sigmoid_in_closed_form() -> None:
    """(epsilon error)^2 sigmoid(b - log-SNR) |d log-SNR / dt|, with b = log gamma."""
    log_snr, slope = torch.linspace(-8, 8, 33), torch.rand(33, generator=seeded())
    weight = output_weight(log_snr, "sigmoid", math.e**2, "epsilon", slope)
    torch.testing.assert_close(weight, torch.sigmoid(2 - log_snr) * slope)


def test_sigmoid_does_not_depend_on_the_noise_curve() -> None:
    """The integral over time of a loss that depends on the log-SNR alone is the same on two curves."""
    totals = []
    for name in ("squaredcos_cap_v2", "linear"):
        table = log_snr_table(beta_table(name)).double()
        settings = LossSettings(prediction_type="epsilon", weighting="sigmoid", time_sampling="uniform")
        times = torch.linspace(0, 1, 20001, dtype=torch.float64)[1:-1] * 999
        from imagen_diffusers.training.losses import _slope

        log_snr = log_snr_at(table, times)
        middle = ((log_snr > -6) & (log_snr < 6)).double()  # both curves cover this range
        totals.append((middle * output_weight(log_snr, "sigmoid", settings.cap, "epsilon", _slope(table, times))).mean().item())
    assert totals[0] == pytest.approx(totals[1], rel=2e-2)


@pytest.mark.parametrize("weighting", sorted(set(WEIGHTINGS) - {"running"}))
@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_weights_are_finite_and_never_negative(kind, weighting) -> None:
    weight = output_weight(TABLE, weighting, 5.0, kind, torch.ones_like(TABLE))
    assert torch.isfinite(weight).all()
    assert (weight >= 0).all()


def test_stratified_times_leave_no_gap() -> None:
    steps = torch.stack([(draw_times(64, "stratified", seeded(i)) * 64).floor() for i in range(50)])
    assert torch.equal(steps.sort(1).values, torch.arange(64.0).expand(50, 64))
    # Whatever place in a step a row has, it meets all levels in time: of 50 even chances of 64 about 35 differ, and fewer than 20 never.
    assert min(len(place.unique()) for place in steps.T) >= 20


def test_logit_normal_times_are_the_sigmoid_of_a_normal() -> None:
    times = draw_times(20_000, "logit_normal", seeded(), mean=0.5, std=0.7)
    logits = torch.logit(times.double())
    assert logits.mean().item() == pytest.approx(0.5, abs=0.02)
    assert logits.std().item() == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("time_sampling", TIME_SAMPLINGS)
def test_times_lie_in_the_unit_interval(time_sampling) -> None:
    times = draw_times(1000, time_sampling, seeded(), log_snr_table=TABLE)
    assert times.min() >= 0
    assert times.max() < 1


def test_what_is_random_depends_on_the_position_alone() -> None:
    """So that several processes, or accumulated batches, draw what one process with the whole batch would."""
    settings = LossSettings()
    whole = draw((3, 4, 4), range(8, 16), range(8, 16), settings, seed=3, device=CPU)
    half = draw((3, 4, 4), range(12, 16), range(8, 16), settings, seed=3, device=CPU)
    for name in ("times", "noise", "text", "level", "low_res_noise"):
        assert torch.equal(getattr(whole, name)[4:], getattr(half, name)), name
    other = draw((3, 4, 4), range(8, 16), range(8, 16), settings, seed=4, device=CPU)
    assert not torch.equal(whole.noise, other.noise)


def test_what_a_position_draws_stays_the_same_from_version_to_version() -> None:
    """Or runs that an earlier one began would go on with other noise: if this fails, say so in the changelog."""
    assert (seed_of(0, 48, 2), seed_of(3, 7, 1)) == (5051619672399228155, 1777893851097209630)
    draws = draw((1, 1, 1), range(48, 50), range(48, 50), LossSettings(), seed=3, device=CPU)
    torch.testing.assert_close(draws.times, torch.tensor([0.9670, 0.3373]), rtol=0, atol=1e-4)
    torch.testing.assert_close(draws.noise.flatten(), torch.tensor([0.4808, 1.1325]), rtol=0, atol=1e-4)
    torch.testing.assert_close(draws.text, torch.tensor([0.6633, 0.0070]), rtol=0, atol=1e-4)


def test_draws_are_standard_normal_and_uniform() -> None:
    draws = draws_of(500, LossSettings(), shape=(3, 8, 8))
    for noise in (draws.noise, draws.low_res_noise):
        assert noise.mean().abs() < 0.01
        assert abs(noise.std() - 1) < 0.01
    assert abs((draws.noise * draws.low_res_noise).mean()) < 0.01
    for uniform in (draws.text, draws.level):
        assert abs(uniform.mean() - 0.5) < 0.04
    offset = draws_of(500, LossSettings(noise_offset=0.5), shape=(1, 8, 8)).noise
    assert offset.mean((1, 2, 3)).std() == pytest.approx((0.25 + 1 / 64) ** 0.5, rel=0.1)


class Watch(Fake):
    """Remembers what it was given."""

    def forward(self, noisy, times, return_dict, **condition):
        self.seen = condition
        return (noisy,)


def test_text_dropout_and_levels_are_drawn_for_each_example() -> None:
    text = TextEmbedding(torch.ones(400, 2, 4), torch.ones(400, 2, dtype=torch.bool))
    settings = LossSettings(prediction_type="sample", text_dropout=0.25)
    watch = Watch()
    given = {"draws": draws_of(400, settings), "log_snr_table": TABLE, "settings": settings}
    stage_loss(watch, torch.zeros(400, 3, 4, 4), **given, text=text, low_res=torch.zeros(400, 3, 2, 2))
    kept = watch.seen["encoder_hidden_states"].mean((1, 2))
    assert set(kept.tolist()) == {0.0, 1.0}
    assert 0.68 < kept.mean() < 0.82
    level = watch.seen["noise_level"]
    assert level.min() < 20
    assert level.max() > 980
    stds = watch.seen["low_res"].std((1, 2, 3))  # of a black image: the noise alone
    assert stds[level < 100].max() < stds[level > 900].min()


def test_dropped_text_becomes_the_checkpoints_own_null_text() -> None:
    text = TextEmbedding(torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    null = TextEmbedding(torch.full((1, 1, 4), 7.0), torch.ones(1, 1, dtype=torch.bool))
    dropped = drop_text(text, null, torch.tensor([True, False]))
    assert torch.equal(dropped.embeds[0], torch.tensor([[7.0], [0], [0]]).expand(3, 4))
    assert dropped.mask.tolist() == [[True, False, False], [True, True, True]]
    assert torch.equal(dropped.embeds[1], text.embeds[1])
    zeros = drop_text(text, None, torch.tensor([True, False]))
    assert not zeros.embeds[0].any()
    assert torch.equal(zeros.mask, text.mask)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text_dropout": 1.5}, "share"),
        ({"prediction_type": "eps"}, "epsilon"),
        ({"weighting": "snr"}, "min_snr"),
        ({"loss_type": "mse"}, "one of l2, l1, huber"),
        ({"huber_c": 0.0}, "above 0"),
        ({"huber_c": math.inf}, "at most 1e6"),
        ({"snr_gamma": 0.0}, "positive"),
        ({"snr_gamma": 5.0}, 'weighting is "uniform", which takes no cap; set weighting to min_snr, which .* or to another of truncated_v'),
        (
            {"snr_gamma": 5.0, "weighting": "by_prediction", "prediction_type": "epsilon"},
            "no cap where noise is predicted; set weighting to min",
        ),
        ({"time_sampling": "cosine"}, "stratified"),
        ({"max_noise_level": 1000.0}, "999"),
        ({"noise_offset": -1.0}, "standard deviation"),
        ({"log_snr_std": 0.0}, "log_snr_std is 0.0"),
    ],
)
def test_bad_settings_are_refused_in_words(changes, words) -> None:
    with pytest.raises(ValueError, match=words):
        LossSettings(**changes)


def test_levels_chosen_by_their_log_snr_count_alike_on_any_curve() -> None:
    """The weighting "sigmoid" makes up for the curve along which times are uniform; where they are not, there is nothing to make up for."""
    losses = []
    for scale in (1.0, 2.0):
        curve = TABLE.max() - scale * (TABLE.max() - TABLE)  # as steep, or twice, from the same beginning
        settings = LossSettings(
            prediction_type="sample", weighting="sigmoid", time_sampling="log_snr_normal", log_snr_mean=2.0, log_snr_std=0.5
        )
        images = torch.zeros(8, 3, 16, 16)
        draws = draw((3, 16, 16), range(8), range(8), settings, seed=0, device=CPU, log_snr_table=curve)
        losses.append(stage_loss(Watch(), images, draws=draws, log_snr_table=curve, settings=settings).losses)
    torch.testing.assert_close(*losses, rtol=1e-3, atol=0)
