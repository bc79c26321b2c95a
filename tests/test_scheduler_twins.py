"""Every Imagen scheduler with a stock twin equals it, step by step and over every stock option, and is it plus thresholding."""

import inspect
import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from imagen_diffusers import (
    ImagenDDIMScheduler,
    ImagenDPMSolverMultistepScheduler,
    ImagenEDMDPMSolverMultistepScheduler,
    ImagenEulerDiscreteScheduler,
    ImagenUniPCMultistepScheduler,
)
from imagen_diffusers.schedulers.noise import beta_table
from imagen_diffusers.schedulers.thresholding import dynamic_threshold

from .conftest import seeded

pytestmark = pytest.mark.numeric

TWINS = {
    ImagenDDIMScheduler: DDIMScheduler,
    ImagenDPMSolverMultistepScheduler: DPMSolverMultistepScheduler,
    ImagenEDMDPMSolverMultistepScheduler: EDMDPMSolverMultistepScheduler,
    ImagenEulerDiscreteScheduler: EulerDiscreteScheduler,
    ImagenUniPCMultistepScheduler: UniPCMultistepScheduler,
}
THRESHOLDING = {"thresholding", "dynamic_thresholding_ratio", "sample_max_value", "clip_sample", "clip_sample_range"}
STEPS = 8  # divides 1000, so that DDIM ends at no noise
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
CURVE = [
    *({"beta_schedule": name} for name in ("linear", "scaled_linear", "squaredcos_cap_v2")),
    {"beta_start": 1e-3, "beta_end": 0.03},
    {"trained_betas": beta_table("scaled_linear").tolist()},
    {"num_train_timesteps": 500},
    *({"prediction_type": kind} for kind in ("epsilon", "sample", "v_prediction")),
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    LINSPACE := {"timestep_spacing": "linspace"},
    *({"timestep_spacing": spacing} for spacing in ("leading", "trailing")),
    {"timestep_spacing": "leading", "steps_offset": 1},
]
SIGMAS = [{f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")]
SOLVER = [
    {"solver_order": 1},
    {"solver_order": 3},
    {"final_sigmas_type": "sigma_min"},
    {"final_sigmas_type": "sigma_min", "lower_order_final": False},
]
SHIFTED = [{**FLOW, "flow_shift": 3.0}, {**FLOW, "use_dynamic_shifting": True, "time_shift_type": "exponential"}]
OPTIONS = {
    ImagenDDIMScheduler: [*(one for one in CURVE if one != LINSPACE), {"set_alpha_to_one": False}],  # there it goes to its own next time
    ImagenDPMSolverMultistepScheduler: [
        *CURVE,
        *SIGMAS,
        *SOLVER,
        *SHIFTED,
        *({"algorithm_type": kind, "final_sigmas_type": "sigma_min"} for kind in ("dpmsolver", "sde-dpmsolver", "sde-dpmsolver++")),
        *({"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "prediction_type": k} for k in ("sample", "v_prediction")),
        {"solver_type": "heun"},
        {"euler_at_final": True},
        {"use_lu_lambdas": True},
        {"lambda_min_clipped": -5.1},
        {"variance_type": "learned_range"},
    ],
    ImagenEDMDPMSolverMultistepScheduler: [
        *SOLVER,
        {"sigma_min": 0.01, "sigma_max": 40.0, "sigma_data": 0.6, "rho": 5.0},
        {"sigma_schedule": "exponential"},
        {"num_train_timesteps": 500},
        {"prediction_type": "v_prediction"},
        {"algorithm_type": "sde-dpmsolver++"},
        {"solver_type": "heun"},
        {"euler_at_final": True},
    ],
    ImagenEulerDiscreteScheduler: [
        *CURVE,
        *SIGMAS,
        {"interpolation_type": "log_linear"},
        {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 20.0},
        {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True},
        {"final_sigmas_type": "sigma_min"},
    ],
    ImagenUniPCMultistepScheduler: [
        *CURVE,
        *SIGMAS,
        *SOLVER,
        *SHIFTED,
        {**FLOW, "shift_terminal": 0.1},
        *(
            {"predict_x0": False, "final_sigmas_type": "sigma_min", "prediction_type": kind}
            for kind in ("epsilon", "sample", "v_prediction")
        ),
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        {"disable_corrector": [0, 1]},
        {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 20.0},
    ],
}
CASES = [pytest.param(ours, o, id=f"{ours.__name__}-{'-'.join(o)}-{list(o.values())[-1]!s:.20}") for ours in TWINS for o in OPTIONS[ours]]


def network(z: torch.Tensor, t: torch.Tensor, channels: int) -> torch.Tensor:
    """Something that depends on both and leaves the range now and then."""
    said = 1.5 * torch.tanh(z * (0.5 + t.float() / 2000)) + 0.1 * torch.cos(t.float() / 50)
    return torch.cat((said, said), 1)[:, :channels]


def run(scheduler, **extra) -> list[torch.Tensor]:
    """The samples after each step."""
    more = {"mu": 0.7} if scheduler.config.get("use_dynamic_shifting") else {}
    scheduler.set_timesteps(STEPS, **more)
    z = torch.randn(2, 3, 8, 8, generator=seeded(1)) * scheduler.init_noise_sigma
    channels = 6 if scheduler.config.get("variance_type") == "learned_range" else 3
    path, generator = [], seeded(2)
    if "generator" in inspect.signature(scheduler.step).parameters:
        extra["generator"] = generator
    for t in scheduler.timesteps:
        z = scheduler.step(network(scheduler.scale_model_input(z, t), t, channels), t, z, **extra).prev_sample
        path.append(z)
    return path


def assert_same(one: list[torch.Tensor], two: list[torch.Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.isfinite(one[-1]).all()


def plain(cls: type, options: dict) -> dict:
    """With thresholding off, which is not stock DDIM's default."""
    return {"clip_sample": False, **options} if "clip_sample" in inspect.signature(cls.__init__).parameters else options


@pytest.mark.parametrize("ours", TWINS)
def test_the_table_has_every_stock_option(ours) -> None:
    stock = set(inspect.signature(TWINS[ours].__init__).parameters) - {"self", "solver_p"} - THRESHOLDING
    assert stock == {name for options in OPTIONS[ours] for name in options}
    assert set(inspect.signature(ours.__init__).parameters) - {"self", "solver_p"} == stock | THRESHOLDING


@pytest.mark.parametrize(("ours", "options"), CASES)
def test_without_thresholding_it_is_its_twin(ours, options, tmp_path) -> None:
    """As made, after a save, after a swap to its twin and back, and after a swap to another scheduler and back: bit for bit."""
    twin = TWINS[ours]
    expected = run(twin(**plain(twin, options)))
    made = ours(**plain(ours, options))
    assert_same(run(made), expected)
    made.save_pretrained(tmp_path)
    assert_same(run(ours.from_pretrained(tmp_path)), expected)
    other = EDMEulerScheduler if "EDM" in ours.__name__ else DDPMScheduler
    for there in (twin, other):
        assert_same(run(ours.from_config(there.from_config(made.config).config)), expected)
    assert_same(run(twin.from_config(made.config)), expected)


def test_unipc_with_another_predictor_is_its_twin() -> None:
    one, two = (cls(solver_p=DDIMScheduler(clip_sample=False)) for cls in (ImagenUniPCMultistepScheduler, UniPCMultistepScheduler))
    assert_same(run(one), run(two))


@pytest.mark.parametrize("extra", [{"eta": 0.7}, {"use_clipped_model_output": True}, {"eta": 1.0, "use_clipped_model_output": False}])
def test_ddim_steps_take_the_stock_arguments(extra) -> None:
    one, two = (cls(beta_schedule="squaredcos_cap_v2", clip_sample=False) for cls in (ImagenDDIMScheduler, DDIMScheduler))
    assert_same(run(one, **extra), run(two, **extra))


@pytest.mark.parametrize("cap", [1.0, 1.5])
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("ours", [c for c in TWINS if c is not ImagenEulerDiscreteScheduler])
def test_with_a_cap_it_is_its_thresholding_twin(ours, kind, cap) -> None:
    if "EDM" in ours.__name__ and kind == "sample":
        return  # stock has it not
    settings = {"prediction_type": kind, "thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": cap}
    extra = {"use_clipped_model_output": True} if ours is ImagenDDIMScheduler else {}
    for a, b in zip(run(ours(**settings)), run(TWINS[ours](**settings), **extra), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)  # the quantile's interpolation is stock's in float32, ours in float64


@pytest.mark.parametrize("ours", TWINS)
def test_dynamic_thresholding_has_no_cap_unless_it_is_given(ours, tmp_path) -> None:
    outputs = {}
    for name, given in {"paper": {}, "capped": {"sample_max_value": 1.0}}.items():
        scheduler = ours(thresholding=True, dynamic_thresholding_ratio=0.9, **given)
        scheduler.save_pretrained(tmp_path / name)
        scheduler = ours.from_pretrained(tmp_path / name)
        assert scheduler.config.sample_max_value == given.get("sample_max_value")
        outputs[name] = run(scheduler)[-1]
    assert not torch.allclose(outputs["paper"], outputs["capped"])


def last_step(scheduler, x0: torch.Tensor) -> torch.Tensor:
    """What a scheduler makes of a network that implies x0, after the last step, which goes to x0 itself."""
    scheduler.set_timesteps(STEPS)
    z = torch.randn(x0.shape, generator=seeded(1)) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(z, t)
        if "sigma_data" in scheduler.config:
            sigma = scheduler.sigmas[scheduler.step_index]
            said = (x0 - scheduler.precondition_outputs(z, 0.0, sigma)) / scheduler.precondition_outputs(0.0, 1.0, sigma)
        else:
            assert scaled.shape == x0.shape
            said = x0
        z = scheduler.step(said, t, z).prev_sample
    return z


INTEGRATES_NOISE = [
    (ImagenUniPCMultistepScheduler, {"predict_x0": False, "final_sigmas_type": "sigma_min"}),
    (ImagenDPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
]
SDE = [(c, {"algorithm_type": "sde-dpmsolver++"}) for c in (ImagenDPMSolverMultistepScheduler, ImagenEDMDPMSolverMultistepScheduler)]


@pytest.mark.parametrize(("ours", "options"), [*((c, {}) for c in TWINS), *SDE, *INTEGRATES_NOISE])
def test_both_kinds_of_thresholding_alone(ours, options) -> None:
    """Outside of any loop of ours. Without noise at the end every solver returns its last x0, and x0 and little noise with it."""
    kind = {} if "EDM" in ours.__name__ else {"prediction_type": "sample", "timestep_spacing": "trailing"}
    x0 = torch.linspace(-5, 5, 192).view(1, 3, 8, 8)
    dynamic = ours(**kind, **options, thresholding=True, dynamic_thresholding_ratio=0.9, clip_sample=True)
    static = ours(**kind, **options, thresholding=False, clip_sample=True, clip_sample_range=0.5)
    tolerance = 0.1 if (ours, options) in INTEGRATES_NOISE else 2e-5
    torch.testing.assert_close(last_step(dynamic, x0), dynamic_threshold(x0, 0.9), atol=tolerance, rtol=0)
    torch.testing.assert_close(last_step(static, x0), x0.clamp(-0.5, 0.5), atol=tolerance, rtol=0)


@pytest.mark.parametrize("churn", [0.0, 3.0])
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_thresholded_euler_is_algorithm_2_of_karras(kind, churn) -> None:
    """Stock Euler's x0, thresholded, in the closed form of its step."""
    settings = {"prediction_type": kind, "timestep_spacing": "leading"}
    one = ImagenEulerDiscreteScheduler(**settings, thresholding=True, dynamic_thresholding_ratio=0.9)
    two = EulerDiscreteScheduler(**settings)
    for scheduler in (one, two):
        scheduler.set_timesteps(STEPS)
    z = torch.randn(2, 3, 8, 8, generator=seeded(1)) * one.init_noise_sigma
    drawn, stock, ours = seeded(2), seeded(2), seeded(2)
    for n, t in enumerate(one.timesteps):
        said = network(one.scale_model_input(z, t), t, 3)
        two.scale_model_input(z, t)
        raised = one.sigmas[n] * (1 + min(churn / STEPS, math.sqrt(2) - 1))
        noisy = z + (torch.randn(z.shape, generator=drawn) * (raised**2 - one.sigmas[n] ** 2).sqrt() if churn else 0)
        x0 = dynamic_threshold(two.step(said, t, z, s_churn=churn, generator=stock).pred_original_sample, 0.9)
        expected = noisy + (noisy - x0) * (one.sigmas[n + 1] - raised) / raised
        step = one.step(said, t, z, s_churn=churn, generator=ours)
        torch.testing.assert_close(step.pred_original_sample, x0, rtol=0, atol=0)
        # Float32 at sigmas up to 150: a rounding of z is 1e-5.
        torch.testing.assert_close(step.prev_sample, expected, rtol=1e-6, atol=3e-5)
        z = step.prev_sample


def test_thresholding_that_does_not_bind_changes_nothing() -> None:
    calm = {"prediction_type": "sample", "timestep_spacing": "leading"}
    one = run(ImagenEulerDiscreteScheduler(**calm, thresholding=True, dynamic_thresholding_ratio=1e-3), s_churn=3.0)
    two = run(EulerDiscreteScheduler(**calm), s_churn=3.0)
    assert not torch.equal(one[-1], two[-1])  # clips at 1, the smallest of all
    network_says = ImagenEulerDiscreteScheduler(**calm, clip_sample=True, clip_sample_range=2.0)
    assert_same(run(network_says, s_churn=3.0), two)
