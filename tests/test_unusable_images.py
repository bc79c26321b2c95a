"""Images that cannot be used, and images of many shapes: a run passes over the one and batches the other, whatever comes together."""

import io

import datasets
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from imagen_diffusers.training.examples import Mixed, Visits, collate
from imagen_diffusers.training.image_datasets import ImageDataset
from imagen_diffusers.training.order import BucketSampler, Share
from imagen_diffusers.training.pyramid import ImageSettings, UnusableError, decode, size_of
from imagen_diffusers.training.reading import Columns, as_next
from imagen_diffusers.training.reports import Skipped, say_skipped

from .conftest import make_base
from .test_data import encoded, noise_image
from .test_training import fit

BUCKETS = ImageSettings(16, aspect_buckets=True, stride=4)


def rows_of(images: list[dict | None], captions: list[str] | None = None) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(decode=False), "text": datasets.Value("string")})
    return datasets.Dataset.from_dict({"image": images, "text": captions or ["a red cube"] * len(images)}, features=features)


def given(width: int, height: int, seed: int = 0) -> dict:
    return {"bytes": encoded(noise_image(width, height, seed)), "path": None}


def broken(width: int, height: int) -> dict:
    return {"bytes": encoded(noise_image(width, height))[:200], "path": f"broken-{width}x{height}.png"}


def many_shapes(settings: ImageSettings = BUCKETS) -> ImageDataset:
    """Wide, tall and square images, of which some cannot be used, one the only of its shape."""
    images = [given(60, 30), broken(60, 30), given(30, 60), given(40, 40), broken(30, 60), None, given(60, 31), broken(40, 30)]
    images += [{"bytes": b"no image", "path": "text.png"}, {"bytes": None, "path": "nowhere.png"}, given(8, 4)]
    return ImageDataset(rows_of(images), Columns("image", "text"), settings)


def batches(dataset, steps: int = 40) -> list:
    sampler = BucketSampler(dataset.buckets(), Share(3), seed=0, start=0, stop=steps)
    return list(DataLoader(Visits(dataset), batch_sampler=sampler, collate_fn=collate))


def test_a_substitute_has_the_shape_of_its_batch() -> None:
    found = batches(many_shapes())
    assert {tuple(b["pixel_values"].shape[2:]) for b in found} >= {(12, 24), (24, 12), (16, 16)}
    told = {line.split(":")[0] for b in found for line in b["skipped"]}
    assert told == {"broken-60x30.png", "broken-30x60.png", "broken-40x30.png", "row 5", "text.png", "nowhere.png", "row 10"}


def test_a_shape_of_which_no_image_can_be_used_is_left_out() -> None:
    tall, wide = (given(12, 24, i) for i in range(5)), broken(24, 12)  # of just the shapes' sizes: no tall one is cut to the wide one
    dataset = ImageDataset(rows_of([*tall, wide]), Columns("image", "text"), BUCKETS)
    found = batches(dataset, 6)
    assert {tuple(b["pixel_values"].shape[2:]) for b in found} == {(24, 12)}
    assert {line.split(":")[0] for b in found for line in b["skipped"]} == {"broken-24x12.png"}
    assert len(dataset.unusable) == 1
    both = ImageDataset(rows_of([wide, given(24, 12)]), Columns("image", "text"), BUCKETS)
    with pytest.raises(
        ValueError, match=r"images of one batch have the shapes \(3, 12, 24\), \(3, 24, 12\): with aspect_buckets each shape"
    ):
        batches(Mixed(dataset, both, 0.5))


def test_prior_preservation_keeps_shapes_apart() -> None:
    classes = ImageDataset(rows_of([given(30, 60, 5), given(40, 40, 6)]), Columns("image", "text"), BUCKETS)
    found = batches(Mixed(many_shapes(), classes, 0.5))
    assert {0.5, 1.0} == {float(w) for b in found for w in b["weight"]}
    assert Mixed(many_shapes(ImageSettings(16)), classes, 0.5).buckets() is None


@pytest.mark.thorough
def test_a_run_on_many_shapes_with_gaps(tmp_path) -> None:
    for steps in (3, 6):
        fit(tmp_path, steps, unet=make_base(), dataset=many_shapes(), train_batch_size=3)
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert len(lines) == len(set(lines))  # after a resume, too
    assert "nowhere.png: its file cannot be read (No such file or directory)" in (tmp_path / "skipped.txt").read_text()


def test_processes_list_each_image_once_in_one_file(tmp_path, capsys) -> None:
    first, second = Skipped(tmp_path), Skipped(tmp_path)
    for process, told in ((first, ["a: small"]), (second, ["b: small", "a: small"]), (first, ["b: small", "c: small", "c: small"])):
        process.add(told)
    assert (tmp_path / "skipped.txt").read_text().splitlines() == ["a: small", "b: small", "c: small"]
    say_skipped(tmp_path)
    assert capsys.readouterr().out == f"3 training images were passed over; see {tmp_path / 'skipped.txt'}\n"
    first.add(["1.tar: the rest of it cannot be read (unexpected end of data)", "2.parquet: it lacks a column that is read (text)"])
    say_skipped(tmp_path)
    assert capsys.readouterr().out.startswith("3 training images and 2 shards, or the rest of them, were passed over; see ")


def test_of_very_many_images_that_are_passed_over_some_are_listed(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("imagen_diffusers.training.reports.MOST", 3)
    (tmp_path / "skipped.txt").write_text("a: bad\nb: bad\n")
    skipped = Skipped(tmp_path)
    skipped.add(["a: bad", "c: bad", "d: bad"])
    skipped.add(["e: bad"])
    assert "further ones are neither counted nor listed" in caplog.text
    (tmp_path / "skipped.txt").write_text("a: bad\nb: bad\nc: bad\nd: of another process\n")
    assert skipped.seen == Skipped(tmp_path).seen == {"a: bad", "b: bad", "c: bad"}


def test_a_missing_image_or_file_is_passed_over() -> None:
    dataset = ImageDataset(rows_of([None, {"bytes": None, "path": "nowhere.png"}, given(16, 16)]), Columns("image", "text"), BUCKETS)
    assert dataset[0]["skipped"] == ["row 0: it has no image", "nowhere.png: its file cannot be read (No such file or directory)"]


def test_what_cannot_be_used_has_the_shape_of_the_next() -> None:
    assert as_next([None, 1, None, None, 4, None]) == [1, 1, 4, 4, 4, 1]
    assert as_next([None, None]) == [0, 0]


@pytest.mark.parametrize(("resolution", "stride"), [(32, 8), (64, 8), (64, 16), (256, 32)])
def test_shapes_are_there_both_ways_round(resolution, stride) -> None:
    shapes = ImageSettings(resolution, aspect_buckets=True, stride=stride).shapes
    assert {(w, h) for h, w in shapes} == set(shapes)
    assert (resolution, resolution) in shapes


def test_sizes_are_read_from_headers_as_cameras_turned_them() -> None:
    assert size_of(encoded(noise_image(60, 30))[:200]) == (30, 60)  # cut short
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    noise_image(60, 30).save(buffer, "PNG", exif=exif)
    assert size_of(buffer.getvalue()) == (60, 30)
    with pytest.raises(UnusableError, match="cannot be read"):
        size_of(b"no image")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_brought_to_eight(kind) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    read = np.asarray(decode(encoded(Image.fromarray(ramp), kind)))
    assert (read == np.arange(256).reshape(16, 16)[..., None]).all()


def test_values_of_unknown_range_are_said() -> None:
    floats = Image.fromarray(np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32))
    with pytest.raises(UnusableError, match="float32, whose range is not known; save it with 8 or 16 bits"):
        decode(encoded(floats, "TIFF"))
    wide = Image.fromarray(np.full((16, 16), 70_000, np.int32))
    with pytest.raises(UnusableError, match="int32, whose range is not known"):
        decode(encoded(wide, "TIFF"))
