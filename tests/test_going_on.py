"""Going on from what a call has made in an earlier stage: the stages after it make what they would have made there."""

from functools import partial

import pytest
import torch

from imagen_diffusers import ImagenCascadeImg2ImgPipeline, ImagenCascadeInpaintPipeline
from imagen_diffusers.pipelines.outpainting import outpaint

from . import test_img2img, test_inpainting
from .conftest import forbid_networks, make_pipeline, seeded
from .test_cascade import PROMPT
from .test_img2img import a_picture, quiet
from .test_inpainting import a_mask
from .test_outpainting import HELD

DRAW = {ImagenCascadeImg2ImgPipeline: test_img2img.draw, ImagenCascadeInpaintPipeline: test_inpainting.draw}
BOTH = pytest.mark.parametrize("task", DRAW, ids=lambda task: task.__name__)


@pytest.fixture(scope="module")
def cascade():
    """For tests that change nothing in it."""
    return make_pipeline(num_inference_steps=(2, 2, 2))


def drawing(task, cascade, **given):
    """A call of a task, whose latents are brought to the grid of 1/128, whose images come back from [0, 1] as they were."""

    def to_grid(pipe, step, timestep, tensors) -> dict:
        return {"latents": (tensors["latents"] * 128).round() / 128}

    return partial(DRAW[task], quiet(task.from_pipe(cascade)), callback_on_step_end=to_grid, **given)


CALLS = [
    (ImagenCascadeImg2ImgPipeline, {}, [[0.5, 1.0, 0.5], [1.0, 0.5]]),
    (ImagenCascadeInpaintPipeline, {"mask_image": a_mask(80, 100), "jump_n_sample": 2}, [[1.0, 0.5, 1.0], [0.5, 1.0]]),
    (ImagenCascadeInpaintPipeline, {"mask_image": a_mask(80, 100), "mask_feather": 4.0, "padding_mask_crop": 8}, [1.0, 1.0]),
]


@pytest.mark.parametrize(("task", "given", "strengths"), CALLS, ids=["img2img", "inpainting", "a window"])
def test_later_stages_make_bit_for_bit_what_the_whole_call_makes(cascade, task, given, strengths) -> None:
    """The randomness is each stage's own. From the last stage but one, too."""
    prompts, call = [PROMPT, "a blue cube"], {"image": a_picture(2, 80, 100), **given}
    draw = drawing(task, cascade, **call)
    whole = draw(prompts, strength=strengths[0], generator=[seeded(1), seeded(2)])
    on = draw(prompts, strength=strengths[1], low_res=whole.stage_images[0], start_at=2, generator=[seeded(1), seeded(2)])
    assert len(on.stage_images) == 2
    assert all(torch.equal(one, other) for one, other in zip(on.stage_images, whole.stage_images[1:], strict=True))
    assert torch.equal(on.images, whole.images)


@BOTH
def test_the_best_of_several_small_ones_is_carried_on(cascade, task) -> None:
    """The stage is found by the size, the result's sides follow from it, and no base is needed."""
    call = {"image": a_picture(1, 80, 100), **({"mask_image": a_mask(80, 100)} if task is ImagenCascadeInpaintPipeline else {})}
    draw = drawing(task, cascade, **call)
    small = draw(num_images_per_prompt=3, stop_at=1, generator=[seeded(n) for n in range(3)]).images
    assert small.shape == (3, 3, 12, 16)
    later = draw(low_res=small[2], seed=2)
    assert [images.shape[-2:] for images in later.stage_images] == [(24, 32), (48, 64)]
    without_base = make_pipeline(num_inference_steps=(2, 2, 2), unet=None, scheduler=None)
    alone = drawing(task, without_base, **call)(low_res=small[2], seed=2, height=48, width=64)
    assert torch.equal(alone.images, later.images)
    each = draw(None, low_res=small[1:], generator=[seeded(1), seeded(2)]).images  # one result for each
    assert each.shape == (2, 3, 48, 64)


BAD: list[tuple[dict, str]] = [
    ({"start_at": 2}, "stage 2 needs low_res=, to enlarge it"),
    ({"start_at": 1, "low_res": torch.zeros(3, 16, 16)}, "stage 1 takes no image; leave low_res out, or start at a stage that enlarges"),
    ({"start_at": 4, "low_res": torch.zeros(3, 16, 16)}, r"start_at is 4; this pipeline holds the stages \[1, 2, 3\]"),
    ({"stop_at": 1, "low_res": torch.zeros(3, 16, 16)}, "between start_at=2 and stop_at=1, and low_res is 16x16; give a larger"),
    ({"low_res": torch.zeros(3, 64, 64)}, "no stage enlarges an image of 64px"),
    ({"low_res": torch.zeros(2, 3, 16, 16)}, "low_res holds 2 images for 1 prompts; give one, or one per prompt"),
    ({"low_res": "small.png"}, "low_res is a str; give PIL images"),
    ({"low_res": torch.zeros(3, 16, 16), "strength": [0.5, 0.5, 0.5]}, "strength has 3 values for 2 stages"),
    ({"low_res": torch.zeros(3, 16, 16), "height": 32, "width": 32}, "stage unet_2 would make 16x16 of an image of 16x16"),
]


@BOTH
@pytest.mark.parametrize(("given", "said"), BAD, ids=lambda x: ", ".join(x) if isinstance(x, dict) else "")
def test_what_cannot_be_gone_on_from_is_said(cascade, monkeypatch, task, given, said) -> None:
    forbid_networks(monkeypatch, cascade)
    with pytest.raises(ValueError, match=said):
        drawing(task, cascade)(**given)


def test_a_wide_small_result_goes_on_to_the_next_stage(cascade) -> None:
    pipe = ImagenCascadeImg2ImgPipeline.from_pipe(cascade)
    call = {"image": HELD, "height": 32, "width": 128, "strength": 0.5, "output_type": "pt", "generator": seeded()}
    small = pipe(PROMPT, **call).stage_images[0]
    assert small.shape[-2:] == (8, 32)
    made = pipe(PROMPT, **{**call, "generator": seeded()}, low_res=small).stage_images
    assert [images.shape[-2:] for images in made] == [(16, 64), (32, 128)]


def test_an_image_is_not_extended_from_a_small_painting(cascade) -> None:
    with pytest.raises(ValueError, match="low_res is of one painting, and an image is extended by several; leave it out"):
        outpaint(ImagenCascadeInpaintPipeline.from_pipe(cascade), PROMPT, HELD, 96, 64, low_res=torch.zeros(3, 16, 16))
