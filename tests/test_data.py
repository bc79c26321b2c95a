"""Images from folders, Parquet, tar shards and streams to examples; what cannot be used is told of."""

import io
import json
import shutil
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.exact_stream import ImageStream
from imagen_diffusers.training.examples import collate
from imagen_diffusers.training.image_datasets import ImageDataset
from imagen_diffusers.training.order import Share
from imagen_diffusers.training.pyramid import ImageSettings, UnusableError, build_pyramid, cut, decode, nearest_shape
from imagen_diffusers.training.reading import RowReader
from imagen_diffusers.training.rows import load_captions, load_rows
from imagen_diffusers.training.shards import LOOKED_AT


def noise_image(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def folder_of(path, images: dict[str, bytes], captions: dict[str, Any] | None = None):
    path.mkdir(exist_ok=True)
    for name, data in images.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(data)
    if captions is not None:
        lines = [json.dumps({"file_name": name, "text": captions.get(name, "")}) for name in images]
        (path / "metadata.jsonl").write_text("\n".join(lines))
    return path


@pytest.fixture
def five(tmp_path):
    """Five captioned images; the second is cut short, the fourth is too small."""
    images = {f"{i}.png": encoded(noise_image(40, 32, i)) for i in range(5)}
    images["1.png"] = images["1.png"][:200]
    images["3.png"] = encoded(noise_image(8, 8))
    return folder_of(tmp_path / "five", images, {name: f"image {name[0]}" for name in images})


def dataset(folder, **changes) -> ImageDataset:
    rows, columns = load_rows(DataSettings(train_data_dir=folder, cache_dir=folder.parent / "cache"))
    return ImageDataset(rows, columns, ImageSettings(resolution=16, **changes))


def test_what_cannot_be_used_is_passed_over_and_told(five) -> None:
    examples = [dataset(five)[i] for i in range(5)]
    assert [e["prompt"][-1] for e in examples] == ["0", "2", "2", "4", "4"]
    assert "1.png" in examples[1]["skipped"][0]
    assert "cannot be read" in examples[1]["skipped"][0]
    assert "8x8, smaller than the stage's 16x16" in examples[3]["skipped"][0]
    assert collate(examples)["skipped"] == examples[1]["skipped"] + examples[3]["skipped"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no image", "cannot be read"),
        (encoded(Image.new("RGB", (32, 32), "black")), "the same colour"),
        (encoded(noise_image(32, 32), "JPEG")[:300], "cannot be read"),
    ],
)
def test_a_set_without_one_usable_image_is_refused(tmp_path, data, words) -> None:
    folder = folder_of(tmp_path / "bad", {"a.png": data}, {"a.png": "a"})
    with pytest.raises(ValueError, match=rf"none of the 1 images can be used: .*{words}"):
        dataset(folder)[0]


def test_a_place_without_images_or_captions_is_refused(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in"):
        load_rows(DataSettings(train_data_dir=tmp_path / "empty"))
    with pytest.raises(ValueError, match="is no folder"):
        load_rows(DataSettings(train_data_dir=tmp_path / "nowhere"))
    bare = folder_of(tmp_path / "bare", {"a.png": encoded(noise_image(16, 16)), "b.png": encoded(noise_image(16, 16))})
    with pytest.raises(ValueError, match=r"the images in .*bare have no captions; put metadata\.jsonl"):
        load_rows(DataSettings(train_data_dir=bare, cache_dir=tmp_path / "cache"))
    assert load_rows(DataSettings(train_data_dir=bare, cache_dir=tmp_path / "cache"), captions=False)[1].caption is None
    with pytest.raises(ValueError, match="exactly one"):
        DataSettings()
    empty_caption = folder_of(tmp_path / "untold", {"a.png": encoded(noise_image(16, 16))}, {})
    with pytest.raises(ValueError, match="it has no caption"):
        dataset(empty_caption)[0]


@pytest.mark.parametrize("streaming", [False, True])
def test_captions_may_be_in_text_files_beside_the_images(tmp_path, streaming) -> None:
    images = {name: encoded(noise_image(16, 16, seed)) for seed, name in enumerate(("b.png", "a.jpg", "in/c.png", "untold.png"))}
    folder = folder_of(tmp_path / "told", images)
    (folder / "._a.jpg").write_bytes(b"of macOS")
    for name in ("a", "b", "._a", "in/c"):
        (folder / f"{name}.txt").write_text(f"the image {name}: café\n", encoding="utf-8-sig" if name == "b" else "utf-8")
    given = DataSettings(train_data_dir=folder, streaming=streaming)
    rows, columns = load_rows(given)
    assert [(Path(row["image"]["path"]).name, row["text"]) for row in rows] == [
        *(("a.jpg", "the image a: café"), ("b.png", "the image b: café"), ("c.png", "the image in/c: café"), ("untold.png", None)),
    ]
    assert [*load_captions(replace(given, max_train_samples=2))[0]] == ["the image a: café", "the image b: café"]
    reader = RowReader(columns, ImageSettings(16), None)
    found = [row for row in rows if row["text"]]
    assert reader.pyramid(found[0], "a").captions == ("the image a: café",)
    with pytest.raises(ValueError, match="untold.png: it has no caption"):
        reader.pyramid([*rows][-1], "untold")
    with pytest.raises(ValueError, match='caption_column is "caption"; the columns are image, text'):
        load_rows(replace(given, caption_column="caption"))
    (folder / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "listed"}')  # then the list alone is read
    assert [*load_captions(replace(given, cache_dir=tmp_path / "cache"))[0]] == ["listed"]
    (folder / "metadata.jsonl").unlink()
    (folder / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"a\.txt cannot be read"):
        load_rows(given)


@pytest.mark.parametrize(
    "name, lines, said",
    [
        (
            "metadata.jsonl",
            b'{"file_name": "0.png", "text": "a"}\n{"file_name": "1.png", "te\n',
            r"line 2 of %s cannot be read \(Unterminated",
        ),
        ("metadata.jsonl", b'{"file_name": "0.png", "text": "a"}\n["1.png"]\n', r"line 2 of %s cannot be read \(it is no object"),
        ("metadata.csv", b"file_name,text\n0.png,a\n1.png,a, b\n", r"%s cannot be read \(.* in line 3, saw 3\)"),
        ("metadata.csv", b"file_name,text\n0.png,a, b\n1.png,a\n", r"%s cannot be read \(lines have more fields than file_name, text"),
        ("metadata.csv", b'file_name,text\n0.png,"a\n1.png,a\n', r"%s cannot be read \(.*EOF inside string starting at row 1\)"),
        ("metadata.csv", b"file_name,text\n0.png,a\n1.png,\xe9\n", r"line 3 of %s cannot be read \('utf-8' codec"),
    ],
)
def test_a_broken_list_of_images_is_named(tmp_path, name, lines, said) -> None:
    for part in ("a", "b"):
        folder_of(tmp_path / part, {f"{i}.png": encoded(noise_image(16, 16)) for i in range(2)}, {})
    (tmp_path / "b" / "metadata.jsonl").unlink()
    (tmp_path / "b" / name).write_bytes(lines)
    for streaming in (False, True):
        with pytest.raises(ValueError, match=f"{said % f'.*b/{name}'}.*; write it anew"):
            load_rows(DataSettings(train_data_dir=tmp_path, streaming=streaming, cache_dir=tmp_path / "cache"))


def test_lists_that_are_not_read_may_be_broken(tmp_path) -> None:
    folder = folder_of(tmp_path / "images", {"0.png": encoded(noise_image(16, 16))}, {"0.png": "a cube"})
    for hidden in (".ipynb_checkpoints", "__MACOSX"):
        (folder / hidden).mkdir()
        (folder / hidden / "metadata.jsonl").write_text("{")
    assert [*load_captions(DataSettings(train_data_dir=folder, streaming=True))[0]] == ["a cube"]


def test_of_several_captions_each_visit_takes_one_at_random(tmp_path) -> None:
    several = {"0.png": ["a cube", "a red cube"], "1.png": [], "2.png": ["", " "], "3.png": ["one", " "]}
    images = {name: encoded(noise_image(24, 24, int(name[0]))) for name in several}
    given = ImageSettings(16, crop_size=8, random_flip=True)
    data = DataSettings(train_data_dir=folder_of(tmp_path / "lists", images, several), cache_dir=tmp_path / "cache")
    listed = ImageDataset(*load_rows(data), given)
    single = ImageDataset(listed.rows, replace(listed.reader.columns, caption=None), given, prompt="a")
    seen = [listed.visit(0, n) for n in range(12)]
    assert {e["prompt"] for e in seen} == {"a cube", "a red cube"}
    assert all(torch.equal(e["pixel_values"], single.visit(0, n)["pixel_values"]) for n, e in enumerate(seen))
    assert [listed.visit(0, n)["prompt"] for n in range(12)] == [e["prompt"] for e in seen]
    assert [listed.first(index)["prompt"] for index in listed.usable()] == ["a cube", "one"]
    assert [line.split(": ")[1] for line in listed.unusable] == [f"it has no caption (text is {text})" for text in ([], ["", " "])]
    captions, count = load_captions(data)
    assert [*captions] == ["a cube", "a red cube", "one"] and count is None
    cached = ImageDataset(listed.rows, listed.reader.columns, given, embed=lambda caption: torch.full((1, 2), len(caption)))
    assert [len(e["prompt"]) for e in seen] == [int(cached.visit(0, n)["prompt_embeds"][0, 0]) for n in range(12)]
    stream = iter(ImageStream(*load_rows(replace(data, streaming=True)), given))
    assert {next(stream)["prompt"] for _ in range(24)} == {"a cube", "a red cube", "one"}


@pytest.mark.parametrize("captioned", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        ["vase_train_1.png", "vase2.png", "vase3.png"],
        ["a.png", "crash-test.png"],
        ["train.png", "val.png", "test.png"],
        ["train/a.png", "extra/b.png", "d.png"],
        ["validation/a.png", "test/b.png", "extra/c.png", "d.png"],
    ],
)
def test_names_of_files_and_folders_are_no_splits(tmp_path, names, captioned) -> None:
    images = {name: encoded(noise_image(20, 20, i)) for i, name in enumerate(names)}
    folder = folder_of(tmp_path / "images", images, {name: f"image {name}" for name in names} if captioned else None)
    for streaming in (False, True):
        data = DataSettings(train_data_dir=folder, cache_dir=tmp_path / "cache", streaming=streaming)
        rows, columns = load_rows(data, captions=captioned)
        read = list(rows)
        assert sorted(row["image"]["path"] for row in read) == sorted(str(folder / name) for name in names)
        if captioned:
            assert all(row[columns.caption].endswith(row["image"]["path"].removeprefix(f"{folder}/")) for row in read)


def parts_of(path, *parts: str):
    """A folder with a sub-folder for each part, which holds an image and its caption."""
    path.mkdir()
    for i, part in enumerate(parts):
        folder_of(path / part, {"a.png": encoded(noise_image(20, 20, i))}, {"a.png": part})
    return path


@pytest.mark.parametrize("streaming", [False, True])
def test_of_a_folder_for_training_and_one_for_validation_the_first_is_read(tmp_path, streaming) -> None:
    for name, parts in (("one", ("train", "validation")), ("two", ("Test", "Training", "val"))):
        folder = parts_of(tmp_path / name, *parts)
        (folder / "._a.png").write_bytes(b"of macOS, and hidden")
        data = DataSettings(train_data_dir=folder, cache_dir=tmp_path / "cache", streaming=streaming)
        rows, columns = load_rows(data)
        assert [row[columns.caption].lower() for row in rows] == ["train" if name == "one" else "training"]
    everything = DataSettings(
        train_data_dir=parts_of(tmp_path / "three", "train", "more"), cache_dir=tmp_path / "cache", streaming=streaming
    )
    assert sorted(row["text"] for row in load_rows(everything)[0]) == ["more", "train"]


def test_shards_in_folders_in_the_folder_are_read_as_images_are(tmp_path) -> None:
    tar(tmp_path / "deep" / "a" / "0.tar", [noise_image(20, 20)] * 2)
    tar(tmp_path / "deep" / ".cache" / "1.tar", [noise_image(20, 20)])
    (tmp_path / "deep" / "a" / "._0.tar").write_bytes(b"of macOS")
    for folder in ("deep", "deep/a"):
        rows, _ = load_rows(DataSettings(train_data_dir=tmp_path / folder, streaming=True))
        assert len(list(rows)) == 2
    for part, count in (("train", 1), ("test", 2)):
        (tmp_path / "parts" / part).mkdir(parents=True)
        parquet(tmp_path / "parts" / part / "0.parquet", [noise_image(20, 20)] * count)
    rows, _ = load_rows(DataSettings(train_data_dir=tmp_path / "parts", cache_dir=tmp_path / "cache"))
    assert len(rows) == 1
    beside = folder_of(tmp_path / "beside", {"a.png": encoded(noise_image(20, 20))})
    tar(beside / "old" / "0.tar", [noise_image(20, 20)] * 2)
    assert len(load_rows(DataSettings(train_data_dir=beside, cache_dir=tmp_path / "cache"), captions=False)[0]) == 1
    packed = folder_of(tmp_path / "packed", {"0.tar.gz": b""})
    with pytest.raises(ValueError, match=r"no images in .*packed; .* shards of WebDataset \(\.tar, not compressed\), in it or in"):
        load_rows(DataSettings(train_data_dir=packed))


def test_a_folder_that_is_divided_in_part_is_refused(tmp_path) -> None:
    extra = parts_of(tmp_path / "extra", "train", "validation", "more")
    with pytest.raises(ValueError, match=r"holds train and validation, .*beside them more: give train_data_dir=.*extra.train, with"):
        load_rows(DataSettings(train_data_dir=extra))
    images = {name: encoded(noise_image(20, 20)) for name in ("train/a.png", "test/b.png")}
    told_together = folder_of(tmp_path / "together", images, dict.fromkeys(images, "a cube"))
    with pytest.raises(ValueError, match=r"beside them metadata\.jsonl: give .* with a metadata\.jsonl of its own"):
        load_rows(DataSettings(train_data_dir=told_together))
    with pytest.raises(ValueError, match="beside them training: give"):
        load_rows(DataSettings(train_data_dir=parts_of(tmp_path / "twice", "train", "training", "dev")))


def test_a_folder_may_have_any_name(tmp_path) -> None:
    folder = folder_of(tmp_path / "new [1] *", {"a[b].png": encoded(noise_image(20, 20))})
    rows, _ = load_rows(DataSettings(train_data_dir=folder, cache_dir=tmp_path / "cache"), captions=False)
    assert len(rows) == 1


def parquet(path, images: list[Image.Image]):
    import datasets

    rows = {"image": images, "caption": [f"image {i}" for i in range(len(images))], "width": [24] * len(images)}
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string"), "width": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def tar(path, images: list[Image.Image], kinds=lambda i: "PNG", more: dict[int, dict[str, bytes]] | None = None):
    """A shard of images, each with its caption; `kinds` and `more` files may differ from row to row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for i, image in enumerate(images):
            parts = {f".{kinds(i).lower()}": encoded(image, kinds(i)), ".txt": f"image {i}".encode(), **(more or {}).get(i, {})}
            for suffix, data in parts.items():
                info = tarfile.TarInfo(f"{i:04d}{suffix}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("kind", ["folder", "parquet", "tar"])
@pytest.mark.parametrize("streaming", [False, True])
def test_every_layout_gives_the_same_examples(tmp_path, kind, streaming) -> None:
    images = [noise_image(24, 24, i) for i in range(4)]
    place = tmp_path / "set"
    place.mkdir()
    if kind == "folder":
        names = {f"{i}.png": encoded(p) for i, p in enumerate(images)}
        folder_of(place, names, {n: f"image {n[0]}" for n in names})
    else:
        {"parquet": parquet, "tar": tar}[kind](place / f"part.{kind}", images)
    rows, columns = load_rows(DataSettings(train_data_dir=place, streaming=streaming, cache_dir=tmp_path / "cache"))
    assert rows.column_names == [columns.image, *columns.others, columns.caption]  # others' types may change, and nobody reads them
    given = rows, columns, ImageSettings(resolution=16)
    stream = iter(ImageStream(*given))
    examples = [next(stream) for _ in range(4)] if streaming else [ImageDataset(*given)[i] for i in range(4)]
    for i, example in enumerate(examples):
        assert example["prompt"] == f"image {i}"
        assert torch.equal(example["pixel_values"], build_pyramid(images[i], ImageSettings(16))[0])


@pytest.fixture
def shards(tmp_path):
    """Three tar shards and two Parquet files of two images each."""
    for i in range(3):
        tar(tmp_path / "shards" / f"{i:02d}.tar", [noise_image(20, 20, i)] * 2)
    for i in range(2):
        parquet(tmp_path / "shards" / f"{i}.parquet", [noise_image(20, 20, i)] * 2)
    return tmp_path / "shards"


def of_files(shards, *names: str, **more: Any) -> int:
    """How many rows these files hold, once in whole and once as a stream."""
    data = DataSettings(data_files=list(names), cache_dir=shards / "cache", **more)
    whole, stream = (list(load_rows(replace(data, streaming=streaming))[0]) for streaming in (False, True))
    assert [row[column] for row in whole for column in row] == [row[column] for row in stream for column in row]
    return len(whole)


def test_shards_are_named_by_paths_globs_numbers_and_urls(shards, monkeypatch) -> None:
    import fsspec

    assert of_files(shards, f"{shards}/*.tar") == 6
    assert of_files(shards, f"{shards}/01.tar", f"{shards}/00.tar") == 4
    assert of_files(shards, f"{shards}/0{{1..2}}.tar") == of_files(shards, f"{shards}/{{00..01}}.tar") == 4
    assert of_files(shards, f"{shards}/?.parquet") == 4
    monkeypatch.chdir(shards)
    assert of_files(shards, "*.tar") == 6
    fsspec.filesystem("memory").pipe("/bucket/0.tar", (shards / "00.tar").read_bytes())
    assert of_files(shards, "memory://bucket/*.tar") == 2
    shutil.copy(shards / "00.tar", shards / "packed")
    assert of_files(shards, "packed", dataset_name="webdataset") == 2
    assert of_files(shards, "0.parquet", dataset_name="parquet") == 2
    for name in ("a[1].tar", "{00..01}.tar"):
        odd = shards / f"{name[0]}[1] {{1..2}}"
        odd.mkdir()
        shutil.copy(shards / "00.tar", odd / name)
        assert of_files(shards, f"{odd}/{name}") == 2
        assert len(list(load_rows(DataSettings(train_data_dir=odd, streaming=True))[0])) == 2
    parquet(shards / "0.parquet", [noise_image(20, 20)] * 3)
    assert of_files(shards, "?.parquet") == 5  # and nothing that is cached of the file as it was


def test_shards_are_read_from_a_server(shards) -> None:
    pytest.importorskip("aiohttp")
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=shards)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        assert of_files(shards, f"{place}/{{00..02}}.tar?token=1") == 6
        assert of_files(shards, f"{place}/0.parquet", f"{place}/1.parquet") == 4
        with pytest.raises(ValueError, match=rf"no file matches {place}/9.tar"):
            of_files(shards, f"{place}/9.tar")
        server.shutdown()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["{}/*.tar", "{}/x*.tar"], r"data_files: no file matches .*x\*\.tar"),
        (["{}/9.tar"], r"no file matches .*9\.tar"),
        (
            ["{}/00.tar", "{}/0.parquet"],
            r"data_files are .*00\.tar, .*0\.parquet; give Parquet files .* all of one kind, or say with dataset_name",
        ),
        (["{}/00.tar.gz"], r"data_files are .*00\.tar\.gz; give"),
        ([], r"data_files is \[\]; give a list"),
        ("00.tar", r"data_files is '00\.tar'; give a list"),
    ],
)
def test_files_that_are_not_there_or_of_two_kinds_are_refused(shards, names, words) -> None:
    (shards / "00.tar.gz").touch()
    with pytest.raises(ValueError, match=words):
        load_rows(DataSettings(data_files=names if isinstance(names, str) else [name.format(shards) for name in names]))
    with pytest.raises(ValueError, match="exactly one of train_data_dir, dataset_name and data_files, which may also be"):
        DataSettings(train_data_dir=shards, data_files=["0.tar"])


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_tar_shards_may_have_other_kinds_of_images_and_other_metadata(tmp_path, streaming) -> None:
    images = [noise_image(24, 24, i) for i in range(7)]
    told = {i: {".json": json.dumps({"width": i if i < 6 else "unknown"}).encode()} for i in range(7)}
    tar(tmp_path / "set" / "0.tar", images, lambda i: "PNG" if i % 2 else "WEBP", told)
    tar(tmp_path / "set" / "1.tar", images[1:], lambda i: "JPEG")  # of which the first shard has none
    with tarfile.open(tmp_path / "set" / "1.tar", "a") as file:
        for suffix, content in {"JPG": encoded(images[0], "JPEG"), "txt": b"image 6"}.items():
            info = tarfile.TarInfo(f"0006.{suffix}")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    data = DataSettings(train_data_dir=tmp_path / "set", streaming=streaming, cache_dir=tmp_path / "cache")
    rows, columns = load_rows(data)
    read = list(rows)
    assert [columns.image_of(row)["path"][-4:] for row in read] == ["webp", ".png"] * 3 + ["webp"] + ["jpeg"] * 6 + [".JPG"]
    reader = RowReader(columns, ImageSettings(16), None)
    assert [reader.pyramid(row, "").captions[0] for row in read] == [f"image {i}" for i in range(7)] * 2
    with pytest.raises(ValueError, match='image_column is "bmp"; the columns are webp, txt, png'):
        load_rows(replace(data, image_column="bmp"))


@pytest.mark.parametrize("streaming", [False, True])
def test_tar_shards_may_have_a_text_in_one_row_and_several_in_another(tmp_path, streaming, caplog) -> None:
    """Which `datasets` would write as one, with brackets."""
    texts = {"lists": ["one", ["two", "zwei"], "three"], "texts": ["one"] * LOOKED_AT + [["two"], "three"]}
    read = {"lists": [["one"], ["two", "zwei"], ["three"]], "texts": ["one"] * LOOKED_AT + [None, "three"]}
    for name, given in texts.items():
        images = [noise_image(8, 8)] * len(given)
        more = {i: {".json": json.dumps(text).encode(), ".txt": b""} for i, text in enumerate(given)}
        tar(tmp_path / name / "0.tar", images, more=more)
        rows, columns = load_rows(
            DataSettings(train_data_dir=tmp_path / name, caption_column="json", streaming=streaming, cache_dir=tmp_path / "cache")
        )
        assert [row[columns.caption] for row in rows] == read[name]
    assert caplog.text.count("it is a list, and the first rows of the first shard have texts") == 1


@pytest.mark.parametrize("streaming", [False, True])
def test_a_text_that_cannot_be_decoded_costs_a_tar_shard_one_row_at_most(tmp_path, streaming, caplog) -> None:
    more = {0: {".json": b"{bad", ".npy": b"junk"}, 2: {".txt": b"a caf\xe9"}, 3: {".json": b"{}"}}
    for part in ("0", "1"):
        tar(tmp_path / "set" / f"{part}.tar", [noise_image(24, 24, i) for i in range(5)], more=more)
    rows, columns = load_rows(DataSettings(train_data_dir=tmp_path / "set", streaming=streaming, cache_dir=tmp_path / "cache"))
    assert [row[columns.caption] for row in rows] == ["image 0", "image 1", None, "image 3", "image 4"] * 2
    assert caplog.text.count(": a text in it cannot be decoded (0002.txt: 'utf-8' codec can't decode") == 2
    assert not columns.told.damage()


def test_a_stream_resumes_and_is_shared_like_a_set(five) -> None:
    rows, columns = load_rows(DataSettings(train_data_dir=five, streaming=True))
    stream = ImageStream(rows, columns, ImageSettings(16, crop_size=8), shuffle_buffer=3)

    def take(share: Share, start: int, count: int):
        examples = iter(stream.at(share, start))
        return [next(examples) for _ in range(count)]

    whole = take(Share(4), 0, 16)
    assert [e["prompt"][-1] for e in whole[:5]].count("1") == 0  # the one cut short
    for one, two in zip(whole[8:], take(Share(4), 2, 8), strict=True):
        assert one["prompt"] == two["prompt"]
        assert torch.equal(one["pixel_values"], two["pixel_values"])
    parts = [take(Share(2, processes=2, rank=rank), 0, 8) for rank in (0, 1)]
    together = [parts[rank][2 * step + i] for step in range(4) for rank in (0, 1) for i in (0, 1)]
    assert all(torch.equal(a["pixel_values"], b["pixel_values"]) for a, b in zip(whole, together, strict=True))


def test_a_pyramid_is_antialiased_and_its_levels_agree() -> None:
    fine = np.zeros((256, 256, 3), np.uint8)
    fine[::2] = 255  # stripes far too fine for 32 pixels must become gray, not stripes
    big, small = build_pyramid(Image.fromarray(fine), ImageSettings(64, low_res_scale=4))
    assert big.shape == (3, 64, 64)
    assert small.shape == (3, 16, 16)
    for level in (big, small):
        inner = level[:, 2:-2, 2:-2].float()
        assert (inner - 127.5).abs().max() < 2
    smooth = noise_image(4, 4).resize((256, 256), Image.Resampling.BICUBIC)
    big, small = build_pyramid(smooth, ImageSettings(64, low_res_scale=4))
    again = Image.fromarray(big.permute(1, 2, 0).numpy()).resize((16, 16), Image.Resampling.BICUBIC)
    assert (torch.from_numpy(np.array(again)).permute(2, 0, 1).float() - small.float()).abs().max() <= 2  # rounding, twice


def test_a_side_that_floating_point_makes_longer_is_read_whole() -> None:
    (level,) = build_pyramid(noise_image(58, 75), ImageSettings(64, aspect_buckets=True))  # 56 * (58 / 56) is more than 58
    assert level.shape == (3, 72, 56)


@pytest.mark.parametrize("center", [False, True])
def test_windows_are_the_same_in_both_sizes(center) -> None:
    settings = ImageSettings(64, low_res_scale=4, crop_size=32, center_crop=center, random_flip=True)
    small = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, 16, 16)
    big = small.repeat_interleave(4, 1).repeat_interleave(4, 2)
    seen = set()
    for seed in range(20):
        window, low = cut([big, small], settings, np.random.default_rng(seed))
        assert window.shape == (3, 32, 32)
        assert torch.equal(window[:, ::4, ::4], low)
        seen.add(int(low[0, 0, 0]))
    assert len(seen) == 2 if center else len(seen) > 5


def test_windows_differ_from_pass_to_pass_and_repeat_with_the_seed(tmp_path) -> None:
    folder = folder_of(tmp_path / "one", {"a.png": encoded(noise_image(32, 32))}, {"a.png": "a"})
    one, two = dataset(folder, crop_size=8), dataset(folder, crop_size=8)
    assert torch.equal(one.visit(0, 3)["pixel_values"], two.visit(0, 3)["pixel_values"])
    assert len({one.visit(0, n)["pixel_values"].numpy().tobytes() for n in range(6)}) > 3


def test_aspect_buckets_keep_the_shape_and_about_the_area(tmp_path) -> None:
    settings = ImageSettings(64, aspect_buckets=True, stride=8)
    assert (64, 64) in settings.shapes
    for height, width in settings.shapes:
        assert height % 8 == width % 8 == 0
        assert 0.8 < height * width / 64**2 < 1.25
    assert settings.shapes[nearest_shape((300, 200), settings.shapes)] == (80, 48)
    images = {"wide.png": encoded(noise_image(300, 200)), "tall.png": encoded(noise_image(200, 300))}
    wide_and_tall = dataset(folder_of(tmp_path / "two", images, dict.fromkeys(images, "a")), aspect_buckets=True)
    shapes = wide_and_tall.reader.settings.shapes
    for i, bucket in enumerate(wide_and_tall.buckets()):
        assert tuple(wide_and_tall[i]["pixel_values"].shape[1:]) == shapes[bucket]
    assert dataset(tmp_path / "two").buckets() is None


@pytest.mark.parametrize("center", [False, True])
def test_windows_are_cut_from_images_of_every_shape(tmp_path, center) -> None:
    images = {"wide.png": encoded(noise_image(140, 70)), "tall.png": encoded(noise_image(70, 140))}
    folder = folder_of(tmp_path / "two", images, dict.fromkeys(images, "a"))
    found = dataset(folder, crop_size=8, aspect_buckets=True, center_crop=center, low_res_scale=4)
    assert found.buckets() is None
    for i in (0, 1):
        assert found[i]["pixel_values"].shape == (3, 8, 8)
        assert found[i]["low_res"].shape == (3, 2, 2)


def test_transparency_falls_on_white_and_cameras_turns_are_undone() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert decode(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)
    turned = noise_image(8, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=exif)
    assert decode(buffer.getvalue()).size == (4, 8)
    with pytest.raises(UnusableError, match="cannot be read"):
        decode(b"")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resolution": 60}, "resolution is 60"),
        ({"resolution": 64, "crop_size": 128}, "larger"),
        ({"resolution": 64, "crop_size": 20}, "crop_size is 20"),
        ({"resolution": 64, "crop_size": 0}, "crop_size is 0"),
        (
            {"resolution": 64, "crop_size": 64, "aspect_buckets": True},
            "the shortest side of the shapes of aspect_buckets is 48; use at most",
        ),
    ],
)
def test_sizes_that_do_not_fit_the_stage_are_refused(changes, words) -> None:
    with pytest.raises(ValueError, match=words):
        ImageSettings(**changes)


def test_what_reads_images_is_named_where_it_is_missing(tmp_path, monkeypatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r'pip install "imagen_diffusers\[train\]"'):
        load_rows(DataSettings(train_data_dir=tmp_path))
