"""One cascade, several tasks: moving between their pipelines, and finding them by diffusers' own classes."""

import pytest
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image, DiffusionPipeline

import imagen_diffusers
from imagen_diffusers import (
    ImagenCascadeImg2ImgPipeline,
    ImagenCascadeInpaintPipeline,
    ImagenCascadePipeline,
    ImagenCascadeUpscalePipeline,
)
from imagen_diffusers.pipelines.stage_numbers import numbers_that_enlarge

from .conftest import make_pipeline, make_sr, seeded

TASKS = (ImagenCascadePipeline, ImagenCascadeImg2ImgPipeline, ImagenCascadeInpaintPipeline, ImagenCascadeUpscalePipeline)
AUTO = {
    AutoPipelineForText2Image: ImagenCascadePipeline,
    AutoPipelineForImage2Image: ImagenCascadeImg2ImgPipeline,
    AutoPipelineForInpainting: ImagenCascadeInpaintPipeline,
}
PROMPT = "a red cube"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("cascade")
    make_pipeline().save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_loads_the_same_folder(folder, task) -> None:
    pipe = task.from_pretrained(folder)
    assert type(pipe) is task
    assert pipe.stage_numbers == [1, 2, 3]
    assert list(pipe.config.num_inference_steps) == [3, 2, 2]


@pytest.mark.parametrize("auto", AUTO, ids=lambda auto: auto.__name__)
def test_auto_classes_find_the_pipeline_of_their_task(folder, auto) -> None:
    pipe = auto.from_pretrained(folder)
    assert type(pipe) is AUTO[auto]
    for other, task in AUTO.items():
        moved = other.from_pipe(pipe)
        assert type(moved) is task
        assert moved.unet is pipe.unet
        assert moved.text_encoder is pipe.text_encoder
        assert list(moved.config.guidance_scale) == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("task", TASKS)
def test_a_saved_task_is_loaded_as_what_it_was(tmp_path, task) -> None:
    task.from_pipe(make_pipeline()).save_pretrained(tmp_path)
    assert type(DiffusionPipeline.from_pretrained(tmp_path)) is task
    assert type(ImagenCascadePipeline.from_pretrained(tmp_path)) is ImagenCascadePipeline


def test_moving_shares_components_and_settings() -> None:
    pipe = make_pipeline().to(torch.bfloat16)
    pipe.enable_slicing(1)
    pipe.enable_tiling(16)
    moved = ImagenCascadeUpscalePipeline.from_pipe(pipe)
    assert moved.components == pipe.components
    assert moved.unet.dtype == torch.bfloat16
    assert moved.config == {**pipe.config, "_name_or_path": moved.config["_name_or_path"]}
    small = torch.rand(1, 3, 32, 32, generator=seeded(1))
    with pytest.warns(FutureWarning, match="ImagenCascadeUpscalePipeline"):
        expected = pipe(PROMPT, image=small, generator=seeded(), output_type="pt").images
    assert torch.equal(moved(PROMPT, image=small, generator=seeded(), output_type="pt").images, expected)
    moved.unet.to(torch.float32)
    assert pipe.unet.dtype == torch.float32  # one and the same


def test_moving_takes_components_in_place_of_the_pipelines() -> None:
    moved = ImagenCascadeImg2ImgPipeline.from_pipe(make_pipeline(), unet_3=None, guidance_scale=[1.0, 1.0])
    assert moved.stage_numbers == [1, 2]
    assert list(moved.config.guidance_scale) == [1.0, 1.0]


def test_upscaling_needs_an_image() -> None:
    with pytest.raises(ValueError, match="image is missing; give the image to enlarge"):
        ImagenCascadeUpscalePipeline.from_pipe(make_pipeline())(PROMPT)


@pytest.mark.parametrize("more", [{"height": 64}, {"width": 64}, {"height": 64, "width": 64}])
def test_upscaling_takes_a_scale_or_a_size(more) -> None:
    with pytest.raises(ValueError, match="give scale, or height and width, not both"):
        ImagenCascadeUpscalePipeline.from_pipe(make_pipeline())(PROMPT, image=torch.zeros(3, 16, 16), scale=2, **more)


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [
        ({}, [32, 64]),
        ({"scale": 4}, [32, 64]),
        ({"scale": 3}, [24, 48]),
        ({"scale": 2}, [32]),
        ({"scale": 1.5}, [24]),
        ({"height": 32}, [32]),
        ({"width": 48}, [24, 48]),
        ({"scale": 2.5}, [40]),
        ({"scale": 2.75}, [44]),
        ({"scale": 3}, [24, 48]),
        ({"height": 40, "width": 64}, [(40, 64)]),
        ({"height": 24, "width": 24}, [24]),
        ({"scale": 4, "stop_at": 2}, [64]),
        ({"scale": 2, "start_at": 3}, [32]),
    ],
    ids=str,
)
def test_as_many_stages_run_as_enlarge_most_nearly_so_much(asked, sizes) -> None:
    """Of stages that enlarge twice each, the second runs where the result is nearer to four times than to twice the size."""
    pipe, ran = ImagenCascadeUpscalePipeline.from_pipe(make_pipeline()), []
    small = torch.rand(1, 3, 16, 16, generator=seeded(1))
    call = {"generator": seeded(), "output_type": "pt", "callback_on_stage_end": lambda pipe, number, _: ran.append(number)}
    out = pipe(PROMPT, image=small, **asked, **call)
    made = [size if isinstance(size, tuple) else (size, size) for size in sizes]
    assert [tuple(images.shape[-2:]) for images in out.stage_images] == made
    assert ran == pipe.running_stages


def test_no_stage_makes_an_image_smaller_before_another_enlarges_it() -> None:
    """Of stages that enlarge twice and eight times: six times is nearer to sixteen than to two, and the first would make 12px of 16."""
    pipe = ImagenCascadeUpscalePipeline.from_pipe(make_pipeline(unet_3=make_sr(sample_size=256)))
    image = torch.zeros(1, 3, 16, 16)
    for scale, stages in ((6, [2]), (7.5, [2]), (9, [2, 3])):
        assert numbers_that_enlarge(pipe.networks, [2, 3], image, None, None, scale) == stages


def test_an_image_that_one_stage_enlarges_twice_is_that_stages_alone() -> None:
    pipe = ImagenCascadeUpscalePipeline.from_pipe(make_pipeline())
    call = {"image": torch.rand(1, 3, 16, 16, generator=seeded(1)), "output_type": "pt"}
    alone = pipe(PROMPT, **call, stop_at=2, generator=seeded()).images
    assert torch.equal(pipe(PROMPT, **call, scale=2, generator=seeded()).images, alone)


@pytest.mark.parametrize("scale", [1, 0.5, 0, -2, float("inf"), float("nan"), "2"])
def test_a_scale_is_more_than_one(scale) -> None:
    with pytest.raises(ValueError, match=r"scale is .*, and stages only make images larger; give a number greater than 1, for example 2"):
        ImagenCascadeUpscalePipeline.from_pipe(make_pipeline())(PROMPT, image=torch.zeros(3, 16, 16), scale=scale)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"scale": 2, "stop_at": 3}, "stage unet_2 would make 16x16 of an image of 16x16"),
        ({"scale": 1.1}, "stage unet_2 would make 16x16 of an image of 16x16"),
        ({"height": 8}, "stage unet_2 would make 8x8 of an image of 16x16"),
        ({"height": 16, "width": 32}, "stage unet_2 would make 32x16 of an image of 16x16"),
    ],
)
def test_a_stage_that_would_not_enlarge_is_refused(asked, told) -> None:
    with pytest.raises(ValueError, match=f"{told}, and stages only make images larger; ask for a larger result"):
        ImagenCascadeUpscalePipeline.from_pipe(make_pipeline())(PROMPT, image=torch.zeros(3, 16, 16), **asked)


def test_a_scale_that_stages_cannot_have_exactly_is_said(caplog) -> None:
    pipe = ImagenCascadeUpscalePipeline.from_pipe(make_pipeline())
    assert pipe(PROMPT, image=torch.zeros(3, 16, 16), scale=1.7, generator=seeded(), output_type="pt").images.shape[-1] == 28
    (told,) = [record.message for record in caplog.records if "scale" in record.message]
    assert (
        "scale=1.7 would make 27x27 of the image; the stages that run make sides that are multiples of 4, and the result is 28x28" in told
    )
    caplog.clear()
    pipe(PROMPT, image=torch.zeros(3, 16, 16), scale=1.5, generator=seeded(), output_type="pt")
    assert not [record for record in caplog.records if "scale" in record.message]


def test_public_names_are_listed() -> None:
    assert {task.__name__ for task in TASKS} <= set(imagen_diffusers.__all__)
