"""In the loop, and after every swap, x0 is thresholded once, as the scheduler's configuration asks."""

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils import is_torchsde_available

import imagen_diffusers
from imagen_diffusers import ImagenDDPMScheduler, ImagenEDMDPMSolverMultistepScheduler, LucidrainsScheduler
from imagen_diffusers.schedulers.driving import as_output, clean_image, prepare_for_x0, signal_and_noise
from imagen_diffusers.schedulers.prediction import PREDICTION_TYPES, from_x0
from imagen_diffusers.schedulers.thresholding import dynamic_threshold

from .conftest import make_base, make_pipeline, seeded

pytestmark = pytest.mark.numeric

LEFT_OUT = {"EDMEulerScheduler"} | (set() if is_torchsde_available() else {"DPMSolverSDEScheduler"})
STOCK = [getattr(diffusers, e.name) for e in KarrasDiffusionSchedulers if e.name not in LEFT_OUT]
IMAGEN = [
    getattr(imagen_diffusers, n) for n in dir(imagen_diffusers) if n.startswith("Imagen") and n.endswith("Scheduler") and "EDM" not in n
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


def drive(scheduler, x0: torch.Tensor, kind: str):
    """Each step's output of a network of this kind that implies x0, beside what is made of it."""
    before = dict(scheduler.config)
    scheduler.set_timesteps(12)  # in fewer, the cosine's first sigma is too much for stock ancestral solvers
    prepare_for_x0(scheduler)
    z = torch.randn(x0.shape, generator=seeded(), dtype=torch.float64) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(z, t)
        if "EDM" in type(scheduler).__name__:
            sigma = scheduler.sigmas[scheduler.step_index]
            output = (x0 - scheduler.precondition_outputs(z, 0.0, sigma)) / scheduler.precondition_outputs(0.0, 1.0, sigma)
        else:
            output = from_x0(x0, scaled, *signal_and_noise(scheduler, t), kind)
        made = clean_image(scheduler, output, t, z, before)
        yield output, made, as_output(scheduler, made, t, z)
        z = scheduler.step(as_output(scheduler, made, t, z), t, z).prev_sample.double()


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("cls", SOLVERS)
def test_x0_is_found_from_every_parametrization(cls, kind) -> None:
    x0 = wild().double() / 4
    for _, made, given in drive(cls.from_config(ImagenDDPMScheduler(prediction_type=kind).config), x0, kind):
        # Sigmas are float32 numbers, and float64 arithmetic on them is exact but for 1 / alpha, up to 2e4.
        torch.testing.assert_close(made, x0, rtol=0, atol=1e-2 if "KDPM2" in cls.__name__ else 1e-9)
        assert given.dtype == torch.float64


@pytest.mark.parametrize("cls", [EDMEulerScheduler, ImagenEDMDPMSolverMultistepScheduler])
def test_x0_is_found_under_edms_preconditioning(cls) -> None:
    x0 = wild().double() / 4
    for output, made, given in drive(cls(), x0, ""):
        torch.testing.assert_close(made, x0, rtol=0, atol=1e-12)
        torch.testing.assert_close(given, output, rtol=1e-9, atol=1e-9)


def test_a_learned_variance_is_for_those_that_read_it() -> None:
    from imagen_diffusers.schedulers.driving import reads_variance

    learned = DDPMScheduler(variance_type="learned_range")
    for cls, reads in ((DDPMScheduler, True), (ImagenDDPMScheduler, True), (diffusers.DPMSolverMultistepScheduler, False)):
        assert reads_variance(cls.from_config(learned.config)) is reads
