"""In the loop, and after every swap, x0 is thresholded once, as the scheduler's configuration asks."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils import is_torchsde_available

import imagen_diffusers
from imagen_diffusers import ImagenDDPMScheduler, ImagenEDMDPMSolverMultistepScheduler, LucidrainsScheduler
from imagen_diffusers.schedulers.driving import as_output, clean_image, prepare_for_x0
from imagen_diffusers.schedulers.kinds import ENDS_IN_NOISE, TAKES_NO_X0
from imagen_diffusers.schedulers.noise import alpha_sigma, log_snr_at, log_snr_of
from imagen_diffusers.schedulers.prediction import PREDICTION_TYPES, from_x0
from imagen_diffusers.schedulers.thresholding import dynamic_threshold

from .conftest import make_base, make_pipeline, seeded

pytestmark = pytest.mark.numeric

LEFT_OUT = {"EDMEulerScheduler", "PNDMScheduler"} | (set() if is_torchsde_available() else {"DPMSolverSDEScheduler"})
STOCK = [getattr(diffusers, e.name) for e in KarrasDiffusionSchedulers if e.name not in LEFT_OUT]
IMAGEN = [
    getattr(imagen_diffusers, n)
    for n in dir(imagen_diffusers)
    if n.startswith(("Imagen", "Lucidrains")) and n.endswith("Scheduler") and "EDM" not in n
]
SOLVERS = [c for c in [*STOCK, *IMAGEN] if c is not LucidrainsScheduler]
STATIC = {"thresholding": False, "clip_sample": True, "clip_sample_range": 0.5}
DYNAMIC = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": None, "clip_sample": True}


def wild() -> torch.Tensor:
    return torch.linspace(-3, 3, 3 * 16 * 16).view(1, 3, 16, 16)


def expected(asked: dict) -> torch.Tensor:
    return wild().clamp(-0.5, 0.5) if asked is STATIC else dynamic_threshold(wild(), 0.9)


def generated(scheduler) -> torch.Tensor:
    """By a network that always implies the same x0, far out of range; in [-1, 1]."""
    unet = make_base()
    unet.forward = lambda sample, *_, **__: (wild().expand(len(sample), -1, -1, -1),)  # type: ignore[method-assign]
    pipe = make_pipeline(unet=unet, scheduler=scheduler, num_inference_steps=(12, 2, 2))
    return pipe("a cube", generator=seeded(), output_type="pt", stop_at=1).images * 2 - 1


@pytest.mark.parametrize("name", sorted(name for name in TAKES_NO_X0 | ENDS_IN_NOISE if name not in LEFT_OUT - {"PNDMScheduler"}))
def test_a_subclass_keeps_to_the_rules_of_its_class(name) -> None:
    cls = getattr(diffusers, name)
    mine = type("MyScheduler", (cls,), {})
    config = ImagenDDPMScheduler(prediction_type="sample", beta_schedule="linear").config
    torch.testing.assert_close(generated(mine.from_config(config)), generated(cls.from_config(config)), rtol=0, atol=0)


@pytest.mark.parametrize("asked", [STATIC, DYNAMIC], ids=["static", "dynamic"])
@pytest.mark.parametrize("cls", SOLVERS)
def test_every_scheduler_thresholds_in_the_loop_after_a_swap(cls, asked) -> None:
    scheduler = cls.from_config(ImagenDDPMScheduler(prediction_type="sample", **asked).config)
    # Every solver ends at its last x0, but for what is left of the noise: sigma 0.006 at this curve's first timestep, times the
    # noise that solvers of the noise believe in.
    torch.testing.assert_close(generated(scheduler), expected(asked), rtol=0, atol=0.03)


@pytest.mark.parametrize("source", [DDPMScheduler, ImagenDDPMScheduler])
@pytest.mark.parametrize("cls", IMAGEN)
def test_static_thresholding_survives_a_swap_outside_of_the_loop(cls, source) -> None:
    if cls is LucidrainsScheduler:
        scheduler = cls(prediction_type="sample", thresholding=False)
    else:
        scheduler = cls.from_config(source(prediction_type="sample", thresholding=False, clip_sample=True).config)
    scheduler.set_timesteps(8)
    z = torch.randn(1, 3, 16, 16, generator=seeded()) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        scheduler.scale_model_input(z, t)
        z = scheduler.step(wild(), t, z).prev_sample
    assert (z - wild().clamp(-1, 1)).abs().max() < 0.03  # as above


@pytest.mark.parametrize("cls", SOLVERS)
def test_imagen_pytorchs_clipping_survives_a_swap(cls) -> None:
    """Its cascades without dynamic thresholding clip."""
    scheduler = cls.from_config(LucidrainsScheduler("cosine", prediction_type="sample", thresholding=False).config)
    # Its cosine ends at a sigma of 0.014, not 0.006.
    torch.testing.assert_close(generated(scheduler), wild().clamp(-1, 1), rtol=0, atol=0.06)


def seen(scheduler, t) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha and sigma of what the network is given: by the scheduler's own scaling, or, where it scales nothing, by the curve."""
    if scheduler.init_noise_sigma != 1:
        alpha = scheduler.scale_model_input(torch.ones((), dtype=torch.float64), t)
        return alpha, (1 - alpha**2) ** 0.5
    return alpha_sigma(log_snr_at(log_snr_of(scheduler.alphas_cumprod.double()), torch.as_tensor(t, dtype=torch.float64)))


class Step(NamedTuple):
    """A network's output that implies x0; what is made of it; what `step` is given, and the x0 that `step` says it used, if it does."""

    alpha: torch.Tensor
    output: torch.Tensor
    made: torch.Tensor
    given: torch.Tensor
    used: torch.Tensor | None


def drive(scheduler, x0: torch.Tensor, kind: str) -> Iterator[Step]:
    before = dict(scheduler.config)
    scheduler.set_timesteps(12)  # in fewer, the cosine's first sigma is too much for stock ancestral solvers
    prepare_for_x0(scheduler)
    z = torch.randn(x0.shape, generator=seeded(), dtype=torch.float64) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        scaled, alpha = scheduler.scale_model_input(z, t), torch.ones(())
        if "EDM" in type(scheduler).__name__:
            sigma = scheduler.sigmas[scheduler.step_index]
            output = (x0 - scheduler.precondition_outputs(z, 0.0, sigma)) / scheduler.precondition_outputs(0.0, 1.0, sigma)
        else:
            alpha, sigma = seen(scheduler, t)
            output = from_x0(x0, scaled, alpha, sigma, kind)
        made = clean_image(scheduler, output, t, z, before)
        given = as_output(scheduler, made, t, z)
        done = scheduler.step(given, t, z)
        yield Step(alpha, output, made, given, getattr(done, "pred_original_sample", None))
        z = done.prev_sample.double()


def assert_x0_is_found(cls, kind: str) -> None:
    x0 = wild().double() / 4
    for step in drive(cls.from_config(ImagenDDPMScheduler(prediction_type=kind).config), x0, kind):
        # Schedulers keep sigma / alpha in float32, and noise counts 1 / alpha, up to 2e4: measured 2e-7 times that; and near the image
        # 1 - alpha^2 is as uncertain.
        tolerance = 1e-4 + 5e-7 / step.alpha.item()
        torch.testing.assert_close(step.made, x0, rtol=0, atol=tolerance)
        if step.used is not None:
            torch.testing.assert_close(step.used.double(), step.made, rtol=0, atol=tolerance)
        assert step.given.dtype == torch.float64


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("cls", SOLVERS)
def test_x0_is_found_from_every_parametrization(cls, kind) -> None:
    assert_x0_is_found(cls, kind)


class NoNoise:
    """In place of torchsde's, which is not there."""

    seeds: list = []

    def __init__(self, *, size, dtype, entropy, **_):
        self.nothing = torch.zeros(size, dtype=dtype)
        self.seeds.append(entropy)

    def __call__(self, *_):
        return self.nothing


@pytest.fixture
def sde(monkeypatch):
    """diffusers' DPM-Solver SDE, whose noise comes from a package of its own."""
    module = ModuleType("torchsde")
    module.BrownianInterval = NoNoise  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchsde", module)
    monkeypatch.setattr(NoNoise, "seeds", [])
    name = "diffusers.schedulers.scheduling_dpmsolver_sde"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name).DPMSolverSDEScheduler
    monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_x0_is_found_in_both_orders_of_dpm_solver_sde(sde, kind) -> None:
    assert_x0_is_found(sde, kind)


def test_noise_of_dpm_solver_sde_has_a_seed_for_each_image(sde) -> None:
    pipe = make_pipeline(scheduler=sde.from_config(ImagenDDPMScheduler(prediction_type="sample").config))
    call = {"output_type": "pt", "stop_at": 1, "num_inference_steps": 12}
    before = torch.get_rng_state()
    pipe(["a cube", "a sphere"], generator=[seeded(1), seeded(2)], **call)
    both = list(NoNoise.seeds)
    pipe("a sphere", generator=seeded(2), **call)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(both)) == 2
    assert NoNoise.seeds == [*both, both[1]]
    assert pipe.scheduler.noise_sampler_seed is None


@pytest.mark.parametrize("cls", [EDMEulerScheduler, ImagenEDMDPMSolverMultistepScheduler])
def test_x0_is_found_under_edms_preconditioning(cls) -> None:
    x0 = wild().double() / 4
    for step in drive(cls(), x0, ""):
        torch.testing.assert_close(step.made, x0, rtol=0, atol=1e-12)
        torch.testing.assert_close(step.given, step.output, rtol=1e-9, atol=1e-9)


def test_a_learned_variance_is_for_those_that_read_it() -> None:
    from imagen_diffusers.schedulers.driving import reads_variance

    learned = DDPMScheduler(variance_type="learned_range")
    for cls, reads in ((DDPMScheduler, True), (ImagenDDPMScheduler, True), (diffusers.DPMSolverMultistepScheduler, False)):
        assert reads_variance(cls.from_config(learned.config)) is reads
