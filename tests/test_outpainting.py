"""An image extended to a larger canvas: what it held stays, whichever way it was held and whichever stages run."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imagen_diffusers import ImagenCascadeInpaintPipeline
from imagen_diffusers.pipelines.outpainting import outpaint

from .conftest import make_pipeline, seeded
from .test_cascade import PROMPT
from .test_img2img import gray_parts, held_upright, quiet

HELD = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))
CANVAS = (96, 64)


@pytest.fixture(scope="module")
def painter() -> ImagenCascadeInpaintPipeline:
    return quiet(ImagenCascadeInpaintPipeline.from_pipe(make_pipeline()))


@pytest.mark.thorough
@pytest.mark.parametrize("call", [{}, {"stop_at": 2}, {"return_dict": False}], ids=str)
def test_what_the_image_held_stays_and_the_rest_is_painted(painter, call) -> None:
    made = np.asarray(outpaint(painter, PROMPT, HELD, *CANVAS, generator=seeded(), **call))
    assert made.shape == (64, 96, 3)
    assert np.array_equal(made[16:48, 24:72], np.asarray(HELD))
    assert len(np.unique(made[:16].reshape(-1, 3), axis=0)) > 1000


def test_a_gray_cascade_extends_gray_images() -> None:
    pipe = quiet(ImagenCascadeInpaintPipeline.from_pipe(make_pipeline(**gray_parts())))
    made = outpaint(pipe, PROMPT, HELD, 64, 32, generator=seeded(), num_inference_steps=1)
    assert made.mode == "L" and np.array_equal(np.asarray(made)[:, 8:56], np.asarray(HELD.convert("L")))


@pytest.mark.thorough
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_an_image_is_turned_upright(painter, orientation) -> None:
    expected = outpaint(painter, PROMPT, HELD, *CANVAS, generator=seeded())
    assert outpaint(painter, PROMPT, held_upright(HELD, orientation), *CANVAS, generator=seeded()).tobytes() == expected.tobytes()


@pytest.mark.thorough
def test_windows_are_as_large_as_the_last_stage_that_runs_was_trained_for(painter, monkeypatch) -> None:
    asked = []

    def watch(self, request):
        asked.append((request.width, request.height))
        return run(self, request)

    run = ImagenCascadeInpaintPipeline._run
    monkeypatch.setattr(ImagenCascadeInpaintPipeline, "_run", watch)
    for stop_at, size in ((2, 32), (3, 64), (None, 64)):
        outpaint(painter, PROMPT, HELD, *CANVAS, generator=seeded(), stop_at=stop_at, num_inference_steps=1)
        assert {*asked} == {(size, size)}
        asked.clear()


@pytest.mark.parametrize(("width", "height"), [(60, 40), (100, 50)], ids=str)
def test_a_canvas_of_any_size(painter, width, height) -> None:
    """The tiny stages make images of multiples of 16."""
    made = np.asarray(outpaint(painter, PROMPT, HELD, width, height, left=3, top=2, generator=seeded()))
    assert made.shape == (height, width, 3)
    assert np.array_equal(made[2:34, 3:51], np.asarray(HELD))
    assert len(np.unique(made[36:].reshape(-1, 3), axis=0)) > 100


def test_a_stage_that_is_not_there_is_said(painter) -> None:
    for stop_at in (4, -1, "2"):
        with pytest.raises(ValueError, match=f"stop_at is {stop_at!r}"):
            outpaint(painter, PROMPT, HELD, *CANVAS, stop_at=stop_at)


class Corner:
    """A watermarker as DeepFloyd IF's is called: a square of 4 pixels in each image's last corner."""

    def apply_watermark(self, images: list[Image.Image], size: int) -> list[Image.Image]:
        for image in images:
            assert size == image.height
            ImageDraw.Draw(image).rectangle((image.width - 4, image.height - 4, image.width, image.height), fill="red")
        return images


def test_the_whole_is_looked_at_and_not_each_window(painter) -> None:
    seen = []

    def blackens(images: np.ndarray, clip_input: None) -> tuple[np.ndarray, list[bool]]:
        seen.append(images)
        return np.zeros_like(images), [True]

    checked = ImagenCascadeInpaintPipeline.from_pipe(painter, safety_checker=blackens)
    plain, black = (outpaint(pipe, PROMPT, HELD, *CANVAS, generator=seeded()) for pipe in (painter, checked))
    (whole,) = seen
    assert (whole[0] * 255).round().astype(np.uint8).tobytes() == plain.tobytes()
    assert not np.asarray(black).any()


@pytest.mark.parametrize("more", [{}, {"watermarker": Corner()}], ids=["plain", "marked"])
def test_it_is_the_callers_pipeline_that_paints(painter, more) -> None:
    """Its offloading is its own, and others interrupt it."""
    pipe, seen = ImagenCascadeInpaintPipeline.from_pipe(painter, **more), []
    outpaint(pipe, PROMPT, HELD, *CANVAS, stop_at=1, callback_on_step_end=lambda running, *_: seen.append(running is pipe) or {})
    assert seen and all(seen)


def test_several_prompts_are_refused(painter) -> None:
    with pytest.raises(ValueError, match="pipe is of ImagenCascadePipeline, which .*; give ImagenCascadeInpaintPipeline.from_pipe"):
        outpaint(make_pipeline(), PROMPT, HELD, *CANVAS)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="prompt is a list; one call extends one image"):
        outpaint(painter, [PROMPT, PROMPT], HELD, *CANVAS)


def stop_in(stage: str):
    """A callback that interrupts the second window, in its first stage or in its last."""
    seen = []

    def stop(pipe, step, timestep, given) -> dict:
        seen.append(given["latents"].shape[-1])
        windows = sum(a > b for a, b in zip(seen, seen[1:], strict=False)) + 1
        pipe.interrupt = windows == 2 and (stage == "first" or seen[-1] == 64)
        return {}

    return stop


@pytest.mark.thorough
@pytest.mark.parametrize("stage", ["first", "last"])
def test_an_interrupt_hands_out_what_is_painted_so_far(painter, stage) -> None:
    stopped = np.asarray(outpaint(painter, PROMPT, HELD, *CANVAS, generator=seeded(), callback_on_step_end=stop_in(stage)))
    whole = np.asarray(outpaint(painter, PROMPT, HELD, *CANVAS, generator=seeded()))
    assert np.array_equal(stopped[:, :64], whole[:, :64])  # the first window
    assert (stopped[16:48, 72:] == np.asarray(HELD)[:, -1:]).all()  # the image's edge, repeated


@pytest.mark.parametrize("image", [[HELD], np.zeros((8, 8, 3), np.uint8), "picture.png"], ids=lambda image: type(image).__name__)
def test_what_is_no_image_is_said(painter, image) -> None:
    with pytest.raises(ValueError, match=f"image is a {type(image).__name__}; one call extends one image: give a PIL image"):
        outpaint(painter, PROMPT, image, *CANVAS)


@pytest.mark.parametrize("place", [{"width": 96.5}, {"height": "64"}, {"left": 1.0}, {"top": True}], ids=str)
def test_sides_and_places_are_whole_numbers(painter, place) -> None:
    ((name, number),) = place.items()
    with pytest.raises(ValueError, match=f"{name} is {number!r}; give a whole number of pixels"):
        outpaint(painter, PROMPT, HELD, **{"width": 96, "height": 64, **place})


@pytest.mark.parametrize("call", [{"num_images_per_prompt": 2}, {"output_type": "pt"}], ids=str)
def test_more_than_one_pil_image_is_not_made(painter, call) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(call))} is .*; one call extends one image"):
        outpaint(painter, PROMPT, HELD, *CANVAS, **call)


@pytest.mark.thorough
def test_the_whole_is_marked_and_not_each_window(painter) -> None:
    marking = ImagenCascadeInpaintPipeline.from_pipe(painter, watermarker=Corner())
    plain, marked = (outpaint(pipe, PROMPT, HELD, *CANVAS, generator=seeded()) for pipe in (painter, marking))
    assert marked.tobytes() == Corner().apply_watermark([plain], plain.height)[0].tobytes()
    assert marking.watermarker is not None
