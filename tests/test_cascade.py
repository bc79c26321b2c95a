"""The pipeline: every scheduler at every stage, randomness, guidance, sizes, callbacks, errors."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils import is_torchsde_available
from PIL import Image
from transformers import T5EncoderModel

import imagen_diffusers
from imagen_diffusers import ImagenCascadePipeline, ImagenDDPMScheduler
from imagen_diffusers.pipelines.guidance import guide
from imagen_diffusers.schedulers.noise import resize

from .conftest import TEXT_DIM, make_base, make_pipeline, make_sr, seeded

PROMPT = "a red cube left of the sphere"
# EDM's is for networks trained under its preconditioning (and is refused below); one needs a package of its own.
LEFT_OUT = {"EDMEulerScheduler"} | (set() if is_torchsde_available() else {"DPMSolverSDEScheduler"})
STOCK = [e.name for e in KarrasDiffusionSchedulers if e.name not in LEFT_OUT]
IMAGEN = [n for n in dir(imagen_diffusers) if n.startswith("Imagen") and n.endswith("Scheduler") and "EDM" not in n]

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


@pytest.mark.parametrize("name", STOCK + IMAGEN)
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_every_scheduler_runs_at_every_stage(name, prediction_type) -> None:
    cls = getattr(imagen_diffusers if name in IMAGEN else diffusers, name)
    own_curve = cls is imagen_diffusers.ImagenPytorchScheduler
    made = (cls if own_curve else ImagenDDPMScheduler)(prediction_type=prediction_type)
    scheduler = cls.from_config(made.config)
    # Stock ancestral solvers subtract nearly equal squares at the cosine curve's first, huge sigma: few steps give NaN.
    steps = (12, 12, 12) if "Ancestral" in name else (4, 4, 4)
    pipe = make_pipeline(scheduler=scheduler, scheduler_2=scheduler, scheduler_3=scheduler, num_inference_steps=steps)
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


@pytest.mark.numeric
@pytest.mark.parametrize(("dtype", "tolerance"), ROUNDING.items())
def test_one_seed_one_picture_in_any_batch(dtype, tolerance) -> None:
    pipe = make_pipeline().to(dtype)
    alone = [draw(pipe, seed=s).images for s in range(8)]
    together = draw(pipe, [PROMPT] * 8, generator=[seeded(s) for s in range(8)]).images
    assert together.dtype == dtype
    torch.testing.assert_close(torch.cat(alone), together, atol=tolerance, rtol=0)


@pytest.mark.numeric
@pytest.mark.parametrize(("dtype", "tolerance"), ROUNDING.items())
def test_one_generator_serves_pictures_in_order(dtype, tolerance) -> None:
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
    """Sadat et al. 2024: what guidance adds to each picture is then at a right angle to what the text says."""
    with_text, without = (torch.randn(2, 3, 8, 8, generator=seeded(n)) for n in (1, 2))
    torch.testing.assert_close(guide(with_text, without, 3.0), without + 3.0 * (with_text - without))
    torch.testing.assert_close(guide(with_text, without, 3.0, parallel=1.0 - 1e-9), guide(with_text, without, 3.0))
    added = guide(with_text, without, 3.0, parallel=0.0) - with_text
    assert ((added * with_text).sum((1, 2, 3)).abs() < 1e-3 * added.norm() * with_text.norm()).all()
    halves = (guide(with_text, without, 3.0, parallel=p) for p in (0.0, 1.0))
    torch.testing.assert_close(sum(halves) / 2, guide(with_text, without, 3.0, parallel=0.5))


def _first_noise(pipe):
    from imagen_diffusers.pipelines.randomness import stage_generators

    yield torch.randn(1, 3, 16, 16, generator=stage_generators(seeded(0), 1, 3)[0][0])


def test_compiled_networks_draw_the_same_and_are_compiled_once_for_all_prompts(pipe) -> None:
    torch.compiler.reset()  # counts how often a function was compiled, over all tests
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    prompts = (PROMPT, "a sphere", "a blue cube")
    expected = [draw(pipe, prompt).images for prompt in prompts]
    pipe.compile(backend=keep)
    for prompt, picture in zip(prompts, expected, strict=True):
        # Attention sums over the masked padding, too: zeros, in another order.
        torch.testing.assert_close(draw(pipe, prompt).images, picture, atol=1e-5, rtol=0)
    assert len(graphs) == len(pipe.stage_numbers)
    draw(pipe, guidance_scale=1.0)
    assert len(graphs) == len(pipe.stage_numbers) + 2  # half the rows, in the two stages that were guided


def test_negative_prompt_and_null_text(shared_pipe) -> None:
    plain = draw(shared_pipe).images
    assert not torch.equal(plain, draw(shared_pipe, negative_prompt="blue").images)
    assert not torch.equal(plain, draw(make_pipeline(null_text="empty")).images)


def test_embeddings_in_equal_prompts(shared_pipe) -> None:
    embeds, null, mask, null_mask = shared_pipe.encode_prompt([PROMPT, "a cube"], num_images_per_prompt=2)
    assert embeds.shape[0] == null.shape[0] == 4
    given = {
        "prompt_embeds": embeds,
        "negative_prompt_embeds": null,
        "prompt_attention_mask": mask,
        "negative_prompt_attention_mask": null_mask,
    }
    out = draw(shared_pipe, None, **given).images
    assert torch.equal(out, draw(shared_pipe, [PROMPT, "a cube"], num_images_per_prompt=2).images)


def test_non_square_sizes(shared_pipe) -> None:
    out = draw(shared_pipe, height=64, width=96)
    assert [tuple(s.shape[-2:]) for s in out.stage_images] == [(16, 24), (32, 48), (64, 96)]


def test_a_later_stage_enlarges_a_given_picture(shared_pipe) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8))
    out = draw(shared_pipe, image=picture)
    assert [tuple(s.shape[-2:]) for s in out.stage_images] == [(32, 48), (64, 96)]
    only_last = draw(shared_pipe, image=torch.rand(1, 3, 32, 32, generator=seeded()))
    assert [tuple(s.shape[-2:]) for s in only_last.stage_images] == [(64, 64)]


def test_callback_sees_every_step_and_may_change_latents(shared_pipe) -> None:
    steps = []

    def blank(pipe, step, timestep, tensors):
        steps.append((step, float(timestep)))
        if step == pipe.num_timesteps - 1:
            return {"latents": torch.zeros_like(tensors["latents"])}

    out = draw(shared_pipe, callback_on_step_end=blank)
    assert [s for s, _ in steps] == list(range(7))
    assert torch.equal(out.images, torch.full_like(out.images, 0.5))


def test_a_callback_may_interrupt(pipe) -> None:
    def stop(pipe, step, timestep, tensors):
        pipe.interrupt = step == 1

    assert len(draw(pipe, callback_on_step_end=stop).stage_images) == 1


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


def test_any_component_may_be_none() -> None:
    empty = ImagenCascadePipeline()
    with pytest.raises(ValueError, match="no stage"):
        empty("a cube")
    only_text = make_pipeline(unet=None, scheduler=None, unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None)
    assert only_text.encode_prompt("a cube")[0].shape[-1] == TEXT_DIM


def test_offload_keeps_one_network_on_the_device(residents) -> None:
    pipe = make_pipeline()
    plain = draw(pipe).images
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(draw(pipe).images, plain)
    assert residents.history == [{T5EncoderModel}, {type(pipe.unet)}, {type(pipe.unet_2)}, {type(pipe.unet_3)}]
    assert not residents.now


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
        ({"image": torch.zeros(3, 3, 16, 16)}, "3 images do not divide"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "noise"),
        ({"output_type": "latent"}, "latent"),
        ({"prompt": None, "prompt_embeds": torch.full((1, 2, TEXT_DIM), torch.nan)}, "NaN"),
        ({"prompt": None, "prompt_embeds": torch.zeros(1, 2, 7)}, "7 wide but stage unet takes 32"),
        ({"prompt": None, "prompt_embeds": torch.zeros(2, TEXT_DIM)}, "prompts, tokens, width"),
        ({"guidance_interval": (0.5, 0.2)}, r"guidance_interval is \(0.5, 0.2\)"),
        ({"guidance_interval": [(0, 1), (0, 1)]}, "guidance_interval has 2 pairs for 3 stages"),
        ({"cond_images": torch.zeros(1, 3, 8, 8)}, "unet, unet_2, unet_3 takes no cond_images; leave them out"),
        (
            {"prompt": None, "prompt_embeds": torch.zeros(1, 2, TEXT_DIM), "prompt_attention_mask": torch.zeros(1, 2)},
            "a token in every row",
        ),
    ],
)
def test_bad_calls_are_refused_in_words(shared_pipe, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        draw(shared_pipe, **arguments)


def test_a_stage_of_another_text_width_is_refused() -> None:
    with pytest.raises(ValueError, match="stage unet_2 takes 16"):
        draw(make_pipeline(unet_2=make_sr(encoder_hid_dim=16)))


def test_a_scheduler_that_cannot_drive_is_refused() -> None:
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler cannot drive"):
        draw(make_pipeline(scheduler_2=diffusers.FlowMatchEulerDiscreteScheduler()))
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
