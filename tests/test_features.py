"""Features of many images in one memory-mapped file: by index, resumable, and the same bits on several processes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from imagen_diffusers.evaluation.features import images_of, open_features, write_features, write_folder_features
from imagen_diffusers.training.folders import one_run_at

from .conftest import seeded
from .forking import run_ranks

SCRIPT = """
import sys
from pathlib import Path
from imagen_diffusers.training.processes import process_group
from imagen_diffusers.evaluation.features import write_folder_features
from tests.test_features import Counting

with process_group():
    write_folder_features(Path(sys.argv[1]), Counting(), Path(sys.argv[2]), batch_size=3)
"""


class Counting:
    """Mean and first pixel of an image, and how many times it was asked; `fails_at` is the call that is killed."""

    name, width = "counting", 4

    def __init__(self, fails_at: int = -1, **fingerprint: str):
        self.calls, self.fails_at, self.fingerprint = 0, fails_at, {"class": "Counting", **fingerprint}

    def __call__(self, images: Tensor) -> Tensor:
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        self.calls += 1
        return torch.cat([images.mean((1, 2, 3))[:, None], images[:, :, 0, 0]], 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Ten images, of two sizes, in folders of their own; and what is none."""
    place = tmp_path_factory.mktemp("images")
    for n in range(10):
        path = place / ("ab"[n % 2]) / f"{n}.{'png' if n % 3 else 'webp'}"
        path.parent.mkdir(exist_ok=True)
        pixels = torch.randint(256, (8, 8 if n < 6 else 12, 3), generator=seeded(n), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path, lossless=True)
    (place / "notes.txt").write_text("none")
    return place


def test_a_folders_features_lie_on_the_disk_in_the_order_of_names(folder, tmp_path) -> None:
    path = tmp_path / "features.npy"
    features = write_folder_features(folder, Counting(), path, batch_size=3)
    wanted = [torch.from_numpy(np.array(Image.open(p).convert("RGB"))).permute(2, 0, 1) / 255 for p in images_of(folder)]
    assert [p.relative_to(folder).as_posix() for p in images_of(folder)[:3]] == ["a/0.webp", "a/2.png", "a/4.png"]
    assert features.shape == (10, 4) and features.dtype == torch.float32
    assert torch.equal(features[:, 1:], torch.stack([image[:, 0, 0] for image in wanted]))
    torch.testing.assert_close(features[:, 0], torch.stack([image.mean() for image in wanted]))
    assert isinstance(np.load(path, mmap_mode="r"), np.memmap)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features.npy", "features.npy.json", "features.npy.lock"]


def test_a_killed_program_goes_on(folder, tmp_path) -> None:
    whole, path = write_folder_features(folder, Counting(), tmp_path / "whole.npy", batch_size=2), tmp_path / "killed.npy"
    killed, last = Counting(fails_at=3), Counting()
    with pytest.raises(KeyboardInterrupt):
        write_folder_features(folder, killed, path, batch_size=2)
    assert not path.exists()
    assert torch.equal(write_folder_features(folder, last, path, batch_size=2), whole)
    first = Counting()
    write_folder_features(folder, first, tmp_path / "first.npy", batch_size=2)
    assert killed.calls + last.calls == first.calls
    assert torch.equal(write_folder_features(folder, Counting(fails_at=0), path, batch_size=2), whole)  # nothing is made again


def test_features_of_something_else_are_refused(folder, tmp_path) -> None:
    path = tmp_path / "features.npy"
    write_folder_features(folder, Counting(), path)
    with pytest.raises(ValueError, match=r"features.npy is of other .* \(weights is None, not 'other'\); delete .*features.npy.json"):
        write_folder_features(folder, Counting(weights="other"), path)
    with pytest.raises(ValueError, match="images is 10, not 5; names and contents is"):
        write_folder_features(folder / "a", Counting(), path)


def test_damaged_files_are_named(folder, tmp_path) -> None:
    path = tmp_path / "features.npy"
    write_folder_features(folder, Counting(), path)
    whole, notes = path.read_bytes(), tmp_path / "features.npy.json"
    for rows in (np.zeros((9, 4), np.float32), np.zeros((10, 4)), np.zeros(10, np.float32)):
        np.save(path, rows)
        with pytest.raises(OSError, match="features.npy is damaged, or a file of something else; delete it, and run the command again"):
            write_folder_features(folder, Counting(), path)
    for damaged in (b"", b"no array", whole[:-4]):
        path.write_bytes(damaged)
        with pytest.raises(OSError, match="features.npy is damaged"):
            write_folder_features(folder, Counting(), path)
    path.unlink()
    assert write_folder_features(folder, Counting(), path).shape == (10, 4)
    notes.write_text("[1]")
    with pytest.raises(ValueError, match="features.npy.json is damaged"):
        write_folder_features(folder, Counting(), path)


def test_other_contents_of_the_same_size_are_other_images(folder, tmp_path) -> None:
    images, path = tmp_path / "images", tmp_path / "features.npy"
    images.mkdir()
    for name, level in (("0.bmp", 10), ("1.bmp", 20)):
        Image.new("RGB", (8, 8), (level,) * 3).save(images / name)
    (images / "._0.bmp").write_bytes(b"notes of macOS")
    write_folder_features(images, Counting(), path)
    stamp = (images / "0.bmp").stat()
    Image.new("RGB", (8, 8), (30,) * 3).save(images / "0.bmp")
    os.utime(images / "0.bmp", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(ValueError, match="names and contents is"):
        write_folder_features(images, Counting(), path)


def test_what_has_no_notes_is_made_again(folder, tmp_path) -> None:
    path = tmp_path / "features.npy"
    with pytest.raises(KeyboardInterrupt):
        write_folder_features(folder, Counting(fails_at=3), path, batch_size=2)
    with pytest.raises(ValueError, match="delete .*features.npy.json"):
        write_folder_features(folder, Counting(weights="other"), path, batch_size=2)
    (tmp_path / "features.npy.json").unlink()
    again, first = Counting(weights="other"), Counting()
    write_folder_features(folder, again, path, batch_size=2)
    write_folder_features(folder, first, tmp_path / "first.npy", batch_size=2)
    assert again.calls == first.calls


def test_another_program_that_writes_the_same_features_is_refused(folder, tmp_path) -> None:
    taken = one_run_at(tmp_path, tmp_path / "features.npy.lock")
    with taken, pytest.raises(ValueError, match="another run is writing into .*features.npy; wait"):
        write_folder_features(folder, Counting(), tmp_path / "features.npy")


def test_folders_without_images_are_refused(tmp_path, folder) -> None:
    with pytest.raises(ValueError, match="is no folder; give a folder of images, or statistics"):
        images_of(folder / "notes.txt")
    with pytest.raises(ValueError, match="holds no images"):
        images_of(tmp_path)
    (tmp_path / "broken.png").write_text("none")
    with pytest.raises(ValueError, match="broken.png is not an image"):
        write_folder_features(tmp_path, Counting(), tmp_path / "features.npy")


def test_batches_as_they_come(tmp_path) -> None:
    path, batches = tmp_path / "features.npy", torch.randn(7, 5, generator=seeded(1)).split(3)
    write_features(path, (batch for batch in batches), 7)
    features = open_features(path)
    assert torch.equal(features, torch.cat(batches))
    features[0] = 0  # changes stay in memory
    assert torch.equal(open_features(path), torch.cat(batches))
    for count in (6, 8):
        with pytest.raises(ValueError, match=f"7 features came for the {count} rows"):
            write_features(tmp_path / "other.npy", iter(batches), count)
    assert not (tmp_path / "other.npy").exists()


@pytest.mark.slow
def test_two_processes_write_the_same_bits(folder, tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for count in (1, 2):
        run_ranks(count, script, folder, tmp_path / f"{count}.npy")
    assert (tmp_path / "1.npy").read_bytes() == (tmp_path / "2.npy").read_bytes()
