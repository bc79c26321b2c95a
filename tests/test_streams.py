"""Streams in parts: nobody reads another's rows, a resumed run goes on where it was, and several workers read side by side."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imagen_diffusers.training import sharded_stream
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.exact_stream import ImageStream
from imagen_diffusers.training.loaders import Batches, first_usable
from imagen_diffusers.training.order import Share
from imagen_diffusers.training.pyramid import ImageSettings
from imagen_diffusers.training.reading import RowReader
from imagen_diffusers.training.rows import load_captions, load_rows
from imagen_diffusers.training.run_settings import TrainSettings
from imagen_diffusers.training.sharded_stream import ShardedStream

from .conftest import make_base
from .test_data import encoded, folder_of, noise_image, tar
from .test_training import Squares, assert_same_state, fit

FILES, ROWS = 4, 10
SLOW_TAR = pytest.param("tar", 2, marks=pytest.mark.slow)
DAMAGED_WORKERS = pytest.param("tar", 13000, 2, marks=pytest.mark.slow)


def write_files(folder: Path, kind: str, size=lambda i: (20, 20)) -> Path:
    """Forty images whose first pixel is their number, in four files or one folder."""
    import datasets

    folder.mkdir()
    images = []
    for i in range(FILES * ROWS):
        pixels = np.array(noise_image(*size(i), seed=i))
        images.append(Image.fromarray(pixels))
    if kind == "folder":
        names = {f"{i:02d}.png": encoded(image) for i, image in enumerate(images)}
        return folder_of(folder, names, {name: f"image {int(name[:2])}" for name in names})
    for part in range(FILES):
        own = images[part * ROWS : (part + 1) * ROWS]
        if kind == "tar":
            tar(folder / f"part-{part}.tar", own)
        else:
            features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
            rows = {"image": own, "caption": [f"image {part * ROWS + i}" for i in range(ROWS)]}
            datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"part-{part}.parquet")
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return write_files(tmp_path_factory.mktemp("streams") / "parquet", "parquet")


def stream_of(folder: Path, shuffle_buffer: int = 0, most: int | None = None, **changes) -> ShardedStream:
    rows, columns = load_rows(DataSettings(train_data_dir=folder, streaming=True, max_train_samples=most))
    return ShardedStream(rows, columns, ImageSettings(16, stride=4, **changes), seed=3, shuffle_buffer=shuffle_buffer)


def batches(stream, share: Share, workers: int = 0, **given) -> Batches:
    train = TrainSettings(output_dir=Path("nowhere"), max_train_steps=1, dataloader_num_workers=workers)
    return Batches(stream, share, train, **given)


def take(given: Batches, count: int) -> list:
    found = given.from_step(0)
    return [next(found) for _ in range(count)]


@pytest.mark.parametrize("pinned", [False, True])
def test_all_loaders_are_told_of_pinned_memory(files, monkeypatch, pinned) -> None:
    told = []
    monkeypatch.setattr(
        "imagen_diffusers.training.loaders.DataLoader", lambda *_, **given: told.append(given["pin_memory"]) or iter([None])
    )
    for data in (stream_of(files), Squares()):
        list(batches(data, Share(2), pinned=pinned).from_step(0))
    assert told == [pinned] * 2


def numbers(found: list) -> list[int]:
    return [int(prompt.split()[1]) for batch in found for prompt in batch["prompt"]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("buffer", [0, 7])
def test_processes_and_workers_together_read_each_row_once(files, workers, buffer) -> None:
    parts = [numbers(take(batches(stream_of(files, buffer), Share(2, 2, rank), workers), 10)) for rank in (0, 1)]
    # Two files of ten a process; with a buffer a block of eight, then one of two.
    assert sorted(parts[0] + parts[1]) == list(range(FILES * ROWS))
    if not buffer and not workers:
        assert parts[0] == [*range(10), *range(20, 30)]


@pytest.mark.parametrize("buffer", [0, 7])
def test_the_first_rows_of_a_stream_are_divided_among_its_readers(files, buffer) -> None:
    def rows_of(*shares: Share) -> list[set[int]]:
        return [set(numbers(take(batches(stream_of(files, buffer, most=6), share), 12))) for share in shares]  # two passes, or four

    assert rows_of(Share(1)) == [{0, 1, 2, 3, 4, 5}]
    assert rows_of(Share(1, 2, 0), Share(1, 2, 1)) == [{0, 1, 2}, {10, 11, 12}]
    rows, columns = load_rows(DataSettings(train_data_dir=files, streaming=True, max_train_samples=6))
    exact = batches(ImageStream(rows, columns, ImageSettings(16, stride=4), shuffle_buffer=buffer), Share(1, 2, 1))
    assert set(numbers(take(exact, 6))) <= {0, 1, 2, 3, 4, 5}


def test_files_that_processes_cannot_divide_are_told_of_once(files, tmp_path, caplog) -> None:
    stream = stream_of(files)
    parts = [batches(stream, Share(2, 3, rank)) for rank in range(3)]
    assert [numbers(take(part, 2)) for part in parts] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert (
        caplog.text.count("4 files, which 3 processes cannot divide among themselves: each reads all of them and keeps one row in 3. Write")
        == 1
    )
    images = stream_of(numbered(tmp_path / "folder", 4))
    for part in (batches(images, Share(2, 3)), batches(stream, Share(2, 2))):
        take(part, 1)
    assert caplog.text.count("cannot divide") == 1


def test_no_process_reads_the_files_of_another(tmp_path) -> None:
    folder = write_files(tmp_path / "parquet", "parquet")
    stream = stream_of(folder)
    for part in (0, 2):
        (folder / f"part-{part}.parquet").unlink()
    assert numbers(take(batches(stream, Share(2, 2, 1)), 10)) == [*range(10, 20), *range(30, 40)]
    with pytest.raises(FileNotFoundError):
        take(batches(stream, Share(2, 2, 0)), 1)


@pytest.mark.parametrize(("kind", "workers"), [("parquet", 0), ("tar", 0), ("folder", 0), ("parquet", 2), SLOW_TAR])
@pytest.mark.parametrize("changes", [{"shuffle_buffer": 6, "random_flip": True}, {"shuffle_buffer": 12, "aspect_buckets": True}, {}])
def test_a_stream_goes_on_where_it_was(tmp_path, kind, workers, changes) -> None:
    folder = write_files(tmp_path / kind, kind, lambda i: [(20, 20), (40, 20), (20, 40)][i % 3])
    share = Share(2, 2, 1)
    whole = batches(stream_of(folder, **changes), share, workers)
    found = take(whole, 31)  # into the fourth pass
    for stop in (6, 17) if workers else (1, 6, 17, 20):  # workers take long to start
        first = batches(stream_of(folder, **changes), share, workers)
        take(first, stop)
        again = batches(stream_of(folder, **changes), share, workers)
        again.load_state_dict([first.state_dict()] * 2)
        for one, two in zip(found[stop : stop + 5], take(again, 5), strict=True):
            assert one["prompt"] == two["prompt"]
            assert torch.equal(one["pixel_values"], two["pixel_values"])


def test_a_resume_reads_one_block_again_and_no_more(files, monkeypatch) -> None:
    decoded = []
    pyramid = RowReader.pyramid
    monkeypatch.setattr(RowReader, "pyramid", lambda self, row, *args: decoded.append(row["caption"]) or pyramid(self, row, *args))
    first = batches(stream_of(files), Share(2))
    take(first, 15)
    seen = len(decoded)
    again = batches(stream_of(files), Share(2))
    again.load_state_dict([first.state_dict()])
    take(again, 1)
    assert decoded[seen:] == ["image 30", "image 31"]


def test_passes_and_seeds_differ(files) -> None:
    found = numbers(take(batches(stream_of(files, 40), Share(4)), 20))
    assert sorted(found[:40]) == sorted(found[40:]) == list(range(40))
    assert found[:40] != found[40:]


def test_batches_hold_one_shape(tmp_path, caplog) -> None:
    folder = write_files(tmp_path / "shapes", "parquet", lambda i: [(20, 20), (40, 20), (20, 40)][i % 3])
    found = take(batches(stream_of(folder, 40, aspect_buckets=True), Share(4)), 12)
    assert {tuple(b["pixel_values"].shape[2:]) for b in found} == {(16, 16), (12, 24), (24, 12)}
    assert set(numbers(found)) == set(range(40))
    assert caplog.text.count("repeats") == caplog.text.count("of the first 48 examples 8 are repeats. A shuffle_buffer larger than 40") == 1
    rows, columns = load_rows(DataSettings(train_data_dir=folder, streaming=True))
    with pytest.raises(ValueError, match="leave it or aspect_buckets out"):
        ImageStream(rows, columns, ImageSettings(16, stride=4, aspect_buckets=True))


def test_a_shape_of_which_no_image_can_be_used_is_left_out_of_its_block(tmp_path) -> None:
    names = {f"{i}.png": encoded(noise_image(12, 24, i)) for i in range(12)}
    names["7.png"] = encoded(noise_image(24, 12))[:300]  # the header tells of another shape
    folder = folder_of(tmp_path / "tall", names, {name: f"image {name.split('.')[0]}" for name in names})
    found = take(batches(stream_of(folder, 12, aspect_buckets=True), Share(2)), 24)
    assert set(numbers(found)) == {*range(12)} - {7}
    assert told_of(found) == {str(folder / "7.png")}


@pytest.mark.thorough
def test_a_run_on_a_stream_resumes_bit_for_bit(files, tmp_path) -> None:
    given = {"dataloader_num_workers": 2, "checkpointing_steps": 3, "train_batch_size": 3}
    fit(tmp_path / "one", 6, unet=make_base(), dataset=stream_of(files, 8), **given)
    (tmp_path / "one" / "checkpoint-6").rename(tmp_path / "whole")
    fit(tmp_path / "one", 6, unet=make_base(), dataset=stream_of(files, 8), **given)
    assert_same_state(tmp_path / "whole", tmp_path / "one" / "checkpoint-6")
    assert (tmp_path / "whole" / "stream.json").read_text() == (tmp_path / "one" / "checkpoint-6" / "stream.json").read_text()


@pytest.mark.thorough
def test_a_run_that_was_read_otherwise_is_refused(files, tmp_path) -> None:
    rows, columns = load_rows(DataSettings(train_data_dir=files, streaming=True))
    exact = ImageStream(rows, columns, ImageSettings(16, stride=4))
    fit(tmp_path / "exact", 1, dataset=exact)
    with pytest.raises(ValueError, match="set exact_stream, for a stream"):
        fit(tmp_path / "exact", 2, dataset=stream_of(files))
    fit(tmp_path / "exact", 2, dataset=exact)
    fit(tmp_path / "parts", 1, dataset=stream_of(files))
    with pytest.raises(ValueError, match="leave exact_stream out"):
        fit(tmp_path / "parts", 2, dataset=exact)
    with pytest.raises(ValueError, match="read by 1 workers, and now there are 2; set dataloader_num_workers to 1"):
        fit(tmp_path / "parts", 2, dataset=stream_of(files), dataloader_num_workers=2)
    states = [batches(stream_of(files), Share(2)).state_dict()]
    with pytest.raises(ValueError, match="read by 1 processes, and now there are 2"):
        batches(stream_of(files), Share(2, 2, 0)).load_state_dict(states)
    with pytest.raises(ValueError, match="was read with shuffle_buffer=0, and now it is 8: where the run was in it is not known then"):
        batches(stream_of(files, 8), Share(2)).load_state_dict(states)
    with pytest.raises(ValueError, match="read with train_batch_size=2, and now it is 4"):
        batches(stream_of(files), Share(4)).load_state_dict(states)
    (tmp_path / "more").mkdir()
    for name in [*(path.name for path in files.iterdir()), "part-4.parquet"]:
        shutil.copy(files / name.replace("4", "0"), tmp_path / "more" / name)
    with pytest.raises(ValueError, match="read with files=4, and now it is 5"):
        batches(stream_of(tmp_path / "more"), Share(2)).load_state_dict(states)


def test_shards_that_are_others_than_before_are_told_of(tmp_path, caplog) -> None:
    folder, share = write_files(tmp_path / "parquet", "parquet"), Share(2)
    states = [batches(stream_of(folder), share).state_dict()]
    again = folder.rename(tmp_path / "moved")
    (again / "part-1.parquet").touch()
    batches(stream_of(again), share).load_state_dict(states)
    assert not caplog.text
    (again / "part-1.parquet").rename(again / "part-9.parquet")
    batches(stream_of(again), share).load_state_dict(states)
    assert caplog.text.count("the shards are others than those that the checkpoint's run read, by their names or sizes") == 1
    (again / "part-9.parquet").rename(again / "part-1.parquet")
    shutil.copy(write_files(tmp_path / "larger", "parquet", lambda i: (24, 24)) / "part-1.parquet", again)
    batches(stream_of(again), share).load_state_dict(states)
    assert caplog.text.count("the shards are others") == 2


def test_more_workers_than_files_are_as_many_as_files(files) -> None:
    assert len(batches(stream_of(files), Share(2, 2, 0), workers=5).state_dict()["places"]) == 2


def test_images_that_cannot_be_used_are_passed_over_and_an_empty_stream_is_refused(tmp_path) -> None:
    names = {f"{i}.png": encoded(noise_image(20, 20, i)) for i in range(6)}
    names["2.png"] = names["2.png"][:100]
    folder = folder_of(tmp_path / "folder", names, {name: f"image {name[0]}" for name in names})
    found = take(batches(stream_of(folder), Share(2)), 3)
    assert numbers(found) == [0, 1, 3, 4, 5, 0]
    assert "2.png: it cannot be read" in "".join(found[1]["skipped"])
    with pytest.raises(ValueError, match="stream is empty, or has fewer images than there are processes"):
        take(batches(stream_of(folder), Share(2, 8, 7)), 1)


@pytest.mark.parametrize("changes", [{}, {"shuffle_buffer": 12}, {"shuffle_buffer": 12, "aspect_buckets": True}])
def test_each_usable_image_comes_once_a_pass_however_few_they_are(tmp_path, changes) -> None:
    names = {f"{i}.png": encoded(noise_image(20, 20, i) if i % 4 == 1 else noise_image(8, 8, i)) for i in range(36)}
    folder = folder_of(tmp_path / "small", names, {name: f"image {name.split('.')[0]}" for name in names})
    found = take(batches(stream_of(folder, **changes), Share(3)), 9)
    usable = list(range(1, 36, 4))
    assert all(sorted(numbers(found[i : i + 3])) == usable for i in (0, 3, 6))
    assert len({line for batch in found for line in batch["skipped"]}) == 27
    for stop in range(1, 6):
        first, again = (batches(stream_of(folder, **changes), Share(3)) for _ in range(2))
        take(first, stop)
        again.load_state_dict([first.state_dict()])
        assert numbers(take(again, 3)) == numbers(found[stop : stop + 3])


def numbered(folder: Path, count: int, broken: tuple[int, ...] = ()) -> Path:
    names = {f"{i}.png": encoded(noise_image(20, 20, i))[: 100 if i in broken else None] for i in range(count)}
    return folder_of(folder, names, {name: f"image {name.split('.')[0]}" for name in names})


@pytest.mark.parametrize("buffer", [0, 6])
def test_rows_too_few_for_a_batch_begin_the_next_pass(tmp_path, buffer) -> None:
    folder = numbered(tmp_path / "seven", 7)
    found = take(batches(stream_of(folder, buffer), Share(3)), 14)
    seen = numbers(found)
    assert all(sorted(seen[i : i + 21]) == sorted([*range(7)] * 3) for i in (0, 21))  # each row once a pass
    if not buffer:
        assert seen == [*range(7)] * 6
    for stop in range(1, 9):
        first, again = (batches(stream_of(folder, buffer), Share(3)) for _ in range(2))
        take(first, stop)
        again.load_state_dict([first.state_dict()])
        assert numbers(take(again, 5)) == numbers(found[stop : stop + 5])


def test_a_batch_may_be_larger_than_a_pass(tmp_path) -> None:
    folder = numbered(tmp_path / "three", 3)
    assert numbers(take(batches(stream_of(folder), Share(8)), 3)) == [*range(3)] * 8
    first, again = (batches(stream_of(folder), Share(8)) for _ in range(2))
    take(first, 1)
    again.load_state_dict([first.state_dict()])
    assert numbers(take(again, 2)) == ([*range(3)] * 8)[8:]


def test_a_block_without_a_usable_image_is_left_out_and_told_of(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sharded_stream, "ORDERED", 2)  # rows of a block
    folder = numbered(tmp_path / "some", 8, broken=(2, 3, 6, 7))
    found = take(batches(stream_of(folder), Share(2)), 5)
    assert numbers(found) == [0, 1, 4, 5, 0, 1, 4, 5, 0, 1]
    assert [sorted(line.split(":")[0][-5:] for line in batch["skipped"]) for batch in found[:3]] == [
        [],
        ["2.png", "3.png"],
        ["6.png", "7.png"],
    ]
    one_block = numbers(take(batches(stream_of(folder, 8), Share(2)), 4))
    assert sorted(one_block[:4]) == sorted(one_block[4:]) == [0, 1, 4, 5]
    monkeypatch.setattr(sharded_stream, "MOST_UNUSABLE", 20)
    with pytest.raises(ValueError, match=r"none of 20 images in a row can be used: .*0\.png: it cannot be read"):
        take(batches(stream_of(numbered(tmp_path / "none", 3, broken=(0, 1, 2))), Share(2)), 1)


@pytest.mark.parametrize("buffer", [0, 7])
def test_looking_for_a_usable_image_leaves_a_stream_where_it_was(files, buffer) -> None:
    looked_at = stream_of(files, buffer)
    first_usable(looked_at)
    found, expected = (take(batches(stream, Share(3)), 20) for stream in (looked_at, stream_of(files, buffer)))
    assert numbers(found) == numbers(expected)


def test_a_stream_of_one_shape_is_looked_at_as_it_is_trained_on(tmp_path) -> None:
    folder = write_files(tmp_path / "wide", "parquet", lambda i: (24, 12))  # no square of 16 pixels fits in
    wide = stream_of(folder, aspect_buckets=True)
    assert take(batches(wide, Share(2)), 1)[0]["pixel_values"].shape == (2, 3, 12, 24)
    first_usable(wide)
    first_usable(stream_of(folder, aspect_buckets=True, crop_size=12))
    with pytest.raises(
        ValueError, match="none of 40 images in a row can be used: row 0: it is 24x12, smaller than the stage's 16x16; row 1"
    ):
        first_usable(stream_of(folder))


def test_a_usable_image_is_looked_for_as_far_as_training_reads(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sharded_stream, "MOST_UNUSABLE", 2)
    folder = numbered(tmp_path / "late", 8, broken=(0, 1, 2, 3, 4))
    stream = stream_of(folder, 8)  # a block of all
    assert set(numbers(take(batches(stream, Share(2)), 4))) == {5, 6, 7}
    first_usable(stream)
    monkeypatch.setattr(sharded_stream, "ORDERED", 2)
    for look in (first_usable, lambda stream: take(batches(stream, Share(2)), 1)):
        with pytest.raises(ValueError, match="none of 2 images in a row can be used"):
            look(stream_of(folder))


def nameless(path: Path, count: int, broken: tuple[int, ...]) -> Path:
    """One Parquet file of images without file names."""
    import datasets

    path.mkdir()
    files = [encoded(noise_image(20, 20, i))[: 100 if i in broken else None] for i in range(count)]
    features = datasets.Features({"image": datasets.Image(decode=False), "text": datasets.Value("string")})
    rows = {"image": [{"bytes": data, "path": None} for data in files], "text": [f"image {i}" for i in range(count)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path / "rows.parquet")
    return path


def told_of(found: list) -> set[str]:
    return {line.split(":")[0] for batch in found for line in batch["skipped"]}


@pytest.mark.thorough
@pytest.mark.parametrize("buffer", [0, 7])
def test_a_row_without_a_name_is_told_of_by_its_number_in_the_pass(tmp_path, buffer) -> None:
    folder = nameless(tmp_path / "rows", 20, broken=(2, 19))
    given = batches(stream_of(folder, buffer), Share(3))  # blocks that begin in one pass and end in the next
    assert told_of(take(given, 40)) == {"row 2", "row 19"}
    for stop in range(1, 14, 2):
        first, again = (batches(stream_of(folder, buffer), Share(3)) for _ in range(2))
        take(first, stop)
        again.load_state_dict([first.state_dict()])
        assert told_of(take(again, 20)) == {"row 2", "row 19"}
    rows, columns = load_rows(DataSettings(train_data_dir=folder, streaming=True))
    exact = iter(ImageStream(rows, columns, ImageSettings(16, stride=4)).at(Share(3), 0))
    assert told_of([next(exact) for _ in range(60)]) == {"row 2", "row 19"}


def test_rows_of_several_readers_are_told_apart(tmp_path) -> None:
    folder = nameless(tmp_path / "rows", 8, broken=(1,))
    assert [told_of(take(batches(stream_of(folder), Share(2, 2, rank)), 2)) for rank in (0, 1)] == [
        set(),
        {"row 0 of worker 0 of process 1"},
    ]


def test_a_place_of_an_earlier_checkpoint_is_gone_on_from(files) -> None:
    whole, first, again = (batches(stream_of(files), Share(2)) for _ in range(3))
    take(first, 3)
    state = first.state_dict()
    once = [{name: value for name, value in place.items() if name not in ("row", "used")} for place in state["places"]]
    state["places"] = [{**place, "taken": 3} for place in once]  # in batches
    again.load_state_dict([state])
    assert numbers(take(again, 5)) == numbers(take(whole, 8)[3:])


def damage(file: Path, size: int | None = None) -> None:
    """Cut a file to so many bytes, or write over some in its middle, so that it ends as it should."""
    data = file.read_bytes()
    file.write_bytes(data[:size] if size is not None else data[:100] + b"\0\xff" * 2000 + data[4100:])


@pytest.mark.parametrize(("kind", "size", "workers"), [("tar", 13000, 0), ("parquet", 5000, 0), ("parquet", None, 0), DAMAGED_WORKERS])
def test_the_rest_of_a_damaged_shard_is_passed_over_and_told_of(tmp_path, kind, size, workers, caplog) -> None:
    folder = write_files(tmp_path / kind, kind)
    damage(folder / f"part-1.{kind}", size)
    whole = 4 if kind == "tar" else 0  # rows before the damage
    found = take(batches(stream_of(folder, 7), Share(2), workers), 35)
    if not workers:
        assert sorted(numbers(found)[: 30 + whole]) == sorted(
            [*[*range(10)] * 3, *range(whole)] if kind == "tar" else [*range(10), *range(20, 40)]
        )
        assert caplog.text.count("the rest of it cannot be read") == 1
    told = {line for batch in found for line in batch["skipped"]}
    assert len(told) == 1 and f"part-1.{kind}: the rest of it cannot be read (" in told.pop()
    for stop in (9,) if workers else (1, 14):
        first, again = (batches(stream_of(folder, 7), Share(2), workers) for _ in range(2))
        take(first, stop)
        again.load_state_dict([first.state_dict()])
        for one, two in zip(found[stop : stop + 9], take(again, 9), strict=True):
            assert torch.equal(one["pixel_values"], two["pixel_values"])
    rows, columns = load_rows(DataSettings(train_data_dir=folder, streaming=True))
    exact = iter(ImageStream(rows, columns, ImageSettings(16, stride=4)).at(Share(3), 0))
    caplog.clear()
    assert len({line for _ in range(20) for line in next(exact)["skipped"]}) == 1
    assert caplog.text.count("the rest of it cannot be read") == 1  # once for each stream, of which a program may read several
    assert not load_rows(DataSettings(train_data_dir=folder, streaming=True))[1].told.damage()


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_damage_that_no_reading_gets_around_is_told_in_words(tmp_path, kind) -> None:
    folder = write_files(tmp_path / kind, kind)
    damage(folder / f"part-1.{kind}", 5000)
    with pytest.raises(ValueError, match=f"files of .*{kind} cannot be read to their end .*; with streaming they are named"):
        load_rows(DataSettings(train_data_dir=folder, cache_dir=tmp_path / "cache"))
    damage(folder / f"part-0.{kind}", 100)
    with pytest.raises(ValueError, match=r"(part-0\.tar|first file of .*parquet) cannot be read .*; write it anew, or leave it out"):
        load_rows(DataSettings(train_data_dir=folder, streaming=True))


def test_a_stream_whose_shards_are_damaged_is_said_to_be_empty_with_the_reason(tmp_path) -> None:
    tar(tmp_path / "one" / "0.tar", [noise_image(20, 20)] * 2)
    stream = stream_of(tmp_path / "one")
    damage(tmp_path / "one" / "0.tar", 900)
    with pytest.raises(ValueError, match=r"the training stream is empty, .*; .*0\.tar: the rest of it cannot be read .unexpected end"):
        take(batches(stream, Share(2)), 1)


def test_parquet_files_are_read_as_far_as_their_columns_are_needed_whatever_types_others_have(tmp_path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(part: int, **columns: list) -> None:
        images = [{"bytes": encoded(noise_image(20, 20, i)), "path": None} for i in range(2)]
        pq.write_table(pa.table({"image": images, **columns}), tmp_path / f"{part}.parquet")

    def read() -> tuple[list[str], list[str]]:
        rows, columns = load_rows(DataSettings(train_data_dir=tmp_path, streaming=True))
        assert rows.column_names == columns.read == ["image", "text"]
        return [row["text"] for row in rows], columns.told.damage()

    write(0, text=["a", "b"], width=[1, 2])
    write(1, text=["c", "d"], width=[2.5, 3.5], height=[1, 2])
    assert read() == (["a", "b", "c", "d"], [])
    assert [*load_captions(DataSettings(train_data_dir=tmp_path, streaming=True))[0]] == ["a", "b", "c", "d"]
    write(1, width=[1, 2])
    assert read() == (["a", "b"], [f"{tmp_path}/1.parquet: it lacks a column that is read (No match for FieldRef.Name(text))"])
    write(0, text=[1, 2])
    write(1, text=["c", "d"])
    with pytest.raises(
        ValueError, match=r"1\.parquet: its columns have other types than those of the first file \(Failed to parse .*string"
    ):
        read()
    with pytest.raises(ValueError, match=r"a file of .*: its columns have other types .*; write all with the same, or set streaming"):
        load_rows(DataSettings(train_data_dir=tmp_path, cache_dir=tmp_path / "cache"))
