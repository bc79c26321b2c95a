"""The pipeline: every scheduler at every stage, randomness, guidance, sizes, callbacks, errors."""

import gc
import re
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
import torch._dynamo.config
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback, SDCFGCutoffCallback
from diffusers.hooks import PyramidAttentionBroadcastConfig, apply_pyramid_attention_broadcast
from diffusers.image_processor import VaeImageProcessor
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils import is_torchsde_available
from PIL import Image
from transformers import T5EncoderModel

import imagen_diffusers
from imagen_diffusers import ImagenCascadePipeline, ImagenCascadeUpscalePipeline, ImagenDDPMScheduler, ImagenDPMSolverMultistepScheduler
from imagen_diffusers.pipelines.image_inputs import images_to_tensor
from imagen_diffusers.sampling.guidance import guide
from imagen_diffusers.schedulers.driving import signal_and_noise
from imagen_diffusers.schedulers.noise import resize
from imagen_diffusers.schedulers.prediction import PREDICTION_TYPES
from imagen_diffusers.text.encoding import NULL_TEXTS

from .conftest import TEXT_DIM, TINY_SR_2, forbid_networks, make_base, make_pipeline, make_sr, seeded

PROMPT = "a red cube left of the sphere"
# EDM's is for networks trained under its preconditioning, PNDM for other curves (both are refused below); one needs a package of its own.
LEFT_OUT = {"EDMEulerScheduler", "PNDMScheduler"} | (set() if is_torchsde_available() else {"DPMSolverSDEScheduler"})
STOCK = [e.name for e in KarrasDiffusionSchedulers if e.name not in LEFT_OUT]
IMAGEN = [n for n in dir(imagen_diffusers) if n.startswith(("Imagen", "Lucidrains")) and n.endswith("Scheduler") and "EDM" not in n]
# Those that interpolate between times.
SIGMAS = {n for n in [*STOCK, *IMAGEN] if any(kind in n for kind in ("Euler", "Heun", "KDPM2", "LMS"))}

# What seven steps make of convolutions that add in another order (for another batch, say): measured 2e-6 and 4e-15.
ROUNDING = {torch.float32: 5e-5, torch.float64: 1e-12}


def draw(pipe, prompt=PROMPT, seed: int = 0, **arguments):
    return pipe(prompt, **{"output_type": "pt", "generator": seeded(seed), **arguments})


def test_three_stages(shared_pipe) -> None:
    out = draw(shared_pipe)
    assert [tuple(s.shape) for s in out.stage_images] == [(1, 3, 16, 16), (1, 3, 32, 32), (1, 3, 64, 64)]
    assert torch.equal(out.images, out.stage_images[-1])
    assert out.images.min() >= 0
    assert out.images.max() <= 1
    assert out.images.std() > 0.01


@pytest.mark.parametrize(("number", "name"), enumerate(STOCK + IMAGEN))
def test_every_scheduler_runs_at_every_stage(number, name) -> None:
    """Each with every kind of prediction, and over all of them every stage with every kind."""
    cls = getattr(imagen_diffusers if name in IMAGEN else diffusers, name)
    own_curve = cls is imagen_diffusers.LucidrainsScheduler
    schedulers = {}
    for stage, slot in enumerate(("scheduler", "scheduler_2", "scheduler_3")):
        made = (cls if own_curve else ImagenDDPMScheduler)(prediction_type=PREDICTION_TYPES[(number + stage) % 3])
        schedulers[slot] = cls.from_config(made.config)
    # Stock ancestral solvers subtract nearly equal squares at the cosine curve's first, huge sigma: few steps give NaN.
    steps = (12, 12, 12) if "Ancestral" in name else (4, 4, 4)
    pipe = make_pipeline(**schedulers, num_inference_steps=steps)
    out = draw(pipe)
    assert torch.isfinite(out.images).all()
    assert torch.equal(out.images, draw(pipe).images)


@pytest.mark.parametrize(
    "name", ["EulerAncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "HeunDiscreteScheduler", "EulerDiscreteScheduler"]
)
def test_solvers_agree_on_a_network_that_knows_the_answer(name) -> None:
    """A perfect x0 prediction is what every solver must return, whatever it was told the network predicts."""
    answer = torch.rand(1, 3, 16, 16, generator=seeded(4)) * 2 - 1
    unet = make_base()
    unet.forward = lambda sample, *_, **__: (answer.expand(len(sample), -1, -1, -1),)  # type: ignore[method-assign]
    scheduler = getattr(diffusers, name).from_config(ImagenDDPMScheduler(prediction_type="sample").config)
    pipe = make_pipeline(unet=unet, scheduler=scheduler, num_inference_steps=(12, 2, 2))
    out = draw(pipe, stop_at=1).images * 2 - 1
    torch.testing.assert_close(out, answer, atol=0.03, rtol=0)


# Solvers that count their steps from the place of the first time in their list.
REPEATING = ["DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"]
REPEATING += ["ImagenDPMSolverMultistepScheduler", "ImagenUniPCMultistepScheduler"]


@pytest.mark.parametrize("kind", ["use_karras_sigmas", "use_exponential_sigmas"])
@pytest.mark.parametrize("name", REPEATING)
def test_solvers_whose_first_times_round_to_one_number_make_every_step(name, kind) -> None:
    """By themselves they look for the first time in the list, and where it is repeated they begin at its second place."""
    cls = getattr(imagen_diffusers if name in IMAGEN else diffusers, name)
    answer = torch.rand(1, 3, 16, 16, generator=seeded(4)) * 2 - 1
    unet = make_base()
    unet.forward = lambda sample, *_, **__: (answer.expand(len(sample), -1, -1, -1),)  # type: ignore[method-assign]
    scheduler = cls.from_config(ImagenDDPMScheduler(prediction_type="sample").config, **{kind: True})
    scheduler.set_timesteps(40)
    assert scheduler.timesteps[0] == scheduler.timesteps[1]  # or nothing is tested
    out = draw(make_pipeline(unet=unet, scheduler=scheduler), stop_at=1, num_inference_steps=40).images * 2 - 1
    torch.testing.assert_close(out, answer, atol=0.03, rtol=0)


@pytest.mark.parametrize("name", [*REPEATING, "EulerDiscreteScheduler", "DDPMScheduler", "ImagenDDPMScheduler"])
def test_where_no_time_is_repeated_solvers_find_the_first_step_themselves(name, shared_pipe, monkeypatch) -> None:
    cls = getattr(imagen_diffusers if name in IMAGEN else diffusers, name)
    pipe = make_pipeline(scheduler=cls.from_config(shared_pipe.scheduler.config))
    begun = draw(pipe, stop_at=1, num_inference_steps=6).images
    monkeypatch.setattr("imagen_diffusers.sampling.path.begun_at", lambda prepared, _: prepared)
    assert torch.equal(draw(pipe, stop_at=1, num_inference_steps=6).images, begun)


@pytest.mark.numeric
@pytest.mark.parametrize(("dtype", "tolerance"), ROUNDING.items())
def test_one_seed_one_image_in_any_batch(dtype, tolerance) -> None:
    pipe = make_pipeline().to(dtype)
    alone = [draw(pipe, seed=s).images for s in range(8)]
    together = draw(pipe, [PROMPT] * 8, generator=[seeded(s) for s in range(8)]).images
    assert together.dtype == dtype
    torch.testing.assert_close(torch.cat(alone), together, atol=tolerance, rtol=0)


@pytest.mark.numeric
@pytest.mark.parametrize(("dtype", "tolerance"), ROUNDING.items())
def test_one_generator_serves_images_in_order(dtype, tolerance) -> None:
    pipe, generator = make_pipeline().to(dtype), seeded(3)
    one_by_one = [draw(pipe, generator=generator).images for _ in range(2)]
    at_once = draw(pipe, num_images_per_prompt=2, generator=seeded(3)).images
    torch.testing.assert_close(torch.cat(one_by_one), at_once, atol=tolerance, rtol=0)


@pytest.mark.numeric
def test_a_seed_is_the_same_image_in_float64() -> None:
    """Noise is generated in float32 for every precision, and nothing on the way goes back to float32."""
    images = {dtype: draw(make_pipeline().to(dtype)).images for dtype in ROUNDING}
    assert images[torch.float64].dtype == torch.float64
    torch.testing.assert_close(images[torch.float32].double(), images[torch.float64], atol=ROUNDING[torch.float32], rtol=0)


def test_global_random_state_is_untouched(shared_pipe) -> None:
    before = torch.get_rng_state()
    draw(shared_pipe, generator=None)
    assert torch.equal(before, torch.get_rng_state())


def test_base_steps_leave_the_upscalers_noise_alone(shared_pipe) -> None:
    seen = []

    def watch(pipe, step, timestep, tensors):
        seen.append(tensors["low_res"])

    noises = []
    for steps in (2, 5):
        seen.clear()
        watched = {"callback_on_step_end": watch, "callback_on_step_end_tensor_inputs": ["latents", "low_res"]}
        out = draw(shared_pipe, num_inference_steps=[steps, 2], noise_level=[0, 900], stop_at=2, **watched)
        base = out.stage_images[0] * 2 - 1
        noises.append(seen[-1] - resize(base, (32, 32)) * 0.1548)  # alpha of the cosine curve at level 900
    torch.testing.assert_close(noises[0], noises[1], atol=2e-3, rtol=0)


def test_guidance_is_equation_2(shared_pipe) -> None:
    stage = shared_pipe.stages([1], 1, 4.0)[0]
    unguided, guided = (draw(shared_pipe, stop_at=1, num_inference_steps=1, guidance_scale=w).images for w in (1.0, 4.0))
    assert not torch.allclose(unguided, guided)
    embeds, null, mask, null_mask = shared_pipe.encode_prompt(PROMPT)
    assert not null.any()
    z = next(iter(_first_noise(shared_pipe)))
    with torch.no_grad():
        said = [stage.network.module(z, 999.0, e, m).sample for e, m in ((embeds, mask), (null, null_mask))]
    x0 = said[1] + 4.0 * (said[0] - said[1])
    expected = ImagenDDPMScheduler()._threshold_sample(x0) / 2 + 0.5
    torch.testing.assert_close(guided, expected.clamp(0, 1), atol=1e-5, rtol=1e-5)


def test_guidance_outside_its_interval_is_not_computed(shared_pipe) -> None:
    stage = shared_pipe.stages([1])[0]
    rows, module = [], stage.network.module
    hook = module.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    plain = {"stop_at": 1, "num_inference_steps": 4, "guidance_scale": 3.0}
    middle = draw(shared_pipe, **plain, guidance_interval=(0.25, 0.75)).images
    hook.remove()
    assert rows == [1, 2, 2, 1]
    never = draw(shared_pipe, **plain, guidance_interval=[(0, 0)]).images
    assert torch.equal(never, draw(shared_pipe, **{**plain, "guidance_scale": 1.0}).images)
    assert torch.equal(draw(shared_pipe, **plain, guidance_interval=(0.0, 1.0)).images, draw(shared_pipe, **plain).images)
    assert not torch.allclose(middle, never)


def test_guidance_without_its_parallel_part() -> None:
    """Sadat et al. 2024: what guidance adds to each image is then at a right angle to what the text says."""
    with_text, without = (torch.randn(2, 3, 8, 8, generator=seeded(n)) for n in (1, 2))
    torch.testing.assert_close(guide(with_text, without, 3.0), without + 3.0 * (with_text - without))
    torch.testing.assert_close(guide(with_text, without, 3.0, parallel=1.0 - 1e-9), guide(with_text, without, 3.0))
    added = guide(with_text, without, 3.0, parallel=0.0) - with_text
    assert ((added * with_text).sum((1, 2, 3)).abs() < 1e-3 * added.norm() * with_text.norm()).all()
    halves = (guide(with_text, without, 3.0, parallel=p) for p in (0.0, 1.0))
    torch.testing.assert_close(sum(halves) / 2, guide(with_text, without, 3.0, parallel=0.5))


def _first_noise(pipe):
    from imagen_diffusers.sampling.seeds import stage_generators

    yield torch.randn(1, 3, 16, 16, generator=stage_generators(seeded(0), 1, 3)[0][0])


ONE_LEVEL = {"block_out_channels": (16,), "layers_per_block": (1,)}


def make_shallow(**changes) -> ImagenCascadePipeline:
    """Of one level a network, since compiling takes long."""
    unets = {"unet": make_base(**ONE_LEVEL, attention_levels=(True,)), "unet_2": make_sr(**ONE_LEVEL)}
    return make_pipeline(**{**unets, "unet_3": make_sr(**TINY_SR_2 | ONE_LEVEL), **changes})


def make_two_stages() -> ImagenCascadePipeline:
    """The first of them guided."""
    last = make_sr(**TINY_SR_2 | ONE_LEVEL | {"sample_size": 32})
    return make_shallow(unet_2=last, unet_3=None, scheduler_3=None, guidance_scale=(3.0, 1.0))


@pytest.mark.thorough
def test_compiled_networks_draw_the_same_and_are_compiled_once_for_all_prompts() -> None:
    torch.compiler.reset()  # counts how often a function was compiled, over all tests
    pipe, graphs = make_two_stages(), []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    prompts = (PROMPT, "a sphere", "a blue cube")
    expected = [draw(pipe, prompt).images for prompt in prompts]
    pipe.compile(backend=keep)
    for prompt, image in zip(prompts, expected, strict=True):
        # Attention sums over the masked padding, too: zeros, in another order.
        torch.testing.assert_close(draw(pipe, prompt).images, image, atol=1e-5, rtol=0)
    assert len(graphs) == len(pipe.stage_numbers)
    draw(pipe, guidance_scale=1.0)
    assert len(graphs) == len(pipe.stage_numbers) + 1  # half the rows, in the stage that was guided


@pytest.mark.thorough
@torch._dynamo.config.patch(recompile_limit=1)
def test_each_stage_has_graphs_of_its_own_for_any_number_of_images() -> None:
    """All stages run the same code, of which torch keeps so many graphs and no more; here they would be through with the first stage."""
    torch.compiler.reset()
    pipe, graphs = make_two_stages(), []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    pipe.compile(backend=keep)
    for count in (1, 2):
        draw(pipe, num_images_per_prompt=count, guidance_scale=1.0)
    assert len(graphs) == 2 * len(pipe.stage_numbers)
    full = " ".join(["a", *["red"] * 10])  # 11 words and the end of text: nothing is padded
    draw(pipe, full, guidance_scale=1.0)
    assert len(graphs) == 2 * len(pipe.stage_numbers)


def test_a_shape_too_many_for_the_graphs_runs_uncompiled(caplog) -> None:
    torch.compiler.reset()
    pipe, calls = make_shallow(unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None), []
    counts = {n: {"num_images_per_prompt": n, "guidance_scale": 1.0} for n in (1, 2, 3)}
    expected = {n: draw(pipe, **given).images for n, given in counts.items()}

    def keep(graph, _):
        return lambda *given: calls.append(graph) or graph.forward(*given)

    pipe.compile(backend=keep, recompile_limit=1)
    for n in (1, 2, 3, 1):
        calls.clear()
        torch.testing.assert_close(draw(pipe, **counts[n]).images, expected[n], atol=1e-5, rtol=0)
        assert bool(calls) == (n == 1)  # which keeps its graphs
    said = [record.getMessage() for record in caplog.records if "as many compiled graphs as it may" in record.getMessage()]
    assert len(said) == 1 and "2x3x16x16, and what else comes in new shapes" in said[0]
    pipe.compile(backend=keep, recompile_limit=2)  # as the warning advises
    calls.clear()
    torch.testing.assert_close(draw(pipe, **counts[2]).images, expected[2], atol=1e-5, rtol=0)
    assert calls


def test_a_pipeline_that_is_deleted_after_a_call_takes_its_networks_with_it() -> None:
    pipe = make_pipeline()
    draw(pipe, stop_at=1)
    networks = [weakref.ref(pipe.unet), weakref.ref(pipe.unet_2), weakref.ref(pipe.text_encoder)]
    gc.collect()
    gc.disable()  # as memory is freed at once, and not when the collector comes
    try:
        del pipe
        assert [network() for network in networks] == [None] * 3
    finally:
        gc.enable()


def test_attention_that_diffusers_keeps_over_steps_is_not_kept_for_the_next_call(pipe) -> None:
    plain = draw(pipe, stop_at=1).images
    every_second = {"spatial_attention_block_skip_range": 2, "spatial_attention_timestep_skip_range": (-1, 1000)}
    kept = PyramidAttentionBroadcastConfig(**every_second, current_timestep_callback=lambda: 500)
    apply_pyramid_attention_broadcast(pipe.unet, kept)
    first, second = (draw(pipe, stop_at=1).images for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, plain)


def test_a_network_compiled_by_hand_is_a_stage(tmp_path) -> None:
    torch.compiler.reset()
    pipe = make_shallow()
    expected = draw(pipe).images
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    pipe.unet_2.compile(backend="eager")
    torch.testing.assert_close(draw(pipe).images, expected, atol=1e-5, rtol=0)
    pipe.save_pretrained(tmp_path)
    loaded = ImagenCascadePipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(draw(loaded).images, expected)


def test_numbers_of_numpy_and_generators_in_a_tuple_are_taken(shared_pipe) -> None:
    plain = {"num_inference_steps": 2, "guidance_scale": 2.0, "num_images_per_prompt": 2, "noise_level": 100.0}
    expected = draw(shared_pipe, **plain, generator=[seeded(1), seeded(2)]).images
    numbers = {"num_inference_steps": np.int64(2), "guidance_scale": np.float32(2.0), "num_images_per_prompt": np.int32(2)}
    numbers |= {"noise_level": torch.tensor(100.0), "guidance_interval": [np.array([0.0, 1.0])] * 3}
    assert torch.equal(draw(shared_pipe, **numbers, generator=(seeded(1), seeded(2))).images, expected)


def test_negative_prompt_and_null_text(shared_pipe) -> None:
    plain = draw(shared_pipe).images
    assert not torch.equal(plain, draw(shared_pipe, negative_prompt="blue").images)
    assert not torch.equal(plain, draw(make_pipeline(null_text="empty")).images)


@pytest.mark.parametrize("null_text", NULL_TEXTS)
@pytest.mark.parametrize("negative_prompt", [None, "blue"])
def test_embeddings_in_equal_prompts(null_text, negative_prompt) -> None:
    pipe = make_pipeline(null_text=null_text)
    prompts = {"prompt": [PROMPT, "a cube"], "negative_prompt": negative_prompt, "num_images_per_prompt": 2}
    embeds, null, mask, null_mask = pipe.encode_prompt(**prompts)
    assert embeds.shape[0] == null.shape[0] == 4
    given = {
        "prompt_embeds": embeds,
        "negative_prompt_embeds": null,
        "prompt_attention_mask": mask,
        "negative_prompt_attention_mask": null_mask,
    }
    out = draw(pipe, None, **given).images
    assert torch.equal(out, draw(pipe, **prompts).images)


def test_rows_without_a_token_stand_for_no_text_where_that_was_learned() -> None:
    nothing = torch.zeros(1, 2, TEXT_DIM), torch.zeros(1, 2)
    negative = {"negative_prompt_embeds": nothing[0], "negative_prompt_attention_mask": nothing[1]}
    assert torch.equal(draw(make_pipeline(null_text="learned"), **negative).images, draw(make_pipeline(null_text="learned")).images)
    for null_text in ("zeros", "empty"):
        with pytest.raises(ValueError, match="with a token in every row"):
            draw(make_pipeline(null_text=null_text), **negative)
    with pytest.raises(ValueError, match="the mask of prompt_embeds is .* with a token in every row"):
        draw(make_pipeline(null_text="learned"), None, prompt_embeds=nothing[0], prompt_attention_mask=nothing[1])


def test_what_stands_for_no_text_is_encoded_where_guidance_reads_it() -> None:
    whole = make_pipeline(null_text="empty")
    embeds, null, mask, _ = whole.encode_prompt(PROMPT)
    assert whole.encode_prompt(PROMPT, do_classifier_free_guidance=False)[1] is None
    pipe = make_pipeline(null_text="empty", text_encoder=None, tokenizer=None)
    given = {"prompt_embeds": embeds, "prompt_attention_mask": mask}
    assert torch.equal(draw(pipe, None, **given, guidance_scale=1.0).images, draw(whole, guidance_scale=1.0).images)
    with pytest.raises(ValueError, match="no text encoder, and guidance starts from the encoding of no words; give negative_prompt_embeds"):
        draw(pipe, None, **given, guidance_scale=[1.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="no text encoder; give embeddings"):
        draw(pipe)
    given |= {"guidance_scale": 1.0}
    watched = draw(pipe, None, **given, callback_on_step_end=lambda *_: None).images
    assert torch.equal(watched, draw(whole, guidance_scale=1.0).images)

    def begin(pipe, step, timestep, tensors) -> None:
        pipe._guidance_scale = 2.0

    with pytest.raises(
        ValueError, match="unet begins to be guided, and no text to steer away from was encoded: give negative_prompt_embeds"
    ):
        draw(pipe, None, **given, callback_on_step_end=begin)


def test_non_square_sizes(shared_pipe) -> None:
    out = draw(shared_pipe, height=64, width=96)
    assert [tuple(s.shape[-2:]) for s in out.stage_images] == [(16, 24), (32, 48), (64, 96)]


def test_a_base_far_from_its_size_is_said(shared_pipe, caplog) -> None:
    draw(shared_pipe, height=32, width=128)
    assert "the base works at" not in caplog.text  # as many pixels as it was trained at
    draw(shared_pipe, height=32, width=32)
    assert "the base works at 8x8, and was trained at 16x16" in caplog.text and "for 32x32 say stop_at=2 (--stop-at 2)" in caplog.text
    caplog.clear()
    draw(shared_pipe, height=32, width=48, stop_at=1)
    assert "the base works at 48x32" in caplog.text and "ask for about 16x16" in caplog.text


def test_a_later_stage_enlarges_a_given_image(shared_pipe) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8))
    out = draw(shared_pipe, image=image)
    assert [tuple(s.shape[-2:]) for s in out.stage_images] == [(32, 48), (64, 96)]
    only_last = draw(shared_pipe, image=torch.rand(1, 3, 32, 32, generator=seeded()))
    assert [tuple(s.shape[-2:]) for s in only_last.stage_images] == [(64, 64)]


@pytest.mark.parametrize(
    "form",
    [
        lambda x: Image.fromarray(x),
        lambda x: [Image.fromarray(x)],
        lambda x: Image.fromarray(x).convert("RGBA"),
        lambda x: x,
        lambda x: x[None],
        lambda x: x.astype(np.float32) / 255,
        lambda x: torch.from_numpy(x).permute(2, 0, 1),
        lambda x: torch.from_numpy(x).permute(2, 0, 1)[None] / 255,
        lambda x: torch.from_numpy(x).permute(2, 0, 1)[None] / 127.5 - 1,
    ],
    ids=["pil", "list", "rgba", "array", "batch", "floats", "tensor", "float tensor", "signed"],
)
def test_an_image_is_the_same_in_every_form(form) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    expected = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(images_to_tensor("image", form(pixels)), expected, atol=1e-6, rtol=0)


def test_gray_wide_and_transparent_images_keep_their_brightness() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    expected = (torch.from_numpy(gray) / 255).expand(1, 3, 16, 16)
    wide = Image.fromarray(gray.astype(np.uint16) * 257)
    assert wide.mode == "I;16"
    for form in (gray, gray[..., None], Image.fromarray(gray), wide, torch.from_numpy(gray)[None]):
        torch.testing.assert_close(images_to_tensor("image", form), expected, atol=1e-6, rtol=0)
    clear = images_to_tensor("image", Image.new("RGBA", (4, 4), (255, 0, 0, 0)))
    half = images_to_tensor("image", Image.new("RGBA", (4, 4), (0, 0, 0, 128)))
    assert torch.equal(clear, torch.ones(1, 3, 4, 4))
    torch.testing.assert_close(half, torch.full((1, 3, 4, 4), 127 / 255), atol=1 / 255, rtol=0)


def test_images_of_one_call_are_of_one_range() -> None:
    """Whether floats begin at -1 or at 0 is decided once, by all of them, as by diffusers' own image processor."""
    dark, light = torch.full((3, 4, 4), -0.5), torch.full((3, 4, 4), 0.5)
    eight = np.full((4, 4, 3), 51, dtype=np.uint8)
    given = [dark, light, light.permute(1, 2, 0).numpy(), eight, Image.fromarray(eight), Image.fromarray(np.full((4, 4), 13107, np.uint16))]
    seen = images_to_tensor("image", given)
    expected = VaeImageProcessor(vae_scale_factor=1).preprocess(torch.stack([dark, light])) / 2 + 0.5
    torch.testing.assert_close(seen[:2], expected)
    assert [one.unique().tolist() for one in seen] == [pytest.approx([level]) for level in (0.25, 0.75, 0.75, 0.2, 0.2, 0.2)]
    assert images_to_tensor("image", [light, eight])[0].unique().tolist() == [0.5]


def test_a_gray_cascade_enlarges_gray_images() -> None:
    one = {"in_channels": 1, "out_channels": 1}
    pipe = make_pipeline(unet=make_base(**one), unet_2=make_sr(**one, low_res_channels=1), unet_3=None, scheduler_3=None)
    assert draw(pipe).images.shape == (1, 1, 32, 32)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    expected = draw(pipe, image=torch.from_numpy(pixels)[None, None] / 255).images
    for form in (Image.fromarray(pixels), Image.fromarray(pixels).convert("RGB"), pixels):
        assert torch.equal(draw(pipe, image=form).images, expected)
    with pytest.raises(ValueError, match="image has 3 channels; give 1"):
        draw(pipe, image=torch.zeros(1, 3, 16, 16))
    mixed = make_pipeline(unet_2=make_sr(low_res_channels=1))
    with pytest.raises(ValueError, match=r"different channels \(stage 2 takes 1, stage 3 takes 3\); choose the stage .* start_at"):
        draw(mixed, image=torch.zeros(1, 1, 16, 16))
    assert draw(mixed, image=torch.zeros(1, 1, 16, 16), start_at=2, stop_at=2).images.shape == (1, 3, 32, 32)


def test_one_image_a_prompt_is_enlarged_for_each_of_its_images(shared_pipe) -> None:
    images = torch.rand(2, 3, 32, 32, generator=seeded())
    out = draw(shared_pipe, [PROMPT, "a sphere"], image=images, num_images_per_prompt=2, noise_level=0.0).images
    alone = [draw(shared_pipe, p, image=i[None], noise_level=0.0, seed=9).images for p, i in zip((PROMPT, "a sphere"), images, strict=True)]
    near = [[(o - a).abs().mean().item() for a in alone] for o in out]
    assert [row.index(min(row)) for row in near] == [0, 0, 1, 1]


def test_settings_for_fewer_stages_than_there_are_are_said() -> None:
    pipe = make_pipeline(guidance_scale=(3.0, 2.0))
    with pytest.raises(ValueError, match="config has 2 values of guidance_scale and holds stage 3; give guidance_scale"):
        draw(pipe)
    assert draw(pipe, guidance_scale=1.0).images.shape == (1, 3, 64, 64)
    assert draw(pipe, stop_at=2).images.shape == (1, 3, 32, 32)


def test_a_missing_stage_is_not_jumped_over() -> None:
    pipe = make_pipeline(unet_2=None, scheduler_2=None)
    with pytest.raises(ValueError, match="stage 2 is missing .* load stage 2, or end before it with stop_at=1"):
        draw(pipe)
    assert draw(pipe, stop_at=1).images.shape == (1, 3, 16, 16)
    alone = draw(pipe, image=torch.rand(1, 3, 16, 16, generator=seeded()))
    assert alone.images.shape == (1, 3, 64, 64)  # four times, as the paper's


def test_an_image_of_odd_sides_is_enlarged_to_the_nearest_that_stages_can_have(pipe) -> None:
    upscaler, image = ImagenCascadeUpscalePipeline.from_pipe(pipe), torch.rand(1, 3, 15, 21, generator=seeded())
    enlarged = draw(upscaler, image=image).images
    assert enlarged.shape[-2:] == (64, 80)
    assert torch.equal(enlarged, draw(upscaler, image=image, scale=4).images)


def test_callback_sees_every_step_and_may_change_latents(shared_pipe) -> None:
    steps = []

    def blank(pipe, step, timestep, tensors):
        steps.append((step, float(timestep)))
        if step == pipe.num_timesteps - 1:
            return {"latents": torch.zeros_like(tensors["latents"])}

    out = draw(shared_pipe, callback_on_step_end=blank)
    assert [s for s, _ in steps] == list(range(7))
    assert torch.equal(out.images, torch.full_like(out.images, 0.5))


BAD_LATENTS = [
    (torch.zeros(1, 3, 8, 8), "(1, 3, 8, 8) of torch.float32"),
    (torch.zeros(1, 3, 16, 16, dtype=torch.int64), "(1, 3, 16, 16) of torch.int64"),
    (None, "NoneType"),
]


@pytest.mark.parametrize(("latents", "told"), BAD_LATENTS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_callback_that_returns_no_latents_of_the_image_is_told_so(shared_pipe, latents, told) -> None:
    with pytest.raises(ValueError, match=re.escape(f"returned latents {told}; return a tensor (1, 3, 16, 16) of torch.float32, as it")):
        draw(shared_pipe, callback_on_step_end=lambda *_: {"latents": latents})


def test_diffusers_own_callback_ends_guidance_for_the_running_stage(shared_pipe) -> None:
    """Eight steps in all; after the third of them, the last but one of the base, nothing is guided until the next stage."""
    rows = []
    hooks = [
        unet.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0]))) for unet in (shared_pipe.unet, shared_pipe.unet_2)
    ]
    guided = []

    class Watch(PipelineCallback):
        tensor_inputs = ["prompt_embeds"]

        def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
            guided.append(pipeline.do_classifier_free_guidance)
            return callback_kwargs

    watch = Watch()
    callback = MultiPipelineCallbacks([watch, SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=2), watch])
    draw(shared_pipe, stop_at=2, num_inference_steps=4, guidance_scale=3.0, callback_on_step_end=callback)
    for hook in hooks:
        hook.remove()
    assert rows == [2, 2, 2, 1] + [2] * 4
    assert guided == [True] * 5 + [False] * 3 + [True] * 8


@pytest.mark.parametrize(("scale", "guided"), [(3.0, True), (1.0, False), (0.5, True)])
def test_a_callback_is_told_whether_its_stage_is_guided(shared_pipe, scale, guided) -> None:
    rows, told = [], []
    hook = shared_pipe.unet.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))

    def watch(pipe, step, timestep, tensors):
        told.append(pipe.do_classifier_free_guidance)

    draw(shared_pipe, stop_at=1, num_inference_steps=2, guidance_scale=scale, callback_on_step_end=watch)
    hook.remove()
    assert told == [guided] * 2
    assert rows == [1 + guided] * 2


def test_a_callback_that_fails_leaves_no_call_running(shared_pipe) -> None:
    def fail(pipe, step, timestep, tensors):
        raise RuntimeError("by the caller")

    with pytest.raises(RuntimeError, match="by the caller"):
        draw(shared_pipe, callback_on_step_end=fail)
    assert shared_pipe.current_timestep is None


def test_a_callback_reads_the_call_and_steers_guidance(shared_pipe) -> None:
    seen = []

    def watch(pipe, step, timestep, tensors):
        seen.append((pipe.do_classifier_free_guidance, float(pipe.current_timestep) == float(timestep), set(tensors)))
        assert inside.pop() == (timestep, timestep)  # as diffusers' caches read it
        if step == 0:
            pipe._guidance_scale = 5.0

    inside = []
    hook = shared_pipe.unet.register_forward_pre_hook(lambda unet, given: inside.append((given[1], shared_pipe.current_timestep)))
    asked = ["latents", "prompt_embeds", "negative_prompt_embeds"]
    given = {"stop_at": 1, "num_inference_steps": 3, "guidance_scale": 2.0}
    steered = draw(shared_pipe, **given, callback_on_step_end=watch, callback_on_step_end_tensor_inputs=asked).images
    hook.remove()
    assert seen == [(True, True, set(asked))] * 3
    assert shared_pipe.current_timestep is None
    assert not torch.allclose(steered, draw(shared_pipe, **given).images, atol=1e-4)


def test_noise_may_be_given_for_each_stage(shared_pipe) -> None:
    noise = next(iter(_first_noise(shared_pipe)))
    expected = draw(shared_pipe, stop_at=1).images
    assert torch.equal(draw(shared_pipe, stop_at=1, latents=noise).images, expected)
    assert torch.equal(draw(shared_pipe, stop_at=2, latents=[noise, None]).images, draw(shared_pipe, stop_at=2).images)
    other = torch.randn(1, 3, 32, 32, generator=seeded(8))
    out = draw(shared_pipe, stop_at=2, latents=[None, other])
    assert torch.equal(out.stage_images[0], expected)
    assert not torch.equal(out.images, draw(shared_pipe, stop_at=2).images)


def test_times_may_be_given_for_each_stage(shared_pipe) -> None:
    seen = []
    given = {"stop_at": 2, "callback_on_step_end": lambda pipe, step, t, tensors: seen.append(float(t))}
    draw(shared_pipe, **given, timesteps=[[900.0, 500.5, 20.0], None], num_inference_steps=[9, 2])
    assert seen[:3] == [900.0, 500.5, 20.0] and len(seen) == 5
    seen.clear()
    draw(shared_pipe, **given, timesteps=((t for t in (900.0, 20.0)), iter([700.0])))
    assert seen == [900.0, 20.0, 700.0]
    seen.clear()
    draw(shared_pipe, **{**given, "stop_at": 1}, timesteps=(t for t in (900.0, 20.0)))
    assert seen == [900.0, 20.0]
    pipe = make_pipeline(scheduler=diffusers.EulerDiscreteScheduler.from_config(shared_pipe.scheduler.config))
    seen.clear()
    draw(pipe, **{**given, "stop_at": 1}, sigmas=[9.0, 3.0, 1.0, 0.0])
    assert len(seen) == 3


def test_times_that_make_no_way_to_an_image_are_refused(shared_pipe, monkeypatch) -> None:
    """Solvers take them in silence, and their images are of nothing."""
    pipe = type(shared_pipe).from_pipe(shared_pipe)
    for kind, cases in (
        (
            ImagenDPMSolverMultistepScheduler,
            [
                ({"timesteps": [10, 500, 900]}, r"timesteps of a stage is \[10, 500, 900\]; give finite numbers .* each smaller than"),
                ({"timesteps": [500, 500]}, "each smaller than the one before"),
                ({"timesteps": [900, 5j]}, "give finite numbers"),
                ({"timesteps": [float("nan")]}, "give finite numbers"),
                ({"timesteps": [1000, 0]}, r"timesteps of unet are \[1000, 0\]; ImagenDPM.* has times from 999 to 0"),
                ({"timesteps": [5, -9]}, "has times from 999 to 0"),
                ({"timesteps": [900.7, 500.2]}, "has whole ones alone; give these, or use ImagenDDPMScheduler"),
            ],
        ),
        (
            diffusers.EulerDiscreteScheduler,
            [
                ({"sigmas": [1.0, 5.0]}, "sigmas of a stage is"),
                *(({"sigmas": given}, "sigmas of unet are .*and after them 0") for given in ([1.0, -1.0], [9.0, 1.0], [9.0], [0.0])),
            ],
        ),
    ):
        pipe.scheduler = kind.from_config(shared_pipe.scheduler.config)
        forbid_networks(monkeypatch, pipe)
        for given, said in cases:
            with pytest.raises(ValueError, match=said):
                draw(pipe, stop_at=1, **given)


def test_a_callback_may_interrupt(pipe) -> None:
    def stop(pipe, step, timestep, tensors):
        pipe.interrupt = step == 1

    assert len(draw(pipe, callback_on_step_end=stop).stage_images) == 1


def test_a_call_may_be_interrupted_while_its_text_is_read(pipe) -> None:
    steps = []
    pipe.text_encoder.register_forward_hook(lambda *_: setattr(pipe, "interrupt", True))
    assert len(draw(pipe, callback_on_step_end=lambda *given: steps.append(given[1])).stage_images) == 1
    assert steps == [0]


def test_pipelines_of_the_same_networks_run_in_threads_of_their_own(shared_pipe) -> None:
    scales = (5.0, 1.0)
    calls = [{"guidance_scale": scale, "num_inference_steps": 4, "callback_on_step_end": lambda *_: None} for scale in scales]
    alone = [draw(shared_pipe, **call).images for call in calls]
    with ThreadPoolExecutor() as threads:
        together = list(threads.map(lambda call: draw(type(shared_pipe).from_pipe(shared_pipe), **call).images, calls))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True)) and not torch.equal(*alone)


def test_stages_are_told_as_they_end(shared_pipe) -> None:
    told = []
    given = {"callback_on_step_end": lambda *_: told.append("step"), "callback_on_stage_end": lambda *given: told.append(given)}
    out = draw(shared_pipe, **given, num_inference_steps=[3, 2, 1])
    assert [one if one == "step" else one[1] for one in told] == ["step"] * 3 + [1] + ["step"] * 2 + [2, "step", 3]
    ended = [one for one in told if one != "step"]
    assert all(pipe is shared_pipe for pipe, _, _ in ended)
    assert all(torch.equal(images, handed) for (_, _, images), handed in zip(ended, out.stage_images, strict=True))


def test_a_stage_callback_may_interrupt_and_is_told_of_whole_stages_only(shared_pipe) -> None:
    told = []

    def stop(pipe, number, images):
        told.append(number)
        pipe.interrupt = number == 2

    assert len(draw(shared_pipe, callback_on_stage_end=stop).stage_images) == 2
    assert told == [1, 2]
    draw(shared_pipe, callback_on_stage_end=stop, callback_on_step_end=lambda pipe, *_: setattr(pipe, "interrupt", True))
    assert told == [1, 2]


def test_output_types(shared_pipe) -> None:
    pt = draw(shared_pipe).images
    array = draw(shared_pipe, output_type="np").images
    torch.testing.assert_close(torch.from_numpy(array).permute(0, 3, 1, 2), pt)
    pil = draw(shared_pipe, output_type="pil").images[0]
    assert np.abs(np.asarray(pil) / 255 - array[0]).max() <= 0.5 / 255 + 1e-6
    images, stages = draw(shared_pipe, return_dict=False)
    assert torch.equal(images, stages[-1])


def test_unconditional_cascade() -> None:
    pipe = ImagenCascadePipeline(unet=make_base(encoder_hid_dim=None), scheduler=ImagenDDPMScheduler(), num_inference_steps=(2, 2, 2))
    assert pipe(num_images_per_prompt=2, output_type="pt", generator=seeded()).images.shape == (2, 3, 16, 16)


def test_networks_without_text_take_none() -> None:
    textless = {"encoder_hid_dim": None, "attention_kind": "self"}
    alone = make_pipeline(unet=make_base(encoder_hid_dim=None), unet_2=make_sr(**textless), unet_3=None, scheduler_3=None)
    embeds = torch.zeros(1, 2, TEXT_DIM)
    for given, name in (
        ({"prompt": "a cube"}, "prompt"),
        ({"negative_prompt": "a"}, "negative_prompt"),
        ({"prompt_embeds": embeds}, "prompt_e"),
    ):
        with pytest.raises(ValueError, match=f"networks of this pipeline take no text; leave out {name}"):
            alone(**given)
    last = make_pipeline(unet_3=make_sr(**TINY_SR_2 | textless))
    images = torch.rand(1, 3, 32, 32, generator=seeded())
    assert draw(last, ["a cube", "a sphere"], image=images).images.shape[0] == 2
    assert draw(last, None, image=images).images.shape[0] == 1


def test_where_no_stage_that_runs_takes_text_a_prompt_only_counts() -> None:
    sr = make_sr(encoder_hid_dim=None, attention_kind="self")
    pipe = make_pipeline(unet_2=sr, unet_3=None, scheduler_3=None, tokenizer=None, text_encoder=None)
    image = torch.rand(1, 3, 16, 16, generator=seeded())
    plain = draw(pipe, None, image=image).images
    assert torch.equal(draw(pipe, "a red cube", image=image).images, plain)
    assert torch.equal(draw(pipe, "a red cube", negative_prompt="blue", image=image).images, plain)
    assert draw(pipe, ["a cube", "a sphere"], image=image).images.shape[0] == 2
    assert draw(pipe, None, prompt_embeds=torch.zeros(3, 2, TEXT_DIM), image=image).images.shape[0] == 3
    for given, message in (
        ({"prompt": ["a"], "prompt_embeds": torch.zeros(1, 2, TEXT_DIM)}, "exactly one of prompt"),
        ({"prompt": "a", "negative_prompt": ["b", "c"]}, "2 negative prompts for 1"),
        ({"prompt": 5}, "a prompt is a int"),
    ):
        with pytest.raises(ValueError, match=message):
            draw(pipe, **given, image=image)
    with pytest.raises(ValueError, match="no text encoder"):
        draw(pipe, "a red cube")


def test_any_component_may_be_none() -> None:
    empty = ImagenCascadePipeline()
    with pytest.raises(ValueError, match="no stage"):
        empty("a cube")
    only_text = make_pipeline(unet=None, scheduler=None, unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None)
    assert only_text.encode_prompt("a cube")[0].shape[-1] == TEXT_DIM
    assert {given.device.type for given in only_text.encode_prompt("a cube", device="meta")} == {"meta"}
    with pytest.raises(ValueError, match="num_images_per_prompt is 0"):
        only_text.encode_prompt("a cube", num_images_per_prompt=0)


def test_offload_keeps_one_network_on_the_device(residents) -> None:
    pipe = make_pipeline()
    plain = draw(pipe).images
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(draw(pipe).images, plain)
    assert residents.history == [{T5EncoderModel}, {type(pipe.unet)}, {type(pipe.unet_2)}, {type(pipe.unet_3)}]
    assert not residents.now
    with pytest.raises(ValueError, match="returned a str"):
        draw(pipe, callback_on_step_end=lambda *_: "not a dict")
    assert not residents.now  # whatever ended the call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 50}, "multiples of 8"),
        ({"num_inference_steps": [1, 2]}, "2 values for 3 stages"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"guidance_scale": -1.0}, "at least 0"),
        ({"noise_level": 1000}, "less than 1000"),
        ({"prompt_embeds": torch.zeros(1, 2, TEXT_DIM)}, "exactly one"),
        ({"prompt": None}, "exactly one"),
        ({"generator": [seeded()] * 2}, "2 generators for 1"),
        ({"negative_prompt": ["a", "a"]}, "2 negative prompts for 1"),
        ({"stop_at": 4}, r"stages \[1, 2, 3\]"),
        ({"start_at": 2}, "needs image"),
        ({"image": torch.zeros(1, 3, 16, 16), "start_at": 1}, "takes no image"),
        ({"image": torch.zeros(1, 3, 64, 64)}, "no stage enlarges"),
        ({"image": torch.full((1, 3, 16, 16), torch.nan)}, "NaN"),
        ({"image": torch.zeros(3, 3, 16, 16)}, "image holds 3 images for 1 prompts"),
        ({"image": torch.zeros(2, 3, 16, 16), "prompt": ["a"] * 4}, "image holds 2 images for 4 prompts"),
        ({"image": []}, "image is an empty list"),
        ({"image": "cube.png"}, "image is a str; give PIL images, arrays"),
        ({"image": torch.zeros(16, 16)}, r"tensor of shape \(16, 16\)"),
        ({"image": torch.full((1, 3, 16, 16), 255.0)}, r"floats from 255 to 255; give them in \[0, 1\]"),
        ({"image": torch.zeros(1, 3, 16, 16, dtype=torch.int64)}, "torch.int64; give uint8"),
        ({"image": torch.zeros(1, 4, 16, 16)}, "image has 4 channels; give 3, or one for gray"),
        ({"image": [torch.zeros(3, 16, 16), torch.zeros(3, 8, 8)], "prompt": ["a", "a"]}, "images of 8x8, 16x16"),
        ({"image": Image.new("F", (16, 16))}, 'mode "F", whose range is not known'),
        ({"num_inference_steps": 2.9}, "num_inference_steps is 2.9; it must be a whole number"),
        ({"num_inference_steps": "many"}, "num_inference_steps is 'many'; it must be a number"),
        ({"guidance_scale": ["a", "b", "c"]}, "guidance_scale is 'a'; it must be a number"),
        ({"prompt": None, "prompt_embeds": np.zeros((1, 2, TEXT_DIM))}, "prompt_embeds is a ndarray; give a tensor"),
        (
            {"prompt": None, "prompt_embeds": torch.zeros(1, 2, TEXT_DIM), "prompt_attention_mask": [[1, 1]]},
            "the mask of prompt_embeds is a list; give a tensor",
        ),
        ({"timesteps": [np.array([9.0, 5.0])] * 2}, "timesteps has 2 lists for 3 stages"),
        ({"height": float("inf")}, "height is inf; it must be at least 1 pixel"),
        ({"width": float("nan")}, "width is nan; it must be at least 1 pixel"),
        ({"callback_on_step_end": lambda *_: True}, "callback_on_step_end returned a bool; return a dict of tensors, or None"),
        (
            {
                "callback_on_step_end": lambda pipe, step, time, told: {"prompt_embeds": torch.zeros_like(told["prompt_embeds"])},
                "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"],
            },
            "callback_on_step_end returned another prompt_embeds, which a running call does not read again",
        ),
        ({"prompt": []}, "the list of prompts, or of negative ones, is empty"),
        ({"prompt": 5}, "a prompt is a int"),
        ({"prompt": ["a", 5]}, "a prompt is a int"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"num_images_per_prompt": 1.5}, "num_images_per_prompt is 1.5"),
        ({"timesteps": [5.0], "sigmas": [1.0]}, "timesteps or sigmas, not both"),
        ({"timesteps": []}, "timesteps has 1 lists for 3 stages"),
        ({"timesteps": [], "stop_at": 1}, r"timesteps of a stage is \[\]; give a list of at least one time, or None"),
        ({"timesteps": [None, [], None]}, r"timesteps of a stage is \[\]; give a list of at least one time"),
        ({"timesteps": [None, 5.0, None]}, "timesteps of a stage is 5.0; give a list of at least one time"),
        ({"timesteps": 5}, "timesteps is 5; give a list of times, or one list, or None, for each stage"),
        ({"sigmas": 5.0, "stop_at": 1}, "sigmas is 5.0; give a list of times"),
        ({"generator": 5}, "generator is 5; give a torch.Generator, one or one per image"),
        ({"generator": (seeded(), 5), "prompt": ["a", "a"]}, "generator is 5; give a torch.Generator"),
        ({"guidance_interval": 0.5}, r"guidance_interval is 0.5; give \(start, end\)"),
        ({"guidance_interval": ["a", "b"]}, r"guidance_interval is \('a', 'b'\); give|guidance_interval has 2 values"),
        ({"guidance_interval": [(0, 1), 0.5, (0, 1)]}, "guidance_interval is 0.5; give"),
        ({"num_inference_steps": np.int64(0)}, "num_inference_steps is 0; it must be a number of at least 1"),
        ({"num_inference_steps": np.float32(1.5)}, "num_inference_steps is 1.5; it must be a whole number"),
        ({"timesteps": [900.0, 10.0]}, "timesteps has 1 lists for 3 stages"),
        ({"sigmas": [[1.0], None, None]}, "ImagenDDPMScheduler of unet takes no sigmas"),
        ({"latents": torch.zeros(1, 3, 8, 8)}, r"latents of unet have the shape \(1, 3, 8, 8\); this call needs \(1, 3, 16, 16\)"),
        ({"latents": [None] * 4}, "latents has 4 tensors for 3 stages"),
        ({"guidance_interval": []}, "guidance_interval has 0 values for 3 stages"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "noise"),
        ({"output_type": "latent"}, "latent"),
        ({"prompt": None, "prompt_embeds": torch.full((1, 2, TEXT_DIM), torch.nan)}, "NaN"),
        ({"prompt": None, "prompt_embeds": torch.zeros(1, 2, 7)}, "7 wide but stage unet takes 32"),
        ({"prompt": None, "prompt_embeds": torch.zeros(2, TEXT_DIM)}, "prompts, tokens, width"),
        ({"negative_prompt": "a", "negative_prompt_embeds": torch.zeros(1, 2, TEXT_DIM)}, "negative_prompt or negative_prompt_embeds, not"),
        ({"prompt_attention_mask": torch.ones(1, 2)}, "is the mask of prompt_embeds, which are not given; leave it out"),
        ({"negative_prompt_attention_mask": torch.ones(1, 2)}, "is the mask of negative_prompt_embeds, which are not given"),
        ({"guidance_interval": (0.5, 0.2)}, r"guidance_interval is \(0.5, 0.2\)"),
        ({"guidance_interval": [(0, 1), (0, 1)]}, "guidance_interval has 2 values for 3 stages"),
        ({"cond_images": torch.zeros(1, 3, 8, 8)}, "unet, unet_2, unet_3 take no cond_images; leave them out"),
        (
            {"prompt": None, "prompt_embeds": torch.zeros(1, 2, TEXT_DIM), "prompt_attention_mask": torch.zeros(1, 2)},
            "a token in every row",
        ),
    ],
)
def test_bad_calls_are_refused_in_words(shared_pipe, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        draw(shared_pipe, **arguments)


def test_a_base_alone_says_that_it_enlarges_nothing() -> None:
    pipe = make_pipeline(unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None)
    with pytest.raises(ValueError, match=r"holds the stages \[1\], and none that enlarges images"):
        draw(pipe, image=torch.zeros(1, 3, 16, 16))


def test_a_stage_of_another_text_width_is_refused() -> None:
    with pytest.raises(ValueError, match="stage unet_2 takes 16"):
        draw(make_pipeline(unet_2=make_sr(encoder_hid_dim=16)))


def test_a_scheduler_that_cannot_drive_is_refused() -> None:
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler cannot drive"):
        draw(make_pipeline(scheduler_2=diffusers.FlowMatchEulerDiscreteScheduler()))
    with pytest.raises(ValueError, match="PNDMScheduler makes nothing but noise on a curve that ends in pure noise.*use DDPM"):
        draw(make_pipeline(scheduler=diffusers.PNDMScheduler.from_config(ImagenDDPMScheduler().config)))
    linear = diffusers.PNDMScheduler.from_config(ImagenDDPMScheduler(beta_schedule="linear").config)
    few = diffusers.PNDMScheduler.from_config(linear.config, skip_prk_steps=True)
    for scheduler, steps in ((linear, 4), (few, 2)):
        assert torch.isfinite(draw(make_pipeline(scheduler=scheduler), stop_at=1, num_inference_steps=steps).images).all()
    for steps, message in ((3, "is 3, and PNDMScheduler, which begins by Runge-Kutta, needs 4 at least"), (1001, "give at most 1000")):
        with pytest.raises(ValueError, match=message):
            draw(make_pipeline(scheduler=linear), stop_at=1, num_inference_steps=steps)
    with pytest.raises(ValueError, match="unet_2 cannot be driven by an EDM scheduler, as it was trained; its scheduler is EDMEuler"):
        draw(make_pipeline(scheduler_2=diffusers.EDMEulerScheduler()))


def test_a_solver_that_breaks_down_is_said() -> None:
    scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(ImagenDDPMScheduler(prediction_type="sample").config)
    with pytest.raises(ValueError, match="EulerAncestralDiscreteScheduler in 4 steps; take more"):
        draw(make_pipeline(scheduler=scheduler), num_inference_steps=[4, 2, 2])


def test_missing_scheduler_and_missing_encoder_are_said() -> None:
    with pytest.raises(ValueError, match="scheduler_2"):
        draw(make_pipeline(scheduler_2=None))
    with pytest.raises(ValueError, match="no text encoder"):
        draw(make_pipeline(text_encoder=None, tokenizer=None))


@pytest.mark.parametrize("name", STOCK + IMAGEN)
def test_more_steps_than_there_are_times_are_taken_or_refused(name) -> None:
    cls = getattr(imagen_diffusers if name in IMAGEN else diffusers, name)
    own_curve = cls is imagen_diffusers.LucidrainsScheduler
    stage = make_pipeline(scheduler=cls() if own_curve else cls.from_config(ImagenDDPMScheduler().config)).stages([1], 1001)[0]
    if name.removeprefix("Imagen") in ("DDPMScheduler", "LucidrainsScheduler") and name in IMAGEN or name in SIGMAS:
        assert len(stage.prepared_scheduler(torch.device("cpu")).timesteps) >= 1001
        return
    with pytest.raises(ValueError, match=f"num_inference_steps is 1001, and {name} has 1000 times to choose from; give at most 1000"):
        stage.prepared_scheduler(torch.device("cpu"))


@pytest.mark.parametrize("name", STOCK + IMAGEN)
def test_one_step_begins_in_noise_or_is_refused(name) -> None:
    cls = getattr(imagen_diffusers if name in IMAGEN else diffusers, name)
    own_curve, curve = cls is imagen_diffusers.LucidrainsScheduler, ImagenDDPMScheduler(log_snr_shift=-1.0).config
    stage = make_pipeline(scheduler=cls() if own_curve else cls.from_config(curve)).stages([1], 1)[0]
    try:
        scheduler = stage.prepared_scheduler(torch.device("cpu"))
    except ValueError as error:
        assert "the one step of unet would be at time 0 with" in str(error)
        again = cls.from_config(curve, timestep_spacing="trailing")
        scheduler = replace(stage, scheduler=again).prepared_scheduler(torch.device("cpu"))
    assert signal_and_noise(scheduler, scheduler.timesteps[0])[0] < 0.8


def test_networks_in_the_wrong_slots_are_refused() -> None:
    base, middle, last = make_base(), make_sr(), make_sr(**TINY_SR_2)
    for networks, words in (
        ((base, last, middle), "unet_2 makes images of 64px and unet_3 of 32px, but each stage must be larger than the one before"),
        ((middle, base, last), "unet holds a super-resolution network of 32px, which belongs in unet_2 or unet_3"),
        ((base, make_base(sample_size=32), last), "unet_2 holds a base network of 32px, which belongs in unet; put each"),
    ):
        pipe = make_pipeline(**dict(zip(("unet", "unet_2", "unet_3"), networks, strict=True)))
        with pytest.raises(ValueError, match=words):
            draw(pipe)


def test_times_may_be_arrays(shared_pipe) -> None:
    times = [900.0, 500.0, 10.0]
    plain = draw(shared_pipe, stop_at=1, timesteps=times, num_inference_steps=None).images
    for given in ([np.array(times)], [torch.tensor(times)], np.array(times)):
        assert torch.equal(draw(shared_pipe, stop_at=1, timesteps=given, num_inference_steps=None).images, plain)


def test_less_guidance_than_none_is_said(shared_pipe, caplog) -> None:
    draw(shared_pipe, stop_at=1, guidance_scale=1.0, num_inference_steps=1)
    assert "guidance_scale" not in caplog.text
    draw(shared_pipe, stop_at=1, guidance_scale=0, num_inference_steps=1)
    assert "guidance_scale is 0: 1 is no guidance, and below it prompts are followed less, at 0 not at all" in caplog.text


@pytest.mark.parametrize("cls", [diffusers.DDIMScheduler, diffusers.DDPMScheduler, imagen_diffusers.ImagenDDIMScheduler])
def test_trailing_times_are_as_many_as_are_asked_for(cls) -> None:
    pipe = make_pipeline()
    pipe.scheduler = cls.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    for steps in (60, 61, 103, 121):
        (stage,) = pipe.stages([1], num_inference_steps=steps)
        times = stage.prepared_scheduler(torch.device("cpu")).timesteps
        assert len(times) == steps and times.min() >= 0


@pytest.mark.parametrize("variance", ["learned", "learned_range"])
def test_a_variance_that_no_network_makes_is_asked_of_none(variance) -> None:
    pipe = make_pipeline()
    pipe.scheduler = diffusers.DDPMScheduler.from_config(pipe.scheduler.config, variance_type=variance)
    with pytest.raises(ValueError, match=f"the network of unet learns no variance, and its scheduler has variance_type={variance}: take"):
        draw(pipe, stop_at=1, num_inference_steps=2)
    pipe.scheduler = diffusers.DDPMScheduler.from_config(pipe.scheduler.config, variance_type="fixed_small")
    draw(pipe, stop_at=1, num_inference_steps=2)


def test_a_share_is_no_percentile() -> None:
    with pytest.raises(ValueError, match="dynamic_thresholding_ratio is 99.5; it is a share in"):
        ImagenDDPMScheduler(dynamic_thresholding_ratio=99.5)
    pipe = make_pipeline()
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, thresholding=True, dynamic_thresholding_ratio=99.5)
    with pytest.raises(ValueError, match="dynamic_thresholding_ratio is 99.5; it is a share in"):
        draw(pipe, stop_at=1, num_inference_steps=2)
