"""Image to image: what IF's own pipelines and imagen-pytorch make of an image, and every way of asking for it."""

from functools import partial

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    IFImg2ImgPipeline,
    IFImg2ImgSuperResolutionPipeline,
    IFPipeline,
    IFSuperResolutionPipeline,
    UniPCMultistepScheduler,
)
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageOps

from benchmarks.imagen_pytorch_package import float64_throughout, noises, told_noise
from imagen_diffusers import ImagenCascadeImg2ImgPipeline, ImagenCascadeUpscalePipeline
from imagen_diffusers.pipelines import edits
from imagen_diffusers.pipelines.fitting import RESIZE_MODES, fitted
from imagen_diffusers.pipelines.image_inputs import images_to_tensor
from imagen_diffusers.sampling.seeds import stage_generators
from imagen_diffusers.schedulers.noise import resize
from imagen_diffusers.text.encoding import NULL_TEXTS

from .conftest import forbid_networks, make_base, make_pipeline, make_sr, seeded
from .test_cascade import PROMPT, ROUNDING
from .test_deepfloyd import CALL, PROMPTS, home, ours, quiet  # noqa: F401 (a fixture)
from .test_imagen_pytorch import SIZES, package, two_stages  # noqa: F401 (a fixture)


def varying(**changes) -> ImagenCascadeImg2ImgPipeline:
    return quiet(ImagenCascadeImg2ImgPipeline.from_pipe(make_pipeline(**changes)))


@pytest.fixture(scope="module")
def shared() -> ImagenCascadeImg2ImgPipeline:
    """For tests that change nothing in it."""
    return varying()


def a_picture(count: int = 1, height: int = 64, width: int = 64, seed: int = 7) -> torch.Tensor:
    """(count, 3, height, width) in [0, 1], on a grid whose numbers stay exact on the way to [-1, 1] and back."""
    return torch.randint(0, 257, (count, 3, height, width), generator=seeded(seed)) / 256


def draw(pipe, prompt=PROMPT, seed: int = 0, **arguments):
    return pipe(prompt, **{"image": a_picture(), "output_type": "pt", "generator": seeded(seed), **arguments})


def evaluations(pipe, **arguments) -> list[int]:
    """How often a call evaluates each stage's network."""
    counts = [0, 0, 0]

    def count(stage: int) -> None:
        counts[stage] += 1

    networks = (pipe.unet, pipe.unet_2, pipe.unet_3)
    hooks = [unet.register_forward_pre_hook(lambda *_, stage=stage: count(stage)) for stage, unet in enumerate(networks)]
    draw(pipe, **arguments)
    for hook in hooks:
        hook.remove()
    return counts


IFS = (IFImg2ImgPipeline, IFImg2ImgSuperResolutionPipeline)


@pytest.fixture(scope="module")
def loaded(home) -> tuple:  # noqa: F811
    """IF's two stages as our cascade, and the components of each as its own."""
    stages = (IFPipeline, home["one"]), (IFSuperResolutionPipeline, home["two"])
    return ours(home), *(cls.from_pretrained(folder).components for cls, folder in stages)


SOLVERS = {
    "DDPM": (None, {}),
    "DDIM": (DDIMScheduler, {}),
    "DPM-Solver++": (DPMSolverMultistepScheduler, {}),
    "SDE-DPM-Solver++": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "UniPC": (UniPCMultistepScheduler, {}),
}


def swap(pipe, slot: str, solver: str) -> None:
    """Another solver, and no learned variance: IF's own pipelines give it to any solver, unless the configuration says it is not there."""
    cls, changes = SOLVERS[solver]
    if cls is None:
        return
    scheduler = cls.from_config(getattr(pipe, slot).config, **changes)
    scheduler.register_to_config(variance_type="fixed_small")
    setattr(pipe, slot, scheduler)


@pytest.mark.thorough
@pytest.mark.parametrize(("solver", "strength"), [*((solver, 0.75) for solver in SOLVERS), ("DDPM", 0.3)])
def test_images_equal_deepfloyds_own_pipelines_bit_for_bit(loaded, solver, strength) -> None:
    pipe = quiet(ImagenCascadeImg2ImgPipeline.from_pipe(loaded[0]))
    base, larger = (quiet(cls(**parts, requires_safety_checker=False)) for cls, parts in zip(IFS, loaded[1:], strict=True))
    for one, slot in ((pipe, "scheduler"), (pipe, "scheduler_2"), (base, "scheduler"), (larger, "scheduler")):
        swap(one, slot, solver)
    if solver == "DDIM":  # by itself it goes on from the noise that the network said before the image was thresholded; here, nothing does
        for one in (base, larger):
            one.scheduler.step = partial(one.scheduler.step, use_clipped_model_output=True)
    image = a_picture(2, 32, 32)
    given = {"prompt": PROMPTS, "strength": strength, "guidance_scale": 4.0, **CALL, "num_inference_steps": 5}
    made = pipe(**given, image=image, generator=[seeded(3), seeded(4)]).stage_images

    first, second, _ = stage_generators([seeded(3), seeded(4)], 2, 3)
    original = image * 2 - 1
    expected = base(**given, image=resize(original, (16, 16)), generator=first).images
    assert torch.equal(made[0], (expected / 2 + 0.5).clamp(0, 1))
    expected = larger(**given, image=expected, original_image=original, generator=second, noise_level=250).images
    assert torch.equal(made[1], (expected / 2 + 0.5).clamp(0, 1))


@pytest.mark.thorough
@pytest.mark.numeric
@pytest.mark.parametrize("objective", ["noise", "v"])
def test_steps_are_skipped_as_by_imagen_pytorch(package, objective) -> None:  # noqa: F811
    """Its `init_images` are added whole to whole noise, whatever time the skipped steps lead to; the noise it is told mends that."""
    steps, skipped, strength = 10, 4, 0.6
    image = a_picture(1, 32, 32)
    images = [resize(image * 2 - 1, (size, size)).double() / 2 + 0.5 for size in SIZES]
    text = torch.randn(1, 5, 24, generator=seeded(5)).double()
    imagen, pipe = two_stages(package, objective, steps=steps)
    queue = []
    with float64_throughout(imagen):
        for n, generators in enumerate(stage_generators(seeded(3), 1, 2)):
            told = [noise.double() for noise in noises(generators[0], SIZES[n], steps - skipped, low_res=n > 0)]
            x, time = images[n] * 2 - 1, torch.linspace(1.0, 0.0, steps + 1)[skipped : skipped + 1]
            told[n] = imagen.noise_schedulers[n].q_sample(x, t=time, noise=told[n])[0] - x
            queue += told
        given = {"init_images": tuple(one.double() for one in images), "skip_steps": skipped, "use_tqdm": False}
        with told_noise(queue):
            expected = imagen.sample(
                text_embeds=text, cond_scale=2.0, cfg_remove_parallel_component=False, return_all_unet_outputs=True, **given
            )

    varied = quiet(ImagenCascadeImg2ImgPipeline.from_pipe(pipe)).to(torch.float64)
    call = {"image": image, "strength": strength, "guidance_scale": 2.0, "generator": seeded(3), "output_type": "pt"}
    for mine, them in zip(varied(prompt_embeds=text, **call).stage_images, expected, strict=True):
        assert (mine - them).abs().max() < 1e-7


def test_without_strength_the_image_comes_back_and_no_network_runs(shared) -> None:
    assert evaluations(shared, strength=0.0) == [0, 0, 0]
    image = a_picture()
    for size, stage in zip((16, 32, 64), draw(shared, strength=0.0).stage_images, strict=True):
        assert torch.equal(stage, resize(image * 2 - 1, (size, size)) / 2 + 0.5)
    eight = (image * 255).round().byte()
    (returned,) = draw(shared, image=eight, strength=0.0, output_type="pil").images
    assert np.array_equal(np.asarray(returned), eight[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("solver", ["ImagenDDPMScheduler", "EulerDiscreteScheduler"])
def test_at_full_strength_the_prompt_alone_is_followed(solver) -> None:
    plain = make_pipeline()
    if solver != "ImagenDDPMScheduler":
        for slot in ("scheduler", "scheduler_2", "scheduler_3"):
            setattr(plain, slot, getattr(diffusers, solver).from_config(getattr(plain, slot).config))
    varied = quiet(ImagenCascadeImg2ImgPipeline.from_pipe(plain))
    expected = plain(PROMPT, generator=seeded(), output_type="pt").stage_images
    for strength in (1.0, 1, [1.0, 1.0, 1.0]):
        for mine, them in zip(draw(varied, strength=strength).stage_images, expected, strict=True):
            assert torch.equal(mine, them)


def test_each_stage_has_a_strength_of_its_own(shared) -> None:
    """Of so many steps, int(steps x strength) are made, as diffusers counts them."""
    given = {"num_inference_steps": [8, 6, 10], "strength": [0.75, 0.0, 0.29]}
    assert evaluations(shared, **given) == [6, 0, 2]
    stages = draw(shared, **given).stage_images
    assert torch.equal(stages[1], resize(a_picture() * 2 - 1, (32, 32)) / 2 + 0.5)
    assert not torch.allclose(stages[2], a_picture(), atol=0.1)
    assert torch.equal(stages[0], draw(shared, num_inference_steps=8, strength=0.75, stop_at=1).images)


@pytest.mark.parametrize("null_text", NULL_TEXTS)
def test_variations_follow_no_text(null_text) -> None:
    """Between no text and no text there is no guidance, and no second row for it."""
    varied = varying(null_text=null_text)
    rows = []
    hook = varied.unet.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    made = draw(varied, None, strength=0.7, num_images_per_prompt=2).images
    hook.remove()
    assert set(rows) == {2}
    if null_text == "empty":
        expected = draw(varied, "", strength=0.7, num_images_per_prompt=2, guidance_scale=1.0).images
        assert torch.equal(made, expected)
    assert not torch.allclose(made, draw(varied, strength=0.7, num_images_per_prompt=2, guidance_scale=1.0).images, atol=1e-3)
    two = draw(varied, None, image=a_picture(2), strength=0.7, generator=[seeded(1), seeded(2)]).images
    assert two.shape == (2, 3, 64, 64)


def test_networks_without_text_vary_images() -> None:
    textless = {"encoder_hid_dim": None}
    alone = varying(unet=make_base(**textless), unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None)
    assert draw(alone, None, image=a_picture(3), strength=0.5).images.shape == (3, 3, 16, 16)
    with pytest.raises(ValueError, match="networks of this pipeline take no text; leave out prompt"):
        draw(alone, strength=0.5)


@pytest.mark.numeric
@pytest.mark.parametrize(("dtype", "tolerance"), ROUNDING.items())
def test_one_seed_one_image_in_any_batch(dtype, tolerance) -> None:
    varied, images = varying().to(dtype), a_picture(3)
    given = {"strength": [0.67, 0.5, 0.0], "num_inference_steps": 3}
    alone = [draw(varied, image=image[None], seed=n, **given).images for n, image in enumerate(images)]
    together = draw(varied, [PROMPT] * 3, image=images, generator=[seeded(n) for n in range(3)], **given).images
    assert together.dtype == dtype
    torch.testing.assert_close(torch.cat(alone), together, atol=tolerance, rtol=0)
    twice = draw(varied, image=images[:1], num_images_per_prompt=2, generator=[seeded(0), seeded(9)], **given).images
    torch.testing.assert_close(twice[:1], alone[0], atol=tolerance, rtol=0)


@pytest.mark.thorough
@pytest.mark.numeric
def test_in_slices_and_in_tiles() -> None:
    varied = varying()
    whole = draw(varied, strength=0.7, num_images_per_prompt=2).images
    varied.enable_slicing()
    torch.testing.assert_close(draw(varied, strength=0.7, num_images_per_prompt=2).images, whole, atol=ROUNDING[torch.float32], rtol=0)
    varied.enable_tiling(16)
    tiled = draw(varied, strength=0.7, num_images_per_prompt=2).images
    assert 0 < (tiled - whole).abs().mean() < 0.2


def test_a_callback_sees_the_steps_that_are_made(shared) -> None:
    seen = []

    def watch(pipe, step, timestep, tensors):
        seen.append((step, pipe.num_timesteps, tuple(tensors["latents"].shape)))

    draw(shared, strength=0.5, num_inference_steps=[4, 2, 2], callback_on_step_end=watch)
    assert seen == [(step, 4, (1, 3, size, size)) for step, size in enumerate((16, 16, 32, 64))]
    shared_images = draw(shared, strength=0.5, callback_on_step_end=lambda pipe, *_: setattr(pipe, "interrupt", True)).stage_images
    assert len(shared_images) == 1


def test_noise_may_be_given(shared) -> None:
    noise = torch.randn(1, 3, 16, 16, generator=stage_generators(seeded(0), 1, 3)[0][0])
    given = {"strength": 0.7, "stop_at": 1}
    assert torch.equal(draw(shared, latents=noise, **given).images, draw(shared, **given).images)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(64, 96, (40, 64)), (10, 7, (64, 48)), (3, 200, (8, 64)), (1, 1, (64, 64)), (300, 301, (64, 64))],
)
def test_an_image_keeps_its_shape_in_a_size_the_stages_can_make(shared, height, width, expected) -> None:
    made = draw(shared, image=a_picture(1, height, width), strength=0.5)
    assert made.images.shape[-2:] == expected
    assert [s.shape[-1] for s in made.stage_images] == [expected[1] // 4, expected[1] // 2, expected[1]]
    assert draw(shared, image=a_picture(1, height, width), strength=0.5, height=32, width=48).images.shape[-2:] == (32, 48)


def test_stages_that_enlarge_three_times_share_a_size() -> None:
    """Of strides 2 and 4, which in pixels of the second stage are 6 and 4."""
    pipe = varying(unet_2=make_sr(sample_size=48), unet_3=None)
    assert draw(pipe, image=a_picture(1, 48, 30), strength=0.5).images.shape[-2:] == (48, 24)
    with pytest.raises(ValueError, match="both must be multiples of 12, such as height=48, width=24"):
        draw(pipe, image=a_picture(1, 48, 30), height=48, width=30)


def held_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The same picture, as a camera that was held so keeps it."""
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    kept = image.transpose(turned[orientation])
    kept.getexif()[0x0112] = orientation
    return kept


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_images_are_turned_upright(shared, orientation) -> None:
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    kept = held_upright(upright, orientation)
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(kept)), np.asarray(upright))
    assert torch.equal(images_to_tensor("image", [kept, upright])[0], images_to_tensor("image", upright)[0])
    assert kept.getexif()[0x0112] == orientation  # the caller's own stays as it is
    assert torch.equal(draw(shared, image=kept, strength=0.5).images, draw(shared, image=upright, strength=0.5).images)


KINDS = {
    "RGBA": lambda image: image.convert("RGBA"),
    "LA": lambda image: image.convert("L").convert("LA"),
    "P": lambda image: image.convert("L").convert("P"),
    "CMYK": lambda image: image.convert("CMYK"),
    "I;16": lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
    "1": lambda image: image.convert("1"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_kind_are_taken(shared, kind) -> None:
    image = KINDS[kind](Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)))
    assert image.mode == kind
    plain = Image.fromarray((np.asarray(image) // 257).astype(np.uint8)) if kind == "I;16" else image
    expected = draw(shared, image=plain.convert("RGB"), strength=0.5).images
    torch.testing.assert_close(draw(shared, image=image, strength=0.5).images, expected, atol=1e-5, rtol=0)


GRAY = {"in_channels": 1, "out_channels": 1}


def gray_parts() -> dict:
    """What makes the tiny cascade a gray one of two stages."""
    return {"unet": make_base(**GRAY), "unet_2": make_sr(**GRAY, low_res_channels=1), "unet_3": None, "scheduler_3": None}


def test_a_gray_cascade_starts_from_gray_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    pipe = varying(**gray_parts())
    expected = draw(pipe, image=torch.from_numpy(pixels)[None] / 255).images
    assert expected.shape == (1, 1, 32, 32)
    for form in (Image.fromarray(pixels).convert("RGB"), pixels):
        assert torch.equal(draw(pipe, image=form).images, expected)
    kept = draw(pipe, image=Image.fromarray(pixels), strength=0, output_type="pil").images[0]
    assert kept.mode == "L" and np.array_equal(np.asarray(kept), pixels)
    with pytest.raises(ValueError, match="image has 3 channels; give 1"):
        draw(pipe)
    colouring = varying(unet=make_base(**GRAY), unet_2=make_sr(low_res_channels=1))
    with pytest.raises(ValueError, match=r"stage 1 takes 1, stage 2 takes 3, stage 3 takes 3\); end before another kind by stop_at"):
        draw(colouring, image=Image.fromarray(pixels))
    assert draw(colouring, image=Image.fromarray(pixels), stop_at=1).images.shape == (1, 1, 16, 16)


def test_what_is_transparent_lies_over_white(shared) -> None:
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    palette = Image.new("P", (16, 16), 0)
    palette.info["transparency"] = 0
    for image in (clear, clear.convert("LA"), palette):
        torch.testing.assert_close(draw(shared, image=image, strength=0.0).images, torch.ones(1, 3, 64, 64))


def test_one_image_for_several_prompts(shared) -> None:
    prompts, generators = [PROMPT, "a blue cube"], [seeded(1), seeded(2)]
    made = draw(shared, prompts, generator=generators, strength=0.7).images
    pairs = draw(shared, prompts, image=a_picture().repeat(2, 1, 1, 1), generator=[seeded(1), seeded(2)], strength=0.7).images
    assert torch.equal(made, pairs)
    as_list = draw(shared, prompts, image=[a_picture()[0]] * 2, generator=[seeded(1), seeded(2)], strength=0.7).images
    assert torch.equal(as_list, pairs)


def test_a_large_image_is_resized_once_and_then_repeated(shared, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(edits, "resize", lambda images, size: (seen.append(images.shape), resize(images, size))[1])
    out = draw(shared, image=torch.rand(1, 3, 256, 256), num_images_per_prompt=3, strength=0.0)
    assert out.images.shape == (3, 3, 64, 64)
    assert seen[0] == (1, 3, 256, 256)
    assert all(shape[-1] <= 64 for shape in seen[1:])


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize(("size", "wanted"), [((96, 64), (48, 48)), ((40, 64), (48, 48)), ((30, 45), (64, 32)), ((48, 64), (30, 40))])
def test_an_image_comes_to_another_shape_as_in_diffusers(mode, size, wanted) -> None:
    image = Image.effect_noise(size, 60).convert("RGB").resize((8, 8)).resize(size, Image.Resampling.BICUBIC)
    expected = VaeImageProcessor(resample="bicubic").resize(image, *wanted, resize_mode=mode)
    ours = fitted(images_to_tensor("image", image) * 2 - 1, wanted, mode, resize)
    # Pillow rounds to 8 bits after either direction, and fills from a line that it interpolated once more.
    torch.testing.assert_close((ours + 1) / 2, images_to_tensor("image", expected), rtol=0, atol=3 / 255)


@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_without_strength_an_image_of_another_shape_comes_back_fitted(shared, mode) -> None:
    image = a_picture(1, 96, 64)
    made = draw(shared, image=image, strength=0.0, height=64, width=64, resize_mode=mode).images
    torch.testing.assert_close(made, (fitted(image * 2 - 1, (64, 64), mode, resize) + 1) / 2, rtol=0, atol=1e-6)


BAD: list[tuple[dict, str]] = [
    ({"resize_mode": "squeeze"}, "resize_mode is 'squeeze'; give default, which stretches images, crop, or fill"),
    ({"image": None}, "image is missing; give the image to start from"),
    ({"strength": 1.5}, "strength is 1.5; give a number from 0, which keeps the image, to 1"),
    ({"strength": -0.1}, "strength is -0.1"),
    ({"strength": float("nan")}, "strength is nan"),
    ({"strength": True}, "strength is True; give a number"),
    ({"strength": "0.5"}, "strength is '0.5'; give a number"),
    ({"strength": None}, "strength is None; give a number"),
    ({"strength": [0.5, 0.5]}, "strength has 2 values for 3 stages"),
    ({"strength": [0.5, 0.5, "much"]}, "strength is 'much'"),
    ({"strength": []}, "strength has 0 values for 3 stages"),
    ({"image": []}, "image is an empty list"),
    ({"image": "cube.png"}, "image is a str; give PIL images"),
    ({"image": a_picture(3)}, "image holds 3 images for 1 prompts; give one, or one per prompt"),
    ({"image": a_picture(2), "prompt": ["a", "a", "a"]}, "image holds 2 images for 3 prompts"),
    ({"image": [Image.new("RGB", (8, 8)), Image.new("RGB", (16, 16))], "prompt": ["a", "a"]}, "images of 8x8, 16x16; give images of one"),
    ({"image": torch.full((1, 3, 8, 8), 255.0)}, r"floats from 255 to 255"),
    ({"image": Image.new("F", (16, 16))}, 'mode "F", whose range is not known'),
    ({"image": torch.zeros(1, 4, 8, 8)}, "image has 4 channels; give 3"),
    ({"height": 0}, "height is 0; it must be at least 1 pixel"),
    ({"width": -64}, "width is -64; it must be at least 1 pixel"),
    ({"height": "64"}, "height is '64'; it must be at least 1 pixel"),
    ({"width": [64]}, r"width is \[64\]; it must be at least 1 pixel"),
    ({"height": 50}, "both must be multiples of 8"),
    ({"negative_prompt": "blue", "prompt": None}, "exactly one of prompt and prompt_embeds"),
    ({"stop_at": 4}, r"holds the stages \[1, 2, 3\]"),
]


@pytest.mark.parametrize(("given", "said"), BAD, ids=lambda x: ", ".join(x) if isinstance(x, dict) else "")
def test_a_call_says_what_is_wrong_before_any_network_runs(shared, monkeypatch, given, said) -> None:
    forbid_networks(monkeypatch, shared)
    with pytest.raises(ValueError, match=said):
        draw(shared, given.get("prompt", PROMPT), **{name: value for name, value in given.items() if name != "prompt"})


def test_a_pipeline_without_a_base_says_what_the_task_needs() -> None:
    varied = varying(unet=None, scheduler=None)
    with pytest.raises(
        ValueError, match=r"ImagenCascadeImg2ImgPipeline begins at a base stage, .* only the super-resolution stages \[2, 3\]"
    ):
        draw(varied)
    with pytest.raises(ValueError, match="this pipeline holds no stage"):
        quiet(ImagenCascadeImg2ImgPipeline())(PROMPT, image=a_picture())


def test_an_image_to_enlarge_is_still_taken_by_text_to_image_with_a_warning(shared_pipe) -> None:
    small, given = a_picture(1, 16, 16), {"generator": seeded(), "output_type": "pt"}
    with pytest.warns(FutureWarning, match="ImagenCascadeUpscalePipeline"):
        enlarged = shared_pipe(PROMPT, image=small, **given).images
    larger = quiet(ImagenCascadeUpscalePipeline.from_pipe(shared_pipe))
    assert torch.equal(larger(PROMPT, image=small, **{**given, "generator": seeded()}).images, enlarged)
