"""Image files of any kind become what a pipeline takes, or are refused in words."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imagen_diffusers.cli.edit import PaintingOptions
from imagen_diffusers.images import METADATA_KEY, read_image, read_settings, save_png
from imagen_diffusers.pipelines.image_inputs import images_to_tensor
from imagen_diffusers.pipelines.masks import mask_to_tensor
from imagen_diffusers.training.pyramid import decode

from .conftest import seeded

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


def test_a_transparent_gray_of_sixteen_bits_shows_white(tmp_path) -> None:
    path, levels = tmp_path / "a.png", [[255, 4], [156, 255]]
    Image.fromarray(np.array([[40000, 1000], [40001, 65535]], np.uint16)).save(path, transparency=40000)
    for name, behind, channels in (("image", "white", 3), ("mask_image", "black", 1)):
        seen = (images_to_tensor(name, read_image(path), channels, behind=behind)[0, 0] * 255).round().tolist()
        assert seen == (levels if behind == "white" else [[0, 4], [156, 255]])
    assert np.asarray(decode(path.read_bytes()))[..., 0].tolist() == levels
    image, marked = PaintingOptions(mask_alpha=True).read(path)
    assert np.asarray(marked["mask_image"]).tolist() == [[255, 0], [0, 0]]
    assert np.asarray(image)[..., 0].tolist() == [[156, 4], [156, 255]]


def test_a_transparent_colour_of_sixteen_bits_shows_white(tmp_path) -> None:
    """Of which Pillow compares the lower 8 bits, here those of black; it writes no such files."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    clear, path = (0x1200, 0x3400, 0x5600), tmp_path / "a.png"
    row = struct.pack(">x6H", *clear, 0, 0, 0)
    chunks = (b"IHDR", struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0)), (b"tRNS", struct.pack(">3H", *clear)), (b"IDAT", zlib.compress(row))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in (*chunks, (b"IEND", b""))))
    levels = [[255, 255, 255], [0, 0, 0]]
    assert (images_to_tensor("image", read_image(path))[0, :, 0].T * 255).tolist() == levels
    assert np.asarray(decode(path.read_bytes()))[0].tolist() == levels
    _, marked = PaintingOptions(mask_alpha=True).read(path)
    assert np.asarray(marked["mask_image"]).tolist() == [[255, 0]]


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


def test_settings_are_read_without_decoding_the_image_unless_they_stand_behind_it(tmp_path, monkeypatch) -> None:
    save_png(Image.fromarray(RAMP), tmp_path / "a.png", {"seed": 7})
    behind = PngInfo()
    behind.add(b"tEXt", METADATA_KEY.encode() + b'\0{"seed": 8}', after_idat=True)
    Image.fromarray(RAMP).save(tmp_path / "b.png", pnginfo=behind)
    assert read_settings(tmp_path / "b.png") == {"seed": 8}
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *_: pytest.fail("it was decoded"))
    assert read_settings(tmp_path / "a.png") == {"seed": 7}
    broken = PngInfo()
    broken.add_text(METADATA_KEY, "{seed")
    Image.fromarray(RAMP).save(tmp_path / "c.png", pnginfo=broken)
    with pytest.raises(ValueError, match="c.png says {seed in place of settings"):
        read_settings(tmp_path / "c.png")


def test_images_of_other_formats_and_of_more_pixels_may_be_refused(tmp_path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", formats=("PNG",), most_pixels=256).size == (16, 16)
    with pytest.raises(ValueError, match="is not an image that can be read; give a file of one of these kinds: JPEG"):
        read_image(tmp_path / "a.png", formats=("JPEG",))
    with pytest.raises(ValueError, match="it is 16x16, and at most 255 pixels are read"):
        read_image(tmp_path / "a.png", most_pixels=255)


def test_rounding_makes_no_image_signed() -> None:
    image = torch.rand(1, 3, 8, 8, generator=seeded())
    image[0, 0, 0, 0] = 0
    rounded = image.clone()
    rounded[0, 0, 0, 0] = -1e-7
    assert torch.equal(images_to_tensor("image", rounded), image)
    assert torch.equal(images_to_tensor("image", image * 2 - 1), (image * 2 - 1 + 1) / 2)


def test_what_is_negative_in_a_mask_is_black() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :2] = 1
    for low in (-1e-6, -1.0):
        assert torch.equal(mask_to_tensor(torch.where(mask > 0, mask, low), mask.expand(1, 3, 8, 8)), mask > 0)
