"""Image files of any kind become what a pipeline takes, or are refused in words."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from imagen_diffusers.images import read_image
from imagen_diffusers.pipelines.image_inputs import images_to_tensor

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def read(image: Image.Image, tmp_path, name: str = "a.png") -> np.ndarray:
    """As the pipeline sees the saved file, in 8 bits."""
    image.save(tmp_path / name)
    (seen,) = images_to_tensor("image", read_image(tmp_path / name))
    assert seen.shape[0] == 3
    return (seen * 255).round().byte().permute(1, 2, 0).numpy()


def test_sixteen_bits_keep_their_brightness(tmp_path) -> None:
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    np.testing.assert_array_equal(read(deep, tmp_path)[..., 1], RAMP)
    np.testing.assert_array_equal(read(deep, tmp_path, "a.tiff")[..., 0], RAMP)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_kinds_of_images_look_as_pillow_shows_them(mode, tmp_path) -> None:
    image = Image.fromarray(np.stack((RAMP, RAMP[::-1], RAMP.T), -1)).convert(mode)
    name = "a.tiff" if mode == "CMYK" else "a.png"
    np.testing.assert_array_equal(read(image, tmp_path, name), np.asarray(image.convert("RGB")))


def test_lab_images_become_gray_as_they_become_rgb() -> None:
    image = Image.merge("LAB", [Image.fromarray(channel) for channel in (RAMP, RAMP[::-1], RAMP.T)])
    gray = images_to_tensor("mask_image", image, 1)[0, 0]
    np.testing.assert_array_equal((gray * 255).round().byte(), np.asarray(image.convert("RGB").convert("L")))


def test_an_array_that_cannot_be_written_is_read_without_a_warning() -> None:
    given = np.asarray(Image.fromarray(RAMP).convert("RGB"))
    assert not given.flags.writeable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = images_to_tensor("image", given)
    assert torch.equal(seen, images_to_tensor("image", given.copy()))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_show_white(mode, tmp_path) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    seen = read(image.convert(mode), tmp_path)
    assert seen[0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_cameras_know_what_is_up(tmp_path) -> None:
    image, exif = Image.new("RGB", (4, 2)), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (2, 4)


def test_what_is_no_image_is_said(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("a red cube")
    with pytest.raises(ValueError, match=r"a.txt is not an image that can be read"):
        read_image(tmp_path / "a.txt")
    Image.fromarray(RAMP).resize((200, 200)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a.png cannot be read as an image"):
        read_image(tmp_path / "a.png")
    for values in (np.ones((2, 2), np.float32), np.full((2, 2), 1 << 20, np.int32)):
        Image.fromarray(values).save(tmp_path / "a.tiff")
        with pytest.raises(ValueError, match="whose range is not known"):
            images_to_tensor("image", read_image(tmp_path / "a.tiff"))
