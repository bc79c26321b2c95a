"""Schedulers begun late and gone back: what is noised has the level of the latents, and a network that knows the answer gives it."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache

import diffusers
import pytest
import torch
from torch import Tensor

import imagen_diffusers
from imagen_diffusers import ImagenCascadeImg2ImgPipeline, ImagenCascadeInpaintPipeline, ImagenCascadePipeline, ImagenDDPMScheduler
from imagen_diffusers.sampling.path import Path
from imagen_diffusers.schedulers.driving import prepare_for_x0
from imagen_diffusers.schedulers.kinds import ENDS_IN_NOISE
from imagen_diffusers.schedulers.noise import alpha_sigma, log_snr_at, log_snr_shift_for, log_snr_table
from imagen_diffusers.schedulers.rewinding import begun_at, noised_again, noised_to

from .conftest import make_base, make_pipeline, seeded
from .test_cascade import IMAGEN, STOCK
from .test_img2img import quiet

EDM = ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "ImagenEDMDPMSolverMultistepScheduler"]
# Everything else begins at any step, and goes back between any two.
FROM_THE_FIRST_ON = {"PNDMScheduler", "LMSDiscreteScheduler"}
NEVER_BACK = FROM_THE_FIRST_ON | {
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
}
STEPS = 12  # the fewest in which stock's ancestral solvers give numbers on the cosine curve


@cache
def scheduler_named(name: str):
    """For tests that change nothing in it: KDPM2's take long to make."""
    cls = getattr(imagen_diffusers if name.startswith(("Imagen", "Lucidrains")) else diffusers, name)
    if name in EDM:
        return cls()
    own_curve = cls is imagen_diffusers.LucidrainsScheduler
    return cls(prediction_type="sample") if own_curve else cls.from_config(ImagenDDPMScheduler(prediction_type="sample").config)


def prepared(name: str, steps: int = STEPS):
    """As the denoising loop has it."""
    scheduler = deepcopy(scheduler_named(name))
    scheduler.set_timesteps(steps)
    prepare_for_x0(scheduler)
    return scheduler


def level_by_the_curve(scheduler, timestep: Tensor) -> tuple[float, float]:
    """alpha and sigma of a timestep by the noise curve alone, whatever solver is on it."""
    return tuple(x.item() for x in alpha_sigma(log_snr_at(log_snr_table(scheduler.betas), timestep.float().cpu())))


def known_level(scheduler, place: int) -> tuple[float, float]:
    """What of the image and what of the noise is in the latents, independently of the code that is tested."""
    if place == len(scheduler.timesteps):
        return 1.0, 0.0
    if not hasattr(scheduler, "betas"):  # EDM's
        return 1.0, scheduler.sigmas[place].item()
    alpha, sigma = level_by_the_curve(scheduler, scheduler.timesteps[place])
    return (1.0, sigma / alpha) if scheduler.init_noise_sigma > 2 else (alpha, sigma)


@pytest.mark.parametrize("name", STOCK + IMAGEN + EDM)
def test_an_image_is_noised_to_the_level_of_the_latents(name) -> None:
    scheduler = prepared(name)
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    for place in range(len(scheduler.timesteps)):
        if name.startswith("KDPM2") and place % scheduler.order:
            continue  # between its steps only a running one knows the level
        timestep = scheduler.timesteps[place]
        level = [noised_to(begun_at(scheduler, place), *given, timestep).item() for given in ((one, zero), (zero, one))]
        assert level == pytest.approx(known_level(scheduler, place), rel=0.02, abs=1e-4)
    assert getattr(scheduler, "step_index", None) is None  # it made no step, and its copies' are their own


@pytest.mark.parametrize("name", [n for n in STOCK + IMAGEN + EDM if n not in NEVER_BACK])
@pytest.mark.parametrize(("done", "place"), [(STEPS, STEPS - 1), (STEPS, 4), (8, 7), (8, 5)])
def test_the_way_back_is_the_forward_process(name, done, place) -> None:
    """For x0 ~ N(m, s^2): z_done to z_place has the mean, the variance and the covariance with x0 that q(z_place | x0) has."""
    scheduler, mean, spread = prepared(name), 0.3, 0.5
    shape = (1, 1, 400, 400)
    x0, noise, more = (torch.randn(shape, generator=seeded(n), dtype=torch.float64) for n in range(3))
    x0 = mean + spread * x0
    signal, sigma = known_level(scheduler, done)
    z = noised_again(scheduler, signal * x0 + sigma * noise, done, place, more)
    assert z.dtype == torch.float64
    signal, sigma = known_level(scheduler, place)
    variance = (signal * spread) ** 2 + sigma**2
    error = 4 / z.numel() ** 0.5  # four standard errors of a standard normal mean
    assert abs(z.mean() - signal * mean) < error * variance**0.5 + 0.01 * signal
    assert z.var().item() == pytest.approx(variance, rel=0.02 + error)
    covariance = ((z - z.mean()) * (x0 - x0.mean())).mean()
    assert abs(covariance - signal * spread**2) < error * variance**0.5 * spread + 0.01 * signal


ANSWER = torch.rand(1, 3, 32, 32, generator=seeded(4)) * 2 - 1
RIGHT_HALF = torch.arange(32).expand(1, 1, 32, 32) >= 16


@pytest.fixture(scope="module")
def knowing():
    """A base whose network says the answer; and what it was shown, with its times."""
    shown: list[tuple[Tensor, Tensor]] = []
    unet = make_base()

    def forward(sample, timestep, *_, **__):
        shown.append((sample[:1], torch.as_tensor(timestep)))
        return (ANSWER.expand(len(sample), -1, -1, -1),)

    unet.forward = forward  # type: ignore[method-assign]
    parts = {"unet_2": None, "scheduler_2": None, "unet_3": None, "scheduler_3": None}
    return make_pipeline(unet=unet, num_inference_steps=(STEPS, 1, 1), **parts), shown


def call(knowing, name: str, task: type, **arguments) -> Tensor:
    """In [-1, 1]."""
    plain, shown = knowing
    shown.clear()
    pipe = quiet(task.from_pipe(plain))
    pipe.scheduler = scheduler_named(name)
    given = {"image": ANSWER / 2 + 0.5, "height": 32, "width": 32, "output_type": "pt", "generator": seeded(1)}
    return pipe("a red cube", **{**given, **arguments}).images * 2 - 1


@pytest.mark.parametrize("steps", [8, 15])
@pytest.mark.parametrize("name", [*sorted(ENDS_IN_NOISE), "DPMSolverMultistepScheduler", "ImagenDDIMScheduler"])
def test_no_noise_is_left_on_the_curve_of_a_large_image(knowing, name, steps) -> None:
    """Its first level is a sigma of 0.1; of one that PNDM can begin on, 0.04."""
    pipe = quiet(ImagenCascadePipeline.from_pipe(knowing[0]))
    of = {"beta_schedule": "linear", "log_snr_shift": log_snr_shift_for(256)} if name == "PNDMScheduler" else {}
    curve = ImagenDDPMScheduler(**{"prediction_type": "sample", "log_snr_shift": log_snr_shift_for(1024), **of}).config
    pipe.scheduler = getattr(imagen_diffusers if name.startswith("Imagen") else diffusers, name).from_config(curve)
    given = {"height": 32, "width": 32, "output_type": "pt", "generator": seeded(1), "num_inference_steps": [steps]}
    torch.testing.assert_close(pipe("a red cube", **given).images * 2 - 1, ANSWER, atol=1e-3, rtol=0)


def told(refused: bool, name: str, act: Callable[[], Tensor]) -> Tensor | None:
    """What `act` gives, or None where it is to be refused by name."""
    if not refused:
        return act()
    with pytest.raises(
        ValueError, match=f"{name} (cannot begin at a later step|evaluates the network several times a step).*; (give|use) "
    ):
        act()
    return None


@pytest.mark.parametrize("name", STOCK + IMAGEN)
def test_a_network_that_knows_the_answer_gives_it_from_any_image(knowing, name) -> None:
    given = {"image": torch.rand(1, 3, 32, 32, generator=seeded(9)), "strength": 0.6}
    made = told(name in FROM_THE_FIRST_ON, name, lambda: call(knowing, name, ImagenCascadeImg2ImgPipeline, **given))
    if made is not None:
        torch.testing.assert_close(made, ANSWER, atol=0.03, rtol=0)


@pytest.mark.parametrize("name", STOCK + IMAGEN)
@pytest.mark.parametrize(("strength", "samples"), [(1.0, 1), (0.6, 1), (0.6, 3)])
def test_a_network_that_knows_the_answer_paints_it_and_sees_one_level(knowing, name, strength, samples) -> None:
    """What is known is as noisy, at each evaluation of the network, as its timestep says: also between two steps, and after going back."""
    refused = name in FROM_THE_FIRST_ON and (strength < 1 or samples > 1) or (name in NEVER_BACK and samples > 1)
    given = {"mask_image": RIGHT_HALF, "strength": strength, "jump_length": 2, "jump_n_sample": samples}
    made = told(refused, name, lambda: call(knowing, name, ImagenCascadeInpaintPipeline, **given))
    if made is None:
        return
    torch.testing.assert_close(made[..., :16], ANSWER[..., :16], atol=1e-6, rtol=0)
    torch.testing.assert_close(made, ANSWER, atol=0.03, rtol=0)
    scheduler, known = scheduler_named(name), ANSWER[..., :16]
    for sample, timestep in knowing[1]:
        alpha, sigma = level_by_the_curve(scheduler, timestep)
        noise = sample[..., :16] - alpha * known
        error = 4 / noise.numel() ** 0.5
        assert noise.std().item() == pytest.approx(sigma, rel=0.02 + error, abs=2e-3)
        assert abs((noise * known).mean()) < error * sigma + 2e-3


def test_what_does_not_go_back_makes_each_step_once_and_nothing_is_copied() -> None:
    scheduler = prepared("ImagenDDPMScheduler")
    path = Path(scheduler)
    assert path.steps == list(range(STEPS))
    assert path.scheduler is scheduler
