"""`padding_mask_crop`: a window of an image painted by itself and pasted back, as diffusers' Stable Diffusion does it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from imagen_diffusers import ImagenCascadeInpaintPipeline
from imagen_diffusers.pipelines.fitting import unfilled
from imagen_diffusers.schedulers.noise import resize

from .conftest import seeded
from .test_cascade import PROMPT, ROUNDING
from .test_img2img import a_picture
from .test_inpainting import draw, gray, painting
from .test_outpainting import Corner

HEIGHT, WIDTH = 100, 150


@pytest.fixture(scope="module")
def shared() -> ImagenCascadeInpaintPipeline:
    """For tests that change nothing in it."""
    return painting(num_inference_steps=(2, 1, 1))


def mark(left: int, top: int, right: int, bottom: int, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    """(1, 1, height, width), True in a rectangle."""
    mask = torch.zeros(1, 1, height, width, dtype=torch.bool)
    mask[..., top:bottom, left:right] = True
    return mask


def as_array(images, output_type: str) -> np.ndarray:
    """(N, H, W, 3), in [0, 1] or in 8 bits, as it was handed out."""
    if output_type == "pil":
        return np.stack([np.asarray(image) for image in images])
    return images.permute(0, 2, 3, 1).numpy() if output_type == "pt" else images


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
@pytest.mark.parametrize(("feather", "seamless"), [(0.0, False), (4.0, False), (0.0, True)])
def test_what_is_not_painted_is_the_callers_to_the_last_bit(shared, output_type, feather, seamless) -> None:
    """Also in the image's corner, and of floats that are not there in [-1, 1]."""
    image = torch.rand(2, 3, HEIGHT, WIDTH, generator=seeded(4)) if output_type != "pil" else (a_picture(2, HEIGHT, WIDTH) * 255).byte()
    masks = torch.cat([mark(20, 30, 60, 41), mark(140, 85, WIDTH, HEIGHT)])
    blending = {"padding_mask_crop": 6, "mask_feather": feather, "seamless": seamless}
    call = {"output_type": output_type, "generator": [seeded(1), seeded(2)], "stop_at": 2, **blending}
    out = draw(shared, [PROMPT, "a blue cube"], image=image, mask_image=masks, **call)
    made, given = as_array(out.images, output_type), image.permute(0, 2, 3, 1).numpy()
    assert made.shape == given.shape
    reach = int(feather)
    near = F.max_pool2d(masks.float(), 2 * reach + 1, 1, reach)[:, 0].bool()
    assert np.array_equal(made[~near], given[~near])
    assert (made[masks[:, 0]] != given[masks[:, 0]]).mean() > 0.9
    if feather:
        assert (made[near & ~masks[:, 0]] != given[near & ~masks[:, 0]]).mean() > 0.5
    assert [as_array(images, output_type).shape for images in out.stage_images] == [(2, side, side, 3) for side in (16, 32)]


def test_a_window_is_cut_and_pasted_as_by_diffusers(shared) -> None:
    """It is painted as an image that was cut by hand is."""
    picture = Image.fromarray((a_picture(1, HEIGHT, WIDTH)[0] * 255).byte().permute(1, 2, 0).numpy())
    mask = mark(60, 30, 114, 51)
    box = VaeImageProcessor.get_crop_region(gray(mask), 64, 64, pad=5)
    assert box == (55, 9, 119, 73)
    out = draw(shared, image=picture, mask_image=gray(mask), padding_mask_crop=5, output_type="pil")
    by_hand = draw(shared, image=picture.crop(box), mask_image=gray(mask).crop(box), output_type="pil")
    for ours, expected in zip(out.stage_images, by_hand.stage_images, strict=True):
        assert ours[0].tobytes() == expected[0].tobytes()
    pasted = VaeImageProcessor(vae_scale_factor=1).apply_overlay(gray(mask), picture, by_hand.images[0], box)
    assert out.images[0].tobytes() == pasted.tobytes()


def test_a_window_fades_once_into_its_image(shared) -> None:
    """One of the stages' size is pasted as the same part of the image, painted by itself, fades."""
    image, mask = a_picture(1, HEIGHT, WIDTH), mark(60, 30, 114, 51)
    out = draw(shared, image=image, mask_image=mask, padding_mask_crop=5, mask_feather=4.0).images[..., 9:73, 55:119]
    by_hand = draw(shared, image=image[..., 9:73, 55:119], mask_image=mask[..., 9:73, 55:119], mask_feather=4.0).images
    torch.testing.assert_close(out, by_hand, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("size", "shape"), [({}, (64, 64)), ({"height": 32, "width": 64}, (32, 64)), ({"stop_at": 2}, (32, 32))], ids=str)
def test_a_window_larger_than_its_image_is_filled_at_the_edges(shared, size, shape) -> None:
    image, mask = a_picture(1, 20, WIDTH), mark(40, 5, 100, 15, 20)
    out = draw(shared, image=image, mask_image=mask, padding_mask_crop=10, **size)
    left, top, right, bottom = VaeImageProcessor.get_crop_region(gray(mask), shape[1], shape[0], pad=10)
    assert (top, bottom) == (0, 20)
    part = (..., slice(left, right))
    sides = {"height": shape[0], "width": shape[1], "resize_mode": "fill", **size}
    by_hand = draw(shared, image=image[part], mask_image=mask[part], **sides)
    assert torch.equal(out.stage_images[-1], by_hand.images)
    own = resize(unfilled(by_hand.images * 2 - 1, (20, right - left)), (20, right - left))
    expected = image.clone()
    expected[part] = torch.where(mask[part], own / 2 + 0.5, image[part])
    torch.testing.assert_close(out.images, expected, atol=1e-6, rtol=0)  # the window was handed out in [0, 1]


def test_a_mask_of_everything_keeps_the_images_size(shared) -> None:
    assert draw(shared, image=a_picture(1, 9, 70), mask_image=mark(0, 0, 70, 9, 9, 70), padding_mask_crop=32).images.shape[-2:] == (9, 70)


@pytest.mark.thorough
def test_one_seed_one_window_in_any_batch(shared) -> None:
    """Windows of several sizes, whose feathers are as many pixels of the image; one mask for all images, and one image for all masks."""
    images, masks = a_picture(3, HEIGHT, WIDTH), torch.cat([mark(20, 30, 25, 36), mark(0, 0, 90, 40), mark(149, 99, WIDTH, HEIGHT)])
    call = {"padding_mask_crop": 4, "mask_feather": 3.0, "stop_at": 1}
    each = {"generator": [seeded(n) for n in range(3)], **call}
    together = draw(shared, [PROMPT] * 3, image=images, mask_image=masks, **each).images
    alone = [draw(shared, image=images[n : n + 1], mask_image=masks[n : n + 1], seed=n, **call).images for n in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), atol=ROUNDING[torch.float32], rtol=0)
    for given in ({"image": images, "mask_image": masks[:1]}, {"image": images[:1], "mask_image": masks}):
        repeated = {name: one.expand(3, -1, -1, -1) for name, one in given.items()}
        generators = [[seeded(n) for n in range(6)] for _ in range(2)]
        once, thrice = (
            draw(shared, [PROMPT] * 3, **which, **call, generator=own, num_images_per_prompt=2).images
            for which, own in zip((given, repeated), generators, strict=True)
        )
        assert torch.equal(once, thrice)
        assert once.shape[0] == 6
    with pytest.raises(ValueError, match="image holds 2 images for 3 prompts"):
        draw(shared, None, image=images[:2], mask_image=masks, **call)


def test_the_whole_is_looked_at_and_marked(shared) -> None:
    """Windows are, too, like the images of all stages."""
    seen = []

    def checker(images: np.ndarray, clip_input: None) -> tuple[np.ndarray, list[bool]]:
        seen.append(images.shape)
        return images, [images.shape[1] == HEIGHT]

    call = {"image": a_picture(1, HEIGHT, WIDTH), "mask_image": mark(20, 30, 60, 41), "padding_mask_crop": 8, "output_type": "pil"}
    plain = draw(shared, **call).images[0]
    out = draw(ImagenCascadeInpaintPipeline.from_pipe(shared, safety_checker=checker, watermarker=Corner()), **call)
    assert seen == [(1, side, side, 3) for side in (16, 32, 64)] + [(1, HEIGHT, WIDTH, 3)]
    assert out.nsfw_detected == [True]
    assert out.images[0].tobytes() == Corner().apply_watermark([plain], HEIGHT)[0].tobytes()


def test_an_interrupt_pastes_what_is_painted_so_far(shared) -> None:
    def stop(pipe, *_) -> dict:
        pipe.interrupt = True
        return {}

    image, mask = a_picture(1, HEIGHT, WIDTH), mark(20, 30, 60, 41)
    out = draw(shared, image=image, mask_image=mask, padding_mask_crop=8, callback_on_step_end=stop)
    assert [images.shape[-1] for images in out.stage_images] == [16]
    assert torch.equal(out.images.where(~mask, torch.zeros(())), image.where(~mask, torch.zeros(())))
    assert not torch.equal(out.images, image)
