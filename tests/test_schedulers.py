"""The Imagen schedulers against stock ones, step by step, and swaps between them."""

import warnings
from itertools import product

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler

import imagen_diffusers
from imagen_diffusers import (
    ImagenDDIMScheduler,
    ImagenDDPMScheduler,
    ImagenDPMSolverMultistepScheduler,
    ImagenEDMDPMSolverMultistepScheduler,
    ImagenEulerDiscreteScheduler,
    ImagenUniPCMultistepScheduler,
    LucidrainsScheduler,
)
from imagen_diffusers.schedulers.driving import accepts, check_drivable, signal_and_noise
from imagen_diffusers.schedulers.noise import alpha_sigma, beta_table
from imagen_diffusers.schedulers.prediction import PREDICTION_TYPES
from imagen_diffusers.schedulers.swapping import KEPT
from imagen_diffusers.schedulers.thresholding import quantile

from .conftest import seeded

pytestmark = pytest.mark.numeric

COSINE = {"beta_schedule": "squaredcos_cap_v2"}
TIMES = [950, 700, 420, 130, 20]
IMAGEN = [
    ImagenDDPMScheduler,
    ImagenDDIMScheduler,
    ImagenDPMSolverMultistepScheduler,
    ImagenEulerDiscreteScheduler,
    ImagenUniPCMultistepScheduler,
]
STOCK = [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler]


def network(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Something that depends on both and leaves the range now and then."""
    return 1.5 * torch.tanh(z * (0.5 + t.float() / 2000)) + 0.1 * torch.cos(t.float() / 50)


def run(scheduler, **extra) -> list[torch.Tensor]:
    z = torch.randn(2, 3, 8, 8, generator=seeded(1)) * scheduler.init_noise_sigma
    path = []
    if accepts(scheduler.step, "generator"):
        extra["generator"] = seeded(2)
    for t in scheduler.timesteps:
        z = scheduler.step(network(scheduler.scale_model_input(z, t), t), t, z, **extra).prev_sample
        path.append(z)
    return path


def assert_paths_close(one: list[torch.Tensor], two: list[torch.Tensor], tolerance: float) -> None:
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize(("stock_variance", "gamma"), [("fixed_small", 0.0), ("fixed_large", 1.0)])
@pytest.mark.parametrize("thresholding", [True, False])
def test_ancestral_equals_stock_ddpm(kind, stock_variance, gamma, thresholding) -> None:
    settings = {"prediction_type": kind, "thresholding": thresholding, "dynamic_thresholding_ratio": 0.9}
    stock = DDPMScheduler(**COSINE, **settings, variance_type=stock_variance, clip_sample=not thresholding, sample_max_value=1e9)
    ours = ImagenDDPMScheduler(**COSINE, **settings, variance_interpolation=gamma, clip_sample=not thresholding)
    stock.set_timesteps(timesteps=TIMES)
    ours.set_timesteps(timesteps=TIMES)
    # Stock stops adding noise only after timestep 0; ours after the last. Compare up to there. float32 products of alphas
    # against float64 log-SNR: 1e-4.
    assert_paths_close(run(stock)[:-1], run(ours)[:-1], 1e-4)


WHOLE = [950, 700, 420, 130, 20, 0]


def in_float64(stock: DDPMScheduler, monkeypatch) -> DDPMScheduler:
    """Stock DDPM on its own float32 curve in float64 arithmetic, with noise as ours generates it: in float32, then cast."""
    stock.alphas_cumprod, stock.one = stock.alphas_cumprod.double(), stock.one.double()
    monkeypatch.setattr(
        diffusers.schedulers.scheduling_ddpm,
        "randn_tensor",
        lambda shape, *, generator, device, dtype: torch.randn(shape, generator=generator, device=device).to(dtype),
    )
    return stock


@pytest.mark.parametrize("thresholding", [True, False])
@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"])
def test_every_variance_type_is_stock_ddpms(variance_type, kind, thresholding, monkeypatch) -> None:
    """At the same whole timesteps, in float64, to the end: 0, after which stock adds no noise either."""
    settings = {"prediction_type": kind, "thresholding": thresholding, "clip_sample": not thresholding, "clip_sample_range": 0.8}
    settings |= {"variance_type": variance_type, "dynamic_thresholding_ratio": 0.9}
    stock = in_float64(DDPMScheduler(**COSINE, **settings, sample_max_value=1e9), monkeypatch)
    ours = ImagenDDPMScheduler(**COSINE, **settings)
    paths = []
    for scheduler in (stock, ours):
        scheduler.set_timesteps(timesteps=WHOLE)
        z, generator, path = torch.randn(2, 3, 8, 8, generator=seeded(1)).double(), seeded(2), []
        for t in scheduler.timesteps:
            said = network(z, t)
            if "learned" in variance_type:  # "learned" is a variance, "learned_range" a place in [-1, 1]
                said = torch.cat((said, torch.tanh(z) if variance_type == "learned_range" else 0.1 + torch.tanh(z) ** 2), 1)
            z, x0 = scheduler.step(said, t, z, generator=generator, return_dict=False)
            path += [z, x0]
        paths.append(path)
    assert_paths_close(*paths, 1e-9)
    assert paths[1][0].dtype == torch.float64


def test_a_variance_is_asked_for_and_not_asked_for_twice() -> None:
    with pytest.raises(ValueError, match='variance_type="fixed_large_log" is unknown; use one of fixed_small'):
        ImagenDDPMScheduler(variance_type="fixed_large_log")
    with pytest.raises(ValueError, match='variance_interpolation is 0.5 and variance_type is "learned_range", which is another variance'):
        ImagenDDPMScheduler(variance_type="learned_range", variance_interpolation=0.5)
    with pytest.raises(TypeError, match="rescale_betas_zero_snr"):
        ImagenDDPMScheduler(rescale_betas_zero_snr=True)
    scheduler = ImagenDDPMScheduler(variance_type="learned_range")
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match="needs an output of 6 channels, prediction and variance; it has 3"):
        scheduler.step(torch.zeros(1, 3, 2, 2), scheduler.timesteps[0], torch.zeros(1, 3, 2, 2))
    deterministic = ImagenDDPMScheduler.from_config(scheduler.config, variance_interpolation=None)
    deterministic.set_timesteps(4)
    assert deterministic.step(torch.zeros(1, 6, 2, 2), deterministic.timesteps[0], torch.zeros(1, 3, 2, 2)).prev_sample.shape[1] == 3


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_deterministic_equals_stock_ddim(kind) -> None:
    stock = DDIMScheduler(**COSINE, prediction_type=kind, clip_sample=True, timestep_spacing="trailing", set_alpha_to_one=True)
    stock.set_timesteps(10)
    ours = ImagenDDPMScheduler(**COSINE, prediction_type=kind, thresholding=False, clip_sample=True, variance_interpolation=None)
    ours.set_timesteps(timesteps=stock.timesteps.tolist())
    assert_paths_close(run(stock, use_clipped_model_output=True), run(ours), 2e-4)


@pytest.mark.parametrize(("spacing", "steps"), [("trailing", 10), ("trailing", 6), ("linspace", 8), ("leading", 7)])
@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_imagen_ddim_keeps_x0_and_noise_consistent(kind, spacing, steps) -> None:
    """Wherever its times stand, which is more than stock does, and to the image."""
    settings = {**COSINE, "prediction_type": kind, "thresholding": True, "clip_sample": False, "timestep_spacing": spacing}
    theirs = ImagenDDIMScheduler(**settings, dynamic_thresholding_ratio=0.9, sample_max_value=None)
    theirs.set_timesteps(steps)
    ours = ImagenDDPMScheduler(**COSINE, prediction_type=kind, variance_interpolation=None, dynamic_thresholding_ratio=0.9)
    ours.set_timesteps(timesteps=theirs.timesteps.tolist())
    assert_paths_close(run(theirs), run(ours), 2e-4)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_euler_thresholded_equals_ddim(kind) -> None:
    """Euler in sigma space is DDIM: the same x0 at the same noise, thresholded alike."""
    settings = {**COSINE, "prediction_type": kind, "thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": None}
    euler = ImagenEulerDiscreteScheduler(**settings, timestep_spacing="trailing")
    euler.set_timesteps(10)
    ours = ImagenDDPMScheduler(**settings, variance_interpolation=None)
    ours.set_timesteps(timesteps=euler.timesteps.tolist())
    z = torch.randn(2, 3, 8, 8, generator=seeded(1))
    alpha = signal_and_noise(euler, euler.timesteps[0])[0]
    y = z / alpha
    for t in euler.timesteps:
        said = network(euler.scale_model_input(y, t), t)
        y = euler.step(said, t, y).prev_sample
        z = ours.step(network(z, t), t, z).prev_sample
    torch.testing.assert_close(y, z, atol=2e-3, rtol=2e-3)  # float32 at sigma up to 1e4


@pytest.mark.parametrize(("ours", "stock"), zip(IMAGEN[1:], STOCK[1:], strict=True))
def test_without_thresholding_solvers_are_stock(ours, stock) -> None:
    one, two = ours(**COSINE), stock(**COSINE)
    for scheduler in (one, two):
        scheduler.set_timesteps(8)
    if ours is ImagenDDIMScheduler:
        assert_paths_close(run(two, use_clipped_model_output=True), run(one), 0)
    else:
        assert_paths_close(run(two), run(one), 0)


@pytest.mark.parametrize("there", IMAGEN)
@pytest.mark.parametrize("here", IMAGEN)
def test_swaps_among_imagen_schedulers_keep_everything(here, there) -> None:
    made = ImagenDDPMScheduler(log_snr_shift=-2.0, prediction_type="v_prediction", dynamic_thresholding_ratio=0.97)
    one = here.from_config(made.config)
    two = there.from_config(one.config)
    for scheduler in (one, two):
        assert torch.equal(scheduler.betas, made.betas)
        for key in KEPT & set(made.config):
            assert scheduler.config[key] == made.config[key], key


@pytest.mark.parametrize("stock", STOCK)
def test_swaps_to_stock_and_back_keep_curve_and_prediction(stock) -> None:
    made = ImagenDDPMScheduler(prediction_type="sample", log_snr_shift=-1.0)
    theirs = stock.from_config(made.config)
    assert torch.equal(theirs.betas, made.betas)
    assert theirs.config.prediction_type == "sample"
    assert theirs.config.thresholding is True
    back = ImagenDDPMScheduler.from_config(theirs.config)
    assert torch.equal(back.betas, made.betas)
    assert {k: back.config[k] for k in KEPT & set(made.config)} == {k: made.config[k] for k in KEPT & set(made.config)}


@pytest.mark.parametrize("stock", STOCK)
def test_swaps_from_stock_defaults_keep_the_stock_curve(stock) -> None:
    theirs = stock()
    ours = ImagenDDPMScheduler.from_config(theirs.config)
    assert torch.equal(ours.betas, theirs.betas)
    assert ours.config.prediction_type == "epsilon"
    assert ours.config.thresholding is False or stock is EulerDiscreteScheduler


@pytest.mark.parametrize("name", [n for n in dir(imagen_diffusers) if n.endswith("Scheduler")])
def test_save_and_load(name, tmp_path) -> None:
    cls = getattr(imagen_diffusers, name)
    edm = "EDM" in name
    if cls is LucidrainsScheduler:  # has curves of its own
        scheduler = cls("linear", prediction_type="sample")
    else:
        scheduler = cls(sigma_min=0.01) if edm else cls.from_config(ImagenDDPMScheduler(log_snr_shift=-1.0).config)
    scheduler.save_pretrained(tmp_path)
    loaded = cls.from_pretrained(tmp_path)
    assert torch.equal(loaded.sigmas, scheduler.sigmas) if edm else torch.equal(loaded.betas, scheduler.betas)


def test_betas_and_edm_are_not_swapped() -> None:
    edm, betas = ImagenEDMDPMSolverMultistepScheduler, ImagenDDPMScheduler
    for source, target in ((edm, betas), (betas, edm)):
        with pytest.raises(ValueError, match=f"{target.__name__} is for networks trained under .* cannot be swapped"):
            target.from_config(source().config)


@pytest.mark.parametrize("stock", [DDPMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, diffusers.HeunDiscreteScheduler])
def test_signal_and_noise_at_any_scheduler(stock) -> None:
    scheduler = stock.from_config(DDPMScheduler(**COSINE).config)
    scheduler.set_timesteps(5)
    z = torch.randn(1, 3, 8, 8, generator=seeded())
    expected = ImagenDDPMScheduler()
    for t in scheduler.timesteps[:3]:
        alpha, sigma = signal_and_noise(scheduler, t)
        table = expected.log_snr
        want = alpha_sigma(torch.lerp(table[int(t)], table[min(int(t) + 1, 999)], float(t) % 1))
        assert alpha.item() == pytest.approx(want[0].item(), abs=2e-3)
        assert sigma.item() == pytest.approx(want[1].item(), abs=2e-3)
        scheduler.step(torch.zeros_like(z), t, z)


def test_float_timesteps_and_add_noise() -> None:
    scheduler = ImagenDDPMScheduler()
    scheduler.set_timesteps(7)
    assert scheduler.timesteps[0] == 999
    assert not torch.equal(scheduler.timesteps, scheduler.timesteps.round())
    x, noise = (torch.randn(2, 3, 4, 4, generator=seeded(i)) for i in (0, 1))
    t = torch.tensor([3, 800])
    stock = DDPMScheduler(**COSINE)
    torch.testing.assert_close(scheduler.add_noise(x, noise, t), stock.add_noise(x, noise, t), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(scheduler.get_velocity(x, noise, t), stock.get_velocity(x, noise, t), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("scheduler", [diffusers.FlowMatchEulerDiscreteScheduler(), object()])
def test_what_cannot_drive_is_refused_by_name(scheduler) -> None:
    with pytest.raises(ValueError, match=f"{type(scheduler).__name__} cannot drive"):
        check_drivable(scheduler)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RePaintScheduler", "its step needs original_image, mask"),
        ("CogVideoXDPMScheduler", "its step needs old_pred_original_sample, timestep_back"),
        ("UnCLIPScheduler", "unless it is told, its step goes to the time before"),
        ("DPMSolverMultistepInverseScheduler", "it goes from an image to noise"),
        ("CogVideoXDDIMScheduler", "its noise curve is not that of its betas"),
        ("DDIMInverseScheduler", "it is not a variance-preserving|it goes from an image to noise"),
    ],
)
def test_diffusion_schedulers_that_do_not_sample_from_noise_alone_are_refused(name, reason) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot drive this cascade: {reason}.*; use DDPM"):
        check_drivable(getattr(diffusers, name)())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta_schedule": "wavy"}, "wavy"),
        ({"prediction_type": "score"}, "score"),
        ({"variance_interpolation": 2.0}, "2.0"),
    ],
)
def test_bad_settings_are_refused_in_words(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        ImagenDDPMScheduler(**change)


@pytest.mark.parametrize("name", ["ImagenDDPMScheduler", "ImagenDDIMScheduler", "ImagenEulerDiscreteScheduler"])
def test_trained_betas_are_one_for_each_timestep(name) -> None:
    betas = beta_table("linear").tolist()
    with pytest.raises(ValueError, match="trained_betas are 1000 and num_train_timesteps is 500; give one for each timestep"):
        getattr(imagen_diffusers, name)(trained_betas=betas, num_train_timesteps=500)
    assert len(getattr(imagen_diffusers, name)(trained_betas=betas[::2], num_train_timesteps=500).betas) == 500


@pytest.mark.parametrize("name", ["ImagenDDPMScheduler", "ImagenDDIMScheduler", "ImagenEulerDiscreteScheduler"])
def test_a_curve_is_given_once(name) -> None:
    kind, stock = getattr(imagen_diffusers, name), DDIMScheduler(trained_betas=beta_table("scaled_linear").tolist())
    two = {"trained_betas": beta_table("scaled_linear").tolist(), "beta_schedule": "linear"}
    for make in (lambda: kind(**two), lambda: kind.from_config(kind().config, **two)):
        with pytest.raises(ValueError, match="trained_betas are another curve than that of beta_schedule=linear, and go before it"):
            make()
    with pytest.raises(ValueError, match="log_snr_shift=-1.0, and go before it"):
        ImagenDDPMScheduler(trained_betas=two["trained_betas"], log_snr_shift=-1.0)
    same = kind(**{**two, "beta_schedule": "scaled_linear"})
    for saved in (stock.config, same.config, {**stock.config, "_class_name": "DDIMScheduler"}):  # stock's has "linear" by default
        assert torch.equal(kind.from_config(saved).betas, stock.betas)
    shifted = ImagenDDPMScheduler(log_snr_shift=-1.0).config
    assert torch.equal(
        kind.from_config(shifted, beta_schedule="linear", trained_betas=beta_table("linear").tolist()).betas,
        kind.from_config(kind(beta_schedule="linear").config).betas,
    )


def test_bad_timesteps_are_refused_in_words() -> None:
    scheduler = ImagenDDPMScheduler()
    with pytest.raises(ValueError, match="descend"):
        scheduler.set_timesteps(timesteps=[10, 20])
    with pytest.raises(ValueError, match="exactly one"):
        scheduler.set_timesteps()
    for steps in (0, 2.5, float("nan")):
        with pytest.raises(ValueError, match=f"num_inference_steps is {steps}; a whole number, at least 1, is needed"):
            scheduler.set_timesteps(steps)
    with warnings.catch_warnings(action="error"):
        scheduler.set_timesteps(timesteps=torch.tensor([900, 500, 10]))
    assert scheduler.timesteps.tolist() == [900, 500, 10]
    scheduler.set_timesteps(4)
    nothing = torch.zeros(1, 3, 2, 2)
    with pytest.raises(ValueError, match="not one of"):
        scheduler.step(nothing, 123.4, nothing)
    first, second, *rest = scheduler.timesteps
    scheduler.step(nothing, first, nothing)
    for wrong in (123.4, first, rest[0]):
        with pytest.raises(ValueError, match=f"or not the next one, {second}; call set_timesteps"):
            scheduler.step(nothing, wrong, nothing)
    for t in (second, *rest):
        scheduler.step(nothing, t, nothing)
    with pytest.raises(ValueError, match="comes after the scheduler's last; call set_timesteps"):
        scheduler.step(nothing, rest[-1], nothing)


def test_noise_and_velocity_are_of_the_images_type_for_one_time_or_many() -> None:
    ours, stock = ImagenDDPMScheduler(), DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    for times, shape in product((torch.tensor(5), torch.tensor([5, 900])), ((2, 3, 4, 4), (2, 3, 4), (2, 5), (2, 3, 2, 4, 4))):
        x, noise = (torch.randn(shape, generator=seeded(i)) for i in range(2))
        torch.testing.assert_close(ours.add_noise(x, noise, times), stock.add_noise(x, noise, times), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.get_velocity(x, noise, times), stock.get_velocity(x, noise, times), rtol=1e-5, atol=1e-5)
    assert ours.get_velocity(x.half(), noise.half(), torch.tensor([5, 900])).dtype == torch.float16
    with pytest.raises(ValueError, match="timesteps is empty; give at least one time"):
        ours.set_timesteps(timesteps=[])


def test_quantiles_are_the_same_by_sorting() -> None:
    values = torch.randn(3, 1000, generator=seeded())
    plain = quantile(values, 0.995)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(quantile(values, 0.995), plain)
        assert torch.equal(quantile(values, 1.0), values.amax(1))
    finally:
        torch.use_deterministic_algorithms(False)
