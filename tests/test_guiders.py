"""diffusers' guiders in place of equation 2: every class, at every stage, for every task; and what is refused."""

import ast
import copy
import re

import diffusers.guiders
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    AutoGuidance,
    ClassifierFreeGuidance,
    FrequencyDecoupledGuidance,
    LTX2Guidance,
    PerturbedAttentionGuidance,
    SkipLayerGuidance,
)
from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.hooks.layer_skip import LayerSkipConfig
from diffusers.hooks.smoothed_energy_guidance_utils import SmoothedEnergyGuidanceConfig
from diffusers.utils import is_kornia_available

from imagen_diffusers import (
    ImagenCascadeImg2ImgPipeline,
    ImagenCascadeInpaintPipeline,
    ImagenCascadeUpscalePipeline,
    ImagenDDPMScheduler,
)
from imagen_diffusers.cli.guiders import guiders_that_run, read_guiders
from imagen_diffusers.models.lora import add_lora
from imagen_diffusers.sampling.guiders import GuiderAtWork, scale_of

from .conftest import make_base, make_pipeline, make_sr, seeded
from .test_architecture import PACKAGE
from .test_cascade import PROMPT, draw, make_shallow
from .test_deepfloyd import base_network

BASE = {"stop_at": 1, "num_inference_steps": 4}
EVERY_STEP = {"skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}
MIDDLE = {"indices": [0], "fqn": "mid_block", "skip_ff": False}
NO_KEYS_OF_TEXT = {"encoder_hid_dim": None}  # of a network without text, pixels attend to pixels
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def skip(**changes) -> LayerSkipConfig:
    return LayerSkipConfig(**{**MIDDLE, **changes})


PERTURBED = {
    "perturbed_guidance_scale": 20.0,
    "perturbed_guidance_start": 0.0,
    "perturbed_guidance_stop": 1.0,
    "perturbed_guidance_config": [skip()],
}
# Every guider of diffusers: its settings, the base's where they are others, and why it is refused.
TABLE: dict[str, tuple[dict, dict, str | None]] = {
    "AdaptiveProjectedGuidance": ({"guidance_scale": 3.0, "adaptive_projected_guidance_momentum": -0.5, "eta": 0.5}, {}, None),
    "AdaptiveProjectedMixGuidance": ({"guidance_scale": 3.0, "adaptive_projected_guidance_start_step": 1}, {}, None),
    "AutoGuidance": ({"guidance_scale": 3.0, "auto_guidance_config": skip()}, {}, None),
    "ClassifierFreeGuidance": ({"guidance_scale": 3.0, "guidance_rescale": 0.5}, {}, None),
    "ClassifierFreeZeroStarGuidance": ({"guidance_scale": 3.0}, {}, None),
    "FrequencyDecoupledGuidance": ({"guidance_scales": [3.0, 2.0]}, {}, None),
    "LTX2Guidance": ({"guidance_scale": 3.0, "stg_scale": 1.0}, {}, "LTX2Guidance wants more than predictions with the text and without"),
    "MagnitudeAwareGuidance": (  # which in diffusers 0.42 takes the norm of tokens, (B, L, D), alone
        {"guidance_scale": 3.0, "alpha": 1.0},
        {},
        r"MagnitudeAwareGuidance cannot combine predictions of the shape \(1, 3, 16, 16\), which unet makes: .*; use another guider",
    ),
    "PerturbedAttentionGuidance": ({"guidance_scale": 3.0, **PERTURBED}, NO_KEYS_OF_TEXT, None),
    "SkipLayerGuidance": ({"guidance_scale": 3.0, "skip_layer_config": skip(), **EVERY_STEP}, {}, None),
    "SmoothedEnergyGuidance": (  # which in diffusers 0.42 counts no predictions, and so never changes a layer
        {"guidance_scale": 3.0, "seg_guidance_config": SmoothedEnergyGuidanceConfig([0], "mid_block")},
        {},
        "SmoothedEnergyGuidance changes nothing in unet: what it predicts with layers changed is what it predicts without",
    ),
    "TangentialClassifierFreeGuidance": ({"guidance_scale": 3.0}, {}, None),
}
FOUND = sorted(
    name
    for name, cls in vars(diffusers.guiders).items()
    if isinstance(cls, type) and issubclass(cls, BaseGuidance) and cls is not BaseGuidance
)


def made(name: str):
    """A guider of the table, the pipeline it guides, and a call's prompt."""
    assert name in TABLE, f"diffusers has a guider that the table does not: {name}"
    if name == "FrequencyDecoupledGuidance" and not is_kornia_available():
        pytest.skip("needs kornia")
    settings, base, _ = TABLE[name]
    alone = dict.fromkeys(("tokenizer", "text_encoder", "unet_2", "unet_3")) if base == NO_KEYS_OF_TEXT else {}
    pipe = make_pipeline(unet=make_base(**base), **alone)
    return getattr(diffusers.guiders, name)(**copy.deepcopy(settings)), pipe, None if base else PROMPT


def test_the_table_has_no_guider_too_many() -> None:
    assert set(TABLE) == set(FOUND)


def test_the_page_and_the_command_refuse_those_that_never_run() -> None:
    never = {name for name, (_, _, why) in TABLE.items() if why is not None} - {"LTX2Guidance"}  # which runs without its other terms
    assert guiders_that_run().keys() == TABLE.keys() - never
    rows = [row.split("|")[1:3] for row in (PACKAGE.parent / "docs/settings.md").read_text().splitlines() if row.startswith("| `")]
    said = {name: why for names, why in rows for name in re.findall(r"`(\w+Guidance)`", names)}
    assert said.keys() == TABLE.keys()
    assert {name for name, why in said.items() if why.strip().startswith("refused")} == never


def as_typed(value: object) -> str:
    if isinstance(value, LayerSkipConfig):
        return f"{value.fqn}.{value.indices[0]}"
    return ",".join(map(as_typed, value)) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("name", guiders_that_run())
def test_settings_are_read_as_they_are_typed(name) -> None:
    expected, *_ = made(name)
    settings = {**TABLE[name][0], "stop": 0.75, "enabled": True}
    read = read_guiders([f"{name}:{', '.join(f'{key}={as_typed(value)}' for key, value in settings.items())}"])
    states = [{**vars(one), "_stop": 0.75, "guidance_stop": None, "_internal_dict": None} for one in (read, expected)]
    assert states[0] == states[1]
    assert read._stop == 0.75


@pytest.mark.parametrize("name", FOUND)
def test_every_guider_runs_or_is_refused_in_words(name) -> None:
    guider, pipe, prompt = made(name)
    if TABLE[name][2] is not None:
        with pytest.raises(ValueError, match=TABLE[name][2]):
            draw(pipe, prompt, guider=guider, **BASE)
        return
    before, state = vars(copy.deepcopy(guider)), torch.get_rng_state()
    unguided = draw(pipe, prompt, guider=[None], **BASE).images
    image = draw(pipe, prompt, guider=guider, **BASE).images
    assert torch.isfinite(image).all() and not torch.allclose(image, unguided, atol=1e-3)
    assert torch.equal(draw(pipe, prompt, guider=guider, **BASE).images, image)
    assert torch.equal(draw(pipe, prompt, guider=[None], **BASE).images, unguided)  # the network, too, is as it was
    assert str(vars(guider)) == str(before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", [name for name in FOUND if TABLE.get(name, (0, 0, None))[2] is None])
def test_one_seed_one_image_in_any_batch(name) -> None:
    guider, pipe, prompt = made(name)
    both = pipe(
        prompt and [prompt] * 2,
        num_images_per_prompt=1 if prompt else 2,
        generator=[seeded(1), seeded(2)],
        guider=guider,
        output_type="pt",
        **BASE,
    ).images
    alone = draw(pipe, prompt, seed=2, guider=guider, **BASE).images
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_classifier_free_guidance_is_equation_2_at_every_stage(prediction_type, original) -> None:
    """The original formulation starts from the prediction with the text, and so has a scale of w - 1."""
    schedulers = {f"scheduler{n}": ImagenDDPMScheduler(prediction_type=prediction_type) for n in ("", "_2", "_3")}
    pipe = make_pipeline(**schedulers)
    guider = ClassifierFreeGuidance(2.0 if original else 3.0, use_original_formulation=original)
    assert scale_of(guider) == 3.0
    call = {"negative_prompt": "a blue sphere", "num_inference_steps": 3}
    expected = draw(pipe, guidance_scale=3.0, **call).stage_images
    for said, image in zip(draw(pipe, guider=guider, **call).stage_images, expected, strict=True):
        torch.testing.assert_close(said, image, atol=1e-4, rtol=0)


def test_each_stage_has_its_own(shared_pipe) -> None:
    one, three = ClassifierFreeGuidance(2.0), ClassifierFreeGuidance(4.0)
    expected = draw(shared_pipe, guidance_scale=[2.0, 1.0, 4.0]).images
    torch.testing.assert_close(draw(shared_pipe, guider=[one, None, three]).images, expected, atol=1e-4, rtol=0)
    expected = draw(shared_pipe, stop_at=2, guidance_scale=[2.0, 1.0]).images
    torch.testing.assert_close(draw(shared_pipe, stop_at=2, guider=(one, None)).images, expected, atol=1e-4, rtol=0)
    assert torch.equal(draw(shared_pipe, guider=[None] * 3).images, draw(shared_pipe, guidance_scale=1.0).images)


def test_start_and_stop_are_the_interval(shared_pipe) -> None:
    rows = []
    hook = shared_pipe.unet.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    said = draw(shared_pipe, guider=ClassifierFreeGuidance(3.0, start=0.25, stop=0.75), **BASE).images
    hook.remove()
    assert rows == [1] * 6  # two a step in the middle
    expected = draw(shared_pipe, guidance_scale=3.0, guidance_interval=(0.25, 0.75), **BASE).images
    torch.testing.assert_close(said, expected, **CLOSE)


def test_adaptive_projection_is_what_guidance_parallel_does(shared_pipe) -> None:
    guider = AdaptiveProjectedGuidance(guidance_scale=2.0, eta=0.3, adaptive_projected_guidance_rescale=0.0, use_original_formulation=True)
    expected = draw(shared_pipe, guidance_scale=3.0, guidance_parallel=0.3, **BASE).images
    torch.testing.assert_close(draw(shared_pipe, guider=guider, **BASE).images, expected, atol=1e-4, rtol=0)


class Network:
    """Stands for a stage's network, which a guider may be shown."""

    module, compiled = torch.nn.Identity(), False


def test_adaptive_projection_has_momentum_and_a_largest_norm() -> None:
    """Sadat et al. 2024, algorithm 1, with diffusers' starting point, the prediction without the text."""
    guider = AdaptiveProjectedGuidance(
        guidance_scale=4.0, adaptive_projected_guidance_momentum=-0.5, adaptive_projected_guidance_rescale=10.0, eta=0.25
    )
    at_work, average = GuiderAtWork(copy.deepcopy(guider), Network(), "unet", 3), torch.zeros(2, 3, 8, 8)
    for step in range(3):
        with_text, without = (torch.randn(2, 3, 8, 8, generator=seeded(10 * step + n)) for n in (1, 2))
        said, variance = at_work.output(lambda text: (with_text, 1) if text else (without, 2), step, torch.tensor(9))  # noqa: B023
        average = with_text - without - 0.5 * average
        update = average * (10 / average.flatten(1).norm(dim=1)).clamp(max=1)[:, None, None, None]
        parallel = (update * with_text).sum((1, 2, 3), keepdim=True) / with_text.square().sum((1, 2, 3), keepdim=True) * with_text
        torch.testing.assert_close(said, without + 4.0 * (update - parallel + 0.25 * parallel), **CLOSE)
        assert variance == 1


class Recorded(ClassifierFreeGuidance):
    """Tells the states it was in."""

    states: list = []

    def set_state(self, step, num_inference_steps, timestep):
        self.states.append((step, num_inference_steps, float(timestep)))
        super().set_state(step, num_inference_steps, timestep)


@pytest.fixture
def recorded() -> Recorded:
    Recorded.states.clear()
    return Recorded(3.0)


def test_steps_are_counted_as_diffusers_counts_them(shared_pipe, recorded) -> None:
    scheduler = shared_pipe.stages([1], 4)[0].prepared_scheduler(torch.device("cpu"))
    times = scheduler.timesteps.tolist()
    draw(shared_pipe, guider=recorded, **BASE)
    assert Recorded.states == [(n, 4, time) for n, time in enumerate(times)]
    Recorded.states.clear()
    image, call = torch.rand(1, 3, 16, 16, generator=seeded(3)), {**BASE, "strength": 0.5}
    pipe = ImagenCascadeImg2ImgPipeline.from_pipe(shared_pipe)
    said = draw(pipe, image=image, guider=recorded, **call).images
    assert Recorded.states == [(0, 2, times[2]), (1, 2, times[3])]
    torch.testing.assert_close(said, draw(pipe, image=image, guidance_scale=3.0, **call).images, **CLOSE)


def test_steps_that_are_made_again_count_again(shared_pipe, recorded) -> None:
    pipe = ImagenCascadeInpaintPipeline.from_pipe(shared_pipe)
    image, mask = torch.rand(1, 3, 16, 16, generator=seeded(3)), torch.zeros(1, 1, 16, 16)
    mask[..., 4:12] = 1
    call = {"image": image, "mask_image": mask, "jump_length": 2, "jump_n_sample": 2, **BASE}
    said = draw(pipe, guider=recorded, **call).images
    assert [state[:2] for state in Recorded.states] == [(n, 4) for n in (0, 1, 0, 1, 2, 3, 2, 3)]
    torch.testing.assert_close(said, draw(pipe, guidance_scale=3.0, **call).images, **CLOSE)
    momentum = AdaptiveProjectedGuidance(3.0, adaptive_projected_guidance_momentum=-0.5)
    assert torch.equal(draw(pipe, guider=momentum, **call).images, draw(pipe, guider=momentum, **call).images)


def test_images_are_enlarged_under_a_guider(shared_pipe) -> None:
    pipe = ImagenCascadeUpscalePipeline.from_pipe(shared_pipe)
    call = {"image": torch.rand(1, 3, 16, 16, generator=seeded(3)), "stop_at": 2}
    expected = draw(pipe, guidance_scale=3.0, **call).images
    torch.testing.assert_close(draw(pipe, guider=ClassifierFreeGuidance(3.0), **call).images, expected, atol=1e-4, rtol=0)


def test_a_state_from_elsewhere_does_not_come_in(shared_pipe) -> None:
    """Momentum of a run of the caller's own; each stage begins with none."""
    fresh, used = (AdaptiveProjectedGuidance(3.0, adaptive_projected_guidance_momentum=-0.5) for _ in range(2))
    used.set_state(0, 2, torch.tensor(5))
    used.prepare_inputs({})
    used(
        [
            type("Batch", (), {"noise_pred": torch.randn(1, 3, 16, 16), "__guidance_identifier__": name})()
            for name in ("pred_cond", "pred_uncond")
        ]
    )
    assert used.momentum_buffer is not None
    assert torch.equal(draw(shared_pipe, guider=used).images, draw(shared_pipe, guider=fresh).images)


@pytest.mark.thorough
def test_slices_and_tiles(pipe) -> None:
    call = {"height": 128, "width": 128, "num_inference_steps": 2, "num_images_per_prompt": 2}
    for enable in (pipe.enable_slicing, pipe.enable_tiling):
        enable()
        expected = draw(pipe, guidance_scale=3.0, **call).images
        torch.testing.assert_close(draw(pipe, guider=ClassifierFreeGuidance(3.0), **call).images, expected, atol=1e-4, rtol=0)


def test_the_learned_variance_is_not_guided() -> None:
    scheduler = ImagenDDPMScheduler(prediction_type="epsilon", variance_type="learned_range", clip_sample=True)
    pipe = make_pipeline(unet=make_base(out_channels=6), scheduler=scheduler)
    expected = draw(pipe, guidance_scale=3.0, **BASE).images
    torch.testing.assert_close(draw(pipe, guider=ClassifierFreeGuidance(3.0), **BASE).images, expected, **CLOSE)


def test_deepfloyd_networks_are_guided_and_their_layers_are_not_changed() -> None:
    pipe = make_pipeline(unet=base_network(), scheduler=ImagenDDPMScheduler(prediction_type="epsilon", clip_sample=True))
    expected = draw(pipe, guidance_scale=3.0, **BASE).images
    torch.testing.assert_close(draw(pipe, guider=ClassifierFreeGuidance(3.0), **BASE).images, expected, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="where unet has no attention between pixels that it could change; of such layers there is none"):
        draw(pipe, guider=SkipLayerGuidance(skip_layer_config=skip(fqn="down_blocks")), **BASE)


@pytest.mark.thorough
def test_compiled_networks_are_guided_and_their_layers_are_not_changed() -> None:
    pipe = make_shallow()
    expected = draw(pipe, guidance_scale=3.0, **BASE).images
    torch.compiler.reset()
    pipe.compile(backend="eager")
    torch.testing.assert_close(draw(pipe, guider=ClassifierFreeGuidance(3.0), **BASE).images, expected, atol=1e-4, rtol=0)
    with pytest.raises(
        ValueError, match="AutoGuidance changes layers while unet runs, and unet is compiled or exported; use it with networks that are"
    ):
        draw(pipe, guider=AutoGuidance(auto_guidance_config=skip()), **BASE)


def test_layers_of_super_resolution_stages_are_changed(shared_pipe) -> None:
    """The attention of "cross_text" is none between pixels, and that of "self" has no keys of text."""
    slg = SkipLayerGuidance(3.0, skip_layer_config=skip(fqn="down_blocks", indices=[1]), **EVERY_STEP)
    call = {"stop_at": 2, "num_inference_steps": 3}
    plain = draw(shared_pipe, guider=[None, ClassifierFreeGuidance(3.0)], **call).images
    assert not torch.allclose(draw(shared_pipe, guider=[None, slg], **call).images, plain, atol=1e-3)
    with pytest.raises(ValueError, match="where unet_3 has no attention between pixels"):
        draw(shared_pipe, guider=[None, None, slg])
    pipe = make_pipeline(unet_2=make_sr(attention_kind="self"))
    changed = {**PERTURBED, "perturbed_guidance_config": [skip(fqn="down_blocks", indices=[1])]}
    pag = PerturbedAttentionGuidance(3.0, **changed)
    plain = draw(pipe, guider=[None, ClassifierFreeGuidance(3.0)], **call).images
    assert not torch.allclose(draw(pipe, guider=[None, pag], **call).images, plain, atol=1e-3)


def test_layers_are_as_they_were_after_a_failure(pipe) -> None:
    expected = draw(pipe, guider=[None], **BASE).images
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 5:  # the third prediction of the second step, with layers changed
            raise RuntimeError("out of memory")

    hook = pipe.unet.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        draw(pipe, guider=SkipLayerGuidance(3.0, skip_layer_config=skip(), **EVERY_STEP), **BASE)
    hook.remove()
    assert torch.equal(draw(pipe, guider=[None], **BASE).images, expected)


def test_a_callback_reads_and_sets_the_guiders_scale(shared_pipe) -> None:
    seen = []

    def at(value: float, when: int):
        def callback(pipe, step, timestep, tensors):
            seen.append((pipe.guidance_scale, pipe.do_classifier_free_guidance))
            if step == when:
                pipe._guidance_scale = value

        return callback

    both = [{"guidance_scale": 3.0}, {"guider": ClassifierFreeGuidance(2.0, use_original_formulation=True)}]
    for callback in (at(5.0, 1), at(1.0, 1)):
        one, other = (draw(shared_pipe, callback_on_step_end=callback, **how, **BASE).images for how in both)
        torch.testing.assert_close(one, other, **CLOSE)
        assert seen[:4] == seen[4:]
        seen.clear()
    cut = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)
    one, other = (draw(shared_pipe, callback_on_step_end=cut, **how, **BASE).images for how in both)
    torch.testing.assert_close(one, other, **CLOSE)


def test_a_guider_without_a_scale_is_ended_and_not_set(shared_pipe) -> None:
    pytest.importorskip("kornia")
    guider = FrequencyDecoupledGuidance([3.0, 2.0])

    def to(value: float):
        def callback(pipe, step, timestep, tensors):
            pipe._guidance_scale = value

        return callback

    with pytest.raises(ValueError, match="FrequencyDecoupledGuidance has no guidance_scale, which is set to 5; set 1 or less"):
        draw(shared_pipe, guider=guider, callback_on_step_end=to(5.0), **BASE)
    assert torch.isfinite(draw(shared_pipe, guider=guider, callback_on_step_end=to(1.0), **BASE).images).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guider": ClassifierFreeGuidance(3.0), "guidance_scale": 3.0}, "guider takes the place of guidance_scale; leave out one"),
        ({"guider": [None] * 3, "guidance_interval": (0.0, 1.0)}, "guider takes the place of guidance_interval"),
        ({"guider": ClassifierFreeGuidance(3.0), "guidance_parallel": 0.0}, "guider takes the place of guidance_parallel"),
        ({"guider": [ClassifierFreeGuidance(3.0)]}, "guider has 1 values for 3 stages; give one, or one for each stage that runs"),
        ({"guider": 3.0}, r"guider is 3.0; give one of diffusers.guiders, such as ClassifierFreeGuidance\(guidance_scale=3.0\)"),
        ({"guider": "ClassifierFreeGuidance"}, "guider is 'ClassifierFreeGuidance'; give one of diffusers.guiders"),
        ({"guider": ClassifierFreeGuidance}, "guider is <class 'diffusers.guiders.classifier_free_guidance.ClassifierFreeGuidance'>"),
        (
            {"guider": SkipLayerGuidance(skip_layer_guidance_layers=[0])},
            "SkipLayerGuidance would skip whole layers, which change the number of channels or pixels in unet",
        ),
        (
            {"guider": SkipLayerGuidance(skip_layer_config=skip(fqn="auto"))},
            r'names fqn="auto", indices=\[0\], where unet has no attention .*; of such layers fqn="down_blocks", indices=\[2\] or',
        ),
        ({"guider": SkipLayerGuidance(skip_layer_config=skip(indices=[1]))}, r'fqn="mid_block", indices=\[1\], where unet has no'),
        (
            {"guider": SkipLayerGuidance(1.0, skip_layer_config=skip(), **EVERY_STEP), **BASE},
            "SkipLayerGuidance changes no layers in steps in which its classifier-free guidance is off, a fault of diffusers 0.42",
        ),
        (
            {"guider": AutoGuidance(auto_guidance_config=skip(dropout=0.1))},
            "AutoGuidance has dropout=0.1, whose random numbers would not come from the call's generator; give 1",
        ),
        (
            {"guider": PerturbedAttentionGuidance(perturbed_guidance_config=skip())},
            "lets each pixel attend to itself alone, which the attention of unet cannot: its keys are pixels and text together",
        ),
    ],
)
def test_bad_guiders_are_refused_in_words(shared_pipe, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        draw(shared_pipe, **arguments)


def test_a_guider_of_other_terms_runs_without_them(shared_pipe) -> None:
    expected = draw(shared_pipe, guidance_scale=3.0, **BASE).images
    torch.testing.assert_close(draw(shared_pipe, guider=LTX2Guidance(3.0), **BASE).images, expected, **CLOSE)


def test_layers_may_have_adapters(pipe) -> None:
    guider = SkipLayerGuidance(3.0, skip_layer_config=skip(), **EVERY_STEP)
    plain = draw(pipe, guider=guider, **BASE).images
    add_lora(pipe.unet, rank=2, seed=0)
    torch.testing.assert_close(draw(pipe, guider=guider, **BASE).images, plain, **CLOSE)  # fresh ones change nothing


def test_there_is_one_step_and_one_equation_2() -> None:
    calls = [node.func for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    steps = [f for f in calls if isinstance(f, ast.Attribute) and f.attr == "step" and ast.unparse(f.value).endswith("scheduler")]
    assert len(steps) == len([f for f in calls if isinstance(f, ast.Name) and f.id == "guide"]) == 1
