"""The loss, the order of the data, and that a resumed run is the run."""

import pytest
import torch
from torch.utils.data import Dataset

from imagen_diffusers.schedulers.noise import beta_table, log_snr_table
from imagen_diffusers.schedulers.prediction import PREDICTION_TYPES
from imagen_diffusers.training.data import StepSampler, collate
from imagen_diffusers.training.loop import TrainSettings, train_stage
from imagen_diffusers.training.losses import LossSettings, stage_loss

from .conftest import make_base, make_sr, make_text_encoder, make_tokenizer, seeded

TABLE = log_snr_table(beta_table("squaredcos_cap_v2"))


class Squares(Dataset):
    """Four plain pictures with prompts."""

    def __init__(self, low_res: bool):
        self.low_res = low_res

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        side = 32 if self.low_res else 16
        color = torch.tensor([255, 60 * index, 0], dtype=torch.uint8)[:, None, None]
        example = {"pixel_values": color.expand(3, side, side).clone(), "prompt": "a red cube" if index % 2 else "a blue sphere"}
        return example | ({"low_res": color.expand(3, 8, 8).clone()} if self.low_res else {})


def settings(path, steps: int, **changes) -> TrainSettings:
    plain = {"train_batch_size": 4, "learning_rate": 3e-3, "lr_warmup_steps": 1, "mixed_precision": "no", "checkpointing_steps": 3}
    return TrainSettings(
        **{**plain, "lr_scheduler": "constant", "max_sequence_length": 12, **changes}, output_dir=path, max_train_steps=steps
    )


def fit(path, steps: int, low_res: bool = False, **changes):
    unet = make_sr() if low_res else make_base()
    text = {"tokenizer": make_tokenizer(), "text_encoder": make_text_encoder()}
    return train_stage(unet, Squares(low_res), TABLE, settings(path, steps, **changes), **text)


@pytest.mark.parametrize("low_res", [False, True])
def test_resume_equals_no_interruption(tmp_path, low_res) -> None:
    whole = fit(tmp_path / "whole", 6, low_res)
    fit(tmp_path / "parts", 3, low_res)
    parts = fit(tmp_path / "parts", 6, low_res)
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_checkpoint_is_a_stage_folder(tmp_path) -> None:
    unet = fit(tmp_path, 3)
    loaded = type(unet).from_pretrained(tmp_path, subfolder="unet")
    for one, two in zip(unet.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, two)


def test_learns_four_pictures(tmp_path) -> None:
    def loss(unet) -> float:
        batch = collate([Squares(False)[i] for i in range(4)])
        text = _encoded(batch["prompt"])
        given = {"log_snr_table": TABLE, "settings": LossSettings(text_dropout=0.0), "generator": seeded(), "text": text}
        with torch.no_grad():
            return stage_loss(unet, batch["pixel_values"], **given)[0].mean().item()

    before = loss(make_base())
    assert loss(fit(tmp_path, 60, ema_decay=0.5)) < 0.2 * before


def _encoded(prompts):
    from imagen_diffusers.text.t5 import encode

    return encode(prompts, make_tokenizer(), make_text_encoder(), 12)


class Oracle(torch.nn.Module):
    """Knows the clean pictures, and says them in each way a network may."""

    def __init__(self, pictures, kind, error=0.0):
        super().__init__()
        self.pictures, self.kind, self.error = pictures, kind, error

    def forward(self, noisy, times, return_dict, **condition):
        from imagen_diffusers.schedulers.noise import alpha_sigma, log_snr_at
        from imagen_diffusers.schedulers.prediction import from_x0

        alpha, sigma = alpha_sigma(log_snr_at(TABLE, times)[:, None, None, None])
        return (from_x0(self.pictures + self.error, noisy, alpha, sigma, self.kind),)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_the_loss_in_closed_form(kind) -> None:
    pictures = torch.rand(64, 3, 4, 4, generator=seeded()) * 2 - 1
    given = {"log_snr_table": TABLE, "settings": LossSettings(prediction_type=kind, max_weight=20.0), "generator": seeded()}
    losses, times = stage_loss(Oracle(pictures, kind, error=0.5), pictures, **given)
    from imagen_diffusers.schedulers.noise import log_snr_at

    weight = (1 + log_snr_at(TABLE, times).exp()).clamp(max=20.0)
    usable = times < 950  # an error divided by alpha and multiplied by it again loses float32's digits beyond
    torch.testing.assert_close(losses[usable], 0.25 * weight[usable], rtol=2e-2, atol=1e-3)
    assert times.sort().values.diff().max() < 2 * 1000 / 64  # stratified


def test_text_dropout_and_levels_are_drawn_for_each_example() -> None:
    seen = {}

    class Watch(torch.nn.Module):
        def forward(self, noisy, times, return_dict, **condition):
            seen.update(condition)
            return (noisy,)

    from imagen_diffusers.text.t5 import TextEmbedding

    text = TextEmbedding(torch.ones(400, 2, 4), torch.ones(400, 2, dtype=torch.bool))
    given = {"log_snr_table": TABLE, "settings": LossSettings(text_dropout=0.25), "generator": seeded()}
    stage_loss(Watch(), torch.zeros(400, 3, 4, 4), **given, text=text, low_res=torch.zeros(400, 3, 2, 2))
    kept = seen["encoder_hidden_states"].mean((1, 2))
    assert set(kept.tolist()) == {0.0, 1.0}
    assert 0.68 < kept.mean() < 0.82
    assert seen["noise_level"].min() < 20
    assert seen["noise_level"].max() > 980
    stds = seen["low_res"].std((1, 2, 3))  # of a black picture: the noise alone
    assert stds[seen["noise_level"] < 100].max() < stds[seen["noise_level"] > 900].min()


def test_the_sampler_is_a_function_of_seed_and_step() -> None:
    whole = list(StepSampler(10, 3, seed=1, start=0, stop=10))
    assert whole[4:] == list(StepSampler(10, 3, seed=1, start=4, stop=10))
    assert sorted(sum(whole, [])) == sorted(list(range(10)) * 3)
    assert whole != list(StepSampler(10, 3, seed=2, start=0, stop=10))


def test_bad_settings_are_refused_in_words(tmp_path) -> None:
    with pytest.raises(ValueError, match="share"):
        LossSettings(text_dropout=1.5)
    with pytest.raises(ValueError, match="epsilon"):
        LossSettings(prediction_type="eps")
    with pytest.raises(ValueError, match="empty"):
        StepSampler(0, 3, seed=1, start=0, stop=1)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path) -> None:
    fit(tmp_path, 3)
    kept = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(FloatingPointError, match="resume"):
        train_stage(make_base(encoder_hid_dim=None), _Poison(), TABLE, settings(tmp_path / "other", 3))
    assert (tmp_path / "state.pt").read_bytes() == kept


class _Poison(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        return {"pixel_values": torch.full((3, 16, 16), torch.nan)}
