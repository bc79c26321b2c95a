"""`X.from_config(y.config)`: the noise curve, the prediction type and the thresholding survive, there and back."""

import math

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils import is_torchsde_available

import imagen_diffusers
from imagen_diffusers import (
    ImagenDDIMScheduler,
    ImagenDDPMScheduler,
    ImagenDPMSolverMultistepScheduler,
    ImagenEDMDPMSolverMultistepScheduler,
    ImagenEulerDiscreteScheduler,
    LucidrainsScheduler,
)
from imagen_diffusers.schedulers.driving import check_drivable
from imagen_diffusers.schedulers.noise import log_snr_at, log_snr_table
from imagen_diffusers.schedulers.swapping import KEPT

from .conftest import make_pipeline

IMAGEN = [
    getattr(imagen_diffusers, n)
    for n in dir(imagen_diffusers)
    if n.startswith(("Imagen", "Lucidrains")) and n.endswith("Scheduler") and "EDM" not in n
]
ON_BETAS = [c for c in IMAGEN if c is not LucidrainsScheduler]
STOCK = [getattr(diffusers, e.name) for e in KarrasDiffusionSchedulers if is_torchsde_available() or e.name != "DPMSolverSDEScheduler"]
WITH_BETAS = [c for c in STOCK if c.__name__ != "EDMEulerScheduler"]  # that one has no curve of betas, and no loop of ours takes it
SETTINGS = [
    {"beta_schedule": "linear", "prediction_type": "v_prediction"},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"prediction_type": "v_prediction", "thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
    {"prediction_type": "sample", "thresholding": False, "clip_sample": True, "clip_sample_range": 0.7},
    {},
]
# Options of the solvers, which no other class may take or write over. (Stock ones rename `algorithm_type` and `solver_type` to words
# of their own where these are not theirs, and so lose what was set.)
OWN = {
    "ImagenDDIMScheduler": {"set_alpha_to_one": False, "timestep_spacing": "trailing"},
    "ImagenDDPMScheduler": {"variance_interpolation": None, "log_snr_shift": -1.0},
    "ImagenDPMSolverMultistepScheduler": {"solver_order": 3, "euler_at_final": True, "use_karras_sigmas": True},
    "ImagenEulerDiscreteScheduler": {"final_sigmas_type": "sigma_min", "use_exponential_sigmas": True, "steps_offset": 1},
    "ImagenUniPCMultistepScheduler": {"disable_corrector": [0], "use_beta_sigmas": True},
}


@pytest.fixture(autouse=True)
def quick_kdpm2(monkeypatch) -> None:
    """When they are made, KDPM2's look up the times between all of theirs, one by one: not what is looked at here."""
    for cls in (diffusers.KDPM2DiscreteScheduler, diffusers.KDPM2AncestralDiscreteScheduler):
        monkeypatch.setattr(cls, "_sigma_to_t", lambda *_: 0.0)


def explicit(config) -> dict:
    """What a configuration says, and which of it was said by default, whatever the order."""
    return {**config, "_use_default_values": sorted(config.get("_use_default_values", []))}


@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[-1]])
@pytest.mark.parametrize("stock", WITH_BETAS)
@pytest.mark.parametrize("ours", ON_BETAS)
def test_every_swap_out_keeps_the_curve_and_what_the_network_predicts(ours, stock, settings) -> None:
    made = ours(**settings)
    theirs = stock.from_config(made.config)
    assert ours in made.compatibles and torch.equal(theirs.betas, made.betas)
    assert len(theirs.betas) == theirs.config.num_train_timesteps == 1000
    for key in KEPT & set(made.config):
        assert theirs.config[key] == made.config[key], key


@pytest.mark.parametrize("settings", [*SETTINGS[3:], OWN])
@pytest.mark.parametrize("there", [*STOCK, *ON_BETAS])
@pytest.mark.parametrize("ours", ON_BETAS)
def test_there_and_back_is_the_same_configuration(ours, there, settings, tmp_path) -> None:
    """diffusers' `test_compatibles`, over every compatible scheduler, and with a save on the way."""
    made = ours(**(OWN[ours.__name__] if settings is OWN else settings))
    across = there.from_config(made.config)
    back = ours.from_config(across.config)
    kept = {k: v for k, v in explicit(back.config).items() if k in made.config}
    assert kept == explicit(made.config)
    assert torch.equal(back.betas, made.betas)
    across.save_pretrained(tmp_path)
    loaded = ours.from_pretrained(tmp_path)
    assert {k: loaded.config[k] for k in KEPT & set(made.config)} == {k: made.config[k] for k in KEPT & set(made.config)}


@pytest.mark.parametrize("noise_schedule", ["cosine", "linear"])
@pytest.mark.parametrize("there", [*STOCK, *ON_BETAS])
def test_imagen_pytorchs_curves_go_there_and_back(there, noise_schedule) -> None:
    made = LucidrainsScheduler(noise_schedule, thresholding=False)
    across = there.from_config(made.config)
    if there in WITH_BETAS:
        assert torch.equal(across.betas, made.betas)
    assert across.config.get("clip_sample") is True
    assert across.config.get("thresholding") is False
    back = LucidrainsScheduler.from_config(across.config)
    assert {k: v for k, v in explicit(back.config).items() if k in made.config} == explicit(made.config)


@pytest.mark.parametrize("cls", [*ON_BETAS, diffusers.DDPMScheduler, diffusers.EulerDiscreteScheduler])
def test_imagen_pytorchs_scheduler_refuses_other_curves(cls) -> None:
    with pytest.raises(
        ValueError, match=r"another noise curve, beta_schedule=\"linear\"; .* has those of imagen-pytorch \(cosine, linear\)"
    ):
        LucidrainsScheduler.from_config(cls(beta_schedule="linear").config)
    moved = cls.from_config(LucidrainsScheduler("linear").config, trained_betas=None, beta_schedule="linear")
    with pytest.raises(ValueError, match="another noise curve"):
        LucidrainsScheduler.from_config(moved.config)
    with pytest.raises(ValueError, match='trained_betas are not those of imagen-pytorch\'s "linear" curve'):
        LucidrainsScheduler("linear", trained_betas=LucidrainsScheduler("cosine").betas.tolist())


def test_imagen_pytorchs_scheduler_changes_its_curve_when_it_is_asked_to() -> None:
    made = LucidrainsScheduler.from_config(LucidrainsScheduler("cosine", prediction_type="sample").config, noise_schedule="linear")
    assert torch.equal(made.betas, LucidrainsScheduler("linear").betas)
    assert made.config.prediction_type == "sample"


@pytest.mark.parametrize(
    "asked",
    [
        {"log_snr_shift": -3.0},
        {"log_snr_shift": 0.0},
        {"beta_schedule": "linear"},
        {"beta_schedule": "scaled_linear", "log_snr_shift": 1.0},
        {"beta_start": 2e-4, "beta_schedule": "linear"},
    ],
)
def test_a_curve_that_is_asked_for_goes_before_the_one_that_is_kept(asked, tmp_path) -> None:
    source = ImagenDDPMScheduler(log_snr_shift=-1.0, prediction_type="sample")
    made = ImagenDDPMScheduler.from_config(source.config, **asked)
    expected = ImagenDDPMScheduler(**{"log_snr_shift": -1.0, **asked})
    assert torch.equal(made.betas, expected.betas)
    assert made.config.prediction_type == "sample"
    assert all(made.config[name] == expected.config[name] for name in (*asked, "trained_betas"))
    made.save_pretrained(tmp_path)
    assert torch.equal(ImagenDDPMScheduler.from_pretrained(tmp_path).betas, made.betas)
    across = ImagenEulerDiscreteScheduler.from_config(source.config)  # and over a scheduler that knows no shift
    assert torch.equal(ImagenDDPMScheduler.from_config(across.config, **asked).betas, expected.betas)


def test_a_solver_that_is_asked_for_another_curve_has_it_and_takes_it_back() -> None:
    for source in (ImagenDDPMScheduler(log_snr_shift=-1.0), LucidrainsScheduler("linear")):
        solver = imagen_diffusers.ImagenDDIMScheduler.from_config(source.config, beta_schedule="scaled_linear")
        expected = ImagenDDPMScheduler(beta_schedule="scaled_linear")
        assert torch.equal(solver.betas, expected.betas)
        assert torch.equal(ImagenDDPMScheduler.from_config(solver.config).betas, expected.betas)


def test_a_curve_of_its_own_is_not_moved_by_a_word() -> None:
    own = LucidrainsScheduler("linear").config
    with pytest.raises(ValueError, match="trained_betas are another curve; give beta_schedule as well"):
        ImagenDDPMScheduler.from_config(own, log_snr_shift=-1.0)
    moved = ImagenDDPMScheduler.from_config(own, log_snr_shift=-1.0, beta_schedule="linear")
    assert torch.equal(moved.betas, ImagenDDPMScheduler(beta_schedule="linear", log_snr_shift=-1.0).betas)


def test_a_curve_of_another_processor_is_moved_as_ones_own() -> None:
    """There the last bits of betas are others."""
    config = dict(ImagenDDPMScheduler(log_snr_shift=-1.0).config)
    betas = torch.tensor(config["trained_betas"])
    config["trained_betas"] = torch.where(torch.arange(1000) % 3 == 0, betas.nextafter(torch.tensor(1.0)), betas).tolist()
    moved = ImagenDDPMScheduler.from_config(config, log_snr_shift=-2.0)
    assert torch.equal(moved.betas, ImagenDDPMScheduler(log_snr_shift=-2.0).betas)


def test_another_number_of_timesteps_is_another_curve() -> None:
    source = ImagenDDPMScheduler(log_snr_shift=-1.0, prediction_type="sample")
    expected = ImagenDDPMScheduler(log_snr_shift=-1.0, num_train_timesteps=500)
    assert torch.equal(ImagenDDPMScheduler.from_config(source.config, num_train_timesteps=500).betas, expected.betas)
    assert torch.equal(ImagenDDPMScheduler.from_config(source.config, num_train_timesteps=1000).betas, source.betas)
    made = LucidrainsScheduler.from_config(LucidrainsScheduler("linear").config, num_train_timesteps=500)
    assert torch.equal(made.betas, LucidrainsScheduler("linear", num_train_timesteps=500).betas)
    for cls in ON_BETAS:
        plain = cls.from_config(cls().config, num_train_timesteps=500)
        assert torch.equal(plain.betas, cls(num_train_timesteps=500).betas)
        own = LucidrainsScheduler("linear").config
        assert torch.equal(cls.from_config(own, num_train_timesteps=1000).betas, LucidrainsScheduler("linear").betas)
        with pytest.raises(ValueError, match="num_train_timesteps=500 makes a curve of a beta_schedule, and .* are another curve"):
            cls.from_config(own, num_train_timesteps=500)
    with pytest.raises(ValueError, match="another curve"):  # which knows no shift, and would lose it
        ImagenEulerDiscreteScheduler.from_config(source.config, num_train_timesteps=500)


@pytest.mark.parametrize("cls", [*ON_BETAS, ImagenEDMDPMSolverMultistepScheduler])
def test_stocks_cap_goes_where_nobody_asked_for_it(cls) -> None:
    edm = cls is ImagenEDMDPMSolverMultistepScheduler
    stock = diffusers.EDMDPMSolverMultistepScheduler if edm else diffusers.DDPMScheduler
    assert stock().config.sample_max_value == 1.0
    assert cls.from_config(stock().config, thresholding=True).config.sample_max_value is None
    assert cls.from_config(stock(sample_max_value=1.0).config, thresholding=True).config.sample_max_value == 1.0
    assert cls.from_config(stock().config, thresholding=True, sample_max_value=1.5).config.sample_max_value == 1.5


@pytest.mark.parametrize("thresholding", [True, False])
def test_edm_there_and_back_is_the_same_configuration(thresholding) -> None:
    for settings in ({}, {"sigma_min": 0.01, "rho": 5.0}, {"prediction_type": "v_prediction"}):
        made = ImagenEDMDPMSolverMultistepScheduler(**settings, thresholding=thresholding)
        for there in (diffusers.EDMEulerScheduler, diffusers.EDMDPMSolverMultistepScheduler):
            across = there.from_config(made.config)
            assert across.config.prediction_type == made.config.prediction_type
            assert (across.config.sigma_min, across.config.sigma_max) == (made.config.sigma_min, made.config.sigma_max)
            back = ImagenEDMDPMSolverMultistepScheduler.from_config(across.config)
            assert {k: v for k, v in explicit(back.config).items() if k in made.config} == explicit(made.config)


def test_zero_terminal_snr_is_kept_or_refused_and_never_lost() -> None:
    made = ImagenEulerDiscreteScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert made.betas[-1] == 1
    for there in WITH_BETAS:
        across = there.from_config(made.config)
        if torch.equal(across.betas, made.betas):
            check_drivable(across)
        else:
            with pytest.raises(ValueError, match=f"{there.__name__} knows no rescale_betas_zero_snr"):
                check_drivable(across)
    with pytest.raises(ValueError, match="ImagenDDPMScheduler has no rescale_betas_zero_snr"):
        ImagenDDPMScheduler.from_config(made.config)
    with pytest.raises(ValueError, match="trained_betas end in noise alone"):
        ImagenDDPMScheduler(trained_betas=made.betas.tolist())


def test_a_curve_that_ends_in_noise_alone_is_trained_on() -> None:
    """At its end the time is between a level and minus infinity, which gave NaN."""
    table = log_snr_table(ImagenEulerDiscreteScheduler(rescale_betas_zero_snr=True).betas)
    assert torch.isfinite(log_snr_at(table, torch.tensor([997.5, 998.4, 998.9, 999.0]))).all()
    assert table[-1] == pytest.approx(math.log(2**-24), abs=1e-6)


@pytest.mark.parametrize(
    ("cls", "option"),
    [(ImagenDDPMScheduler, "timestep_spacing"), (LucidrainsScheduler, "use_karras_sigmas"), (IMAGEN[0], "solver_order")],
)
def test_options_of_other_schedulers_are_refused_by_name(cls, option) -> None:
    """Plain diffusers takes them for `from_config` and ignores them."""
    with pytest.raises(ValueError, match=f"{cls.__name__} has no {option}; its options are"):
        cls.from_config(cls().config, **{option: 1})


def test_euler_takes_its_options_through_from_config() -> None:
    for name in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
        made = ImagenEulerDiscreteScheduler.from_config(ImagenDDPMScheduler().config, **{name: True, "final_sigmas_type": "sigma_min"})
        stock = diffusers.EulerDiscreteScheduler(beta_schedule="squaredcos_cap_v2", **{name: True}, final_sigmas_type="sigma_min")
        for scheduler in (made, stock):
            scheduler.set_timesteps(9)
        assert torch.equal(made.sigmas, stock.sigmas)
        assert made.config.thresholding is True


@pytest.mark.parametrize("between", [diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler, ImagenDDIMScheduler])
def test_a_solvers_own_options_survive_a_swap_there_and_back(between) -> None:
    options = {"solver_type": "heun", "algorithm_type": "sde-dpmsolver++", "solver_order": 3, "use_karras_sigmas": True}
    back = ImagenDPMSolverMultistepScheduler.from_config(between.from_config(ImagenDPMSolverMultistepScheduler(**options).config).config)
    assert {name: back.config[name] for name in options} == options


def test_a_shift_that_a_solver_does_not_take_is_refused_and_not_dropped() -> None:
    config = ImagenDDPMScheduler().config
    with pytest.raises(ValueError, match="ImagenUniPCMultistepScheduler has no log_snr_shift; its options are"):
        imagen_diffusers.ImagenUniPCMultistepScheduler.from_config(config, log_snr_shift=-1.0)
    with pytest.raises(ValueError, match="ImagenDDIMScheduler has no variance_interpolation; its options are"):
        ImagenDDIMScheduler.from_config(config, variance_interpolation=0.3)


def test_a_scheduler_that_takes_the_output_for_something_else_is_told_of(caplog) -> None:
    pipe = make_pipeline()
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.scheduler = None
    pipe.scheduler = diffusers.DDIMScheduler(prediction_type="sample")
    assert not caplog.records
    pipe.scheduler = diffusers.DDIMScheduler()
    (record,) = caplog.records
    assert 'scheduler had prediction_type="sample" and has "epsilon" now' in record.message
    assert "DDIMScheduler.from_config(pipe.scheduler.config)" in record.message
    with pytest.raises(
        ValueError, match=r"scheduler_2 is the class DDIMScheduler; give .*DDIMScheduler.from_config\(pipe.scheduler_2.config\)"
    ):
        pipe.scheduler_2 = diffusers.DDIMScheduler
