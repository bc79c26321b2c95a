"""Figures on examples that are not trained on."""

import json
import weakref

import pytest
import torch

from imagen_diffusers.sampling.network import ImagenNetwork, adapt
from imagen_diffusers.training.examples import Example
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.validation import LOG_SNRS, HeldOut, level_name, read_figures, write_figures

from .conftest import make_base, make_sr, make_text_encoder, make_tokenizer
from .test_losses import TABLE
from .test_training import Squares, fit

LOSS = LossSettings(prediction_type="sample")
TEXT = {"tokenizer": make_tokenizer(), "text_encoder": make_text_encoder(), "max_sequence_length": 12}


def held_out(low_res: bool = False, **changes) -> HeldOut:
    squares = Squares(low_res)
    return HeldOut([squares[i] for i in range(len(squares))], TABLE, LOSS, **{**TEXT, **changes})


def test_a_network_that_returns_zero_is_wrong_by_the_images_themselves() -> None:
    unet = make_base()
    with torch.no_grad():
        for p in unet.head.parameters():
            p.zero_()
    squares = Squares()
    expected = torch.stack([squares[i]["pixel_values"] for i in range(4)]).float().div(127.5).sub(1).square().mean().item()
    figures = held_out()(unet)
    assert list(figures) == [level_name(level) for level in LOG_SNRS]
    for value in figures.values():
        assert value == pytest.approx(expected, rel=1e-5)


class Noise(torch.nn.Module):
    """Returns its input, whatever it is asked."""

    text_dim, has_low_res, device, dtype, config = None, False, torch.device("cpu"), torch.float32, {"in_channels": 3}

    def forward(self, noisy, times, return_dict, **_):
        return (noisy,)


adapt.register(Noise, ImagenNetwork)


def test_levels_are_what_they_are_called() -> None:
    """The error of the noisy image itself is E|(alpha - 1) x + sigma eps|^2."""
    gray = [Example(pixel_values=torch.zeros(3, 32, 32)) for _ in range(8)]
    for level, value in zip(LOG_SNRS, HeldOut(gray, TABLE, LOSS)(Noise()).values(), strict=True):
        sigma_squared = 1 / (1 + torch.tensor(level).exp().item())
        assert value == pytest.approx(sigma_squared, rel=0.03)  # the mean of 24,576 squares has a standard deviation of 0.9 %


@pytest.mark.parametrize("low_res", [False, True])
def test_noise_depends_on_the_example_alone(low_res) -> None:
    unet = make_sr() if low_res else make_base()
    whole, parts = (held_out(low_res, batch_size=n).errors(unet) for n in (4, 3))
    assert whole.shape == (len(LOG_SNRS), 4, *(2 * [32 if low_res else 16]))
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)  # kernels add in another order for another batch


def test_other_prompts_give_other_errors() -> None:
    unet, data = make_base(), held_out()
    own = [example["prompt"] for example in data.examples]
    assert torch.equal(data.errors(unet), data.errors(unet, own))
    assert not torch.equal(data.errors(unet), data.errors(unet, own[::-1]))


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="validation set is empty"):
        HeldOut([], TABLE, LOSS)


@pytest.mark.thorough
def test_figures_of_the_averages_are_written_as_the_run_goes(tmp_path, capsys) -> None:
    data = held_out()
    unet = fit(tmp_path, 4, validation_steps=2, measure=data)
    lines = read_figures(tmp_path)
    assert f"step 4: log_snr_-6 {lines[-1]['log_snr_-6']:.4g}, log_snr_-4 " in capsys.readouterr().out
    assert [line["step"] for line in lines] == [2, 4]
    unet.eval()
    assert lines[-1] == {"step": 4, **data(unet)}  # what the run gives out is what was measured last
    write_figures(tmp_path, 3, {"log_snr_0": 1.0})  # of a run that went on from step 2
    assert [json.loads(line)["step"] for line in (tmp_path / "validation.jsonl").read_text().splitlines()] == [2, 3]


@pytest.mark.thorough
def test_figures_hold_the_errors_of_one_batch_at_a_time(monkeypatch) -> None:
    alive, most = weakref.WeakSet(), []
    errors_of = HeldOut._errors_of

    def watched(self, *args):
        errors = errors_of(self, *args)
        alive.add(errors)
        most.append(len(alive))
        return errors

    monkeypatch.setattr(HeldOut, "_errors_of", watched)
    data, unet = held_out(batch_size=1), make_base()
    figures = data(unet)
    assert len(most) == 4 and max(most) <= 2  # the last one and the next
    monkeypatch.undo()
    assert list(figures.values()) == pytest.approx(data.errors(unet).mean((1, 2, 3)).tolist(), rel=1e-5)


def test_processes_measure_parts_that_add_up_to_the_whole(monkeypatch) -> None:
    data, unet, sums = held_out(batch_size=1), make_base(), []
    data.examples = data.examples[:3]
    whole, errors_of, measured = data(unet), HeldOut._errors_of, []
    monkeypatch.setattr(
        HeldOut, "_errors_of", lambda self, network, rows, _: measured.append(rows.start) or errors_of(self, network, rows, _)
    )
    monkeypatch.setattr("imagen_diffusers.training.validation.added_up", lambda values, _: sums.append(values) or values)
    for rank in range(2):
        monkeypatch.setattr("imagen_diffusers.training.validation.place_in_group", lambda rank=rank: (rank, 2))
        data(unet)
    assert measured == [0, 2, 1, 1]  # as often on each, the last one for the network's sake alone
    assert list(whole.values()) == pytest.approx(((sums[0] + sums[1]) / 3).tolist(), rel=1e-6)


def test_a_line_is_added_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    write_figures(tmp_path, 1, {"x": 1.0})
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))  # killed just before
    with pytest.raises(KeyboardInterrupt):
        write_figures(tmp_path, 2, {"x": 2.0})
    assert read_figures(tmp_path) == [{"step": 1, "x": 1.0}]
