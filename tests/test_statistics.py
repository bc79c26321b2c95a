"""Means and covariances in a stream against numpy's, and files of them that refuse what was made otherwise."""

import numpy as np
import pytest
import torch

from imagen_diffusers.evaluation.statistics import RunningStatistics, Statistics, merged

from .conftest import seeded

FINGERPRINT = {"class": "Tiny", "weights": "ab12", "resize": "antialiased bicubic", "size": (64, 64), "torch": "2.13.0"}


def rows(count: int = 500, width: int = 6) -> torch.Tensor:
    return torch.randn(count, width, generator=seeded(1)) * torch.arange(1, width + 1) + 1000  # cancels in plain sums of float32


@pytest.mark.parametrize("size", [1, 7, 500])
def test_a_stream_in_batches_of_any_size_is_numpys(size) -> None:
    running = RunningStatistics(6)
    for batch in rows().split(size):
        running.add(batch)
    made, wanted = running.statistics(FINGERPRINT), rows().double().numpy()
    np.testing.assert_allclose(made.mean, wanted.mean(0), rtol=1e-13)
    np.testing.assert_allclose(made.covariance, np.cov(wanted, rowvar=False), rtol=1e-11, atol=1e-11)
    assert made.count == 500 and made.fingerprint == FINGERPRINT


def test_parts_merge_into_the_whole() -> None:
    parts = [Statistics.of(part, FINGERPRINT) for part in rows().split([3, 200, 297])]
    whole, together = Statistics.of(rows(), FINGERPRINT), merged(parts)
    torch.testing.assert_close(together.mean, whole.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(together.covariance, whole.covariance, rtol=1e-11, atol=1e-11)
    assert together.count == whole.count and together.fingerprint == FINGERPRINT


@pytest.mark.parametrize("keep", [False, True])
def test_a_file_holds_the_same_bits(tmp_path, keep) -> None:
    made = Statistics.of(rows(), FINGERPRINT, keep_features=keep)
    made.save(tmp_path / "deep" / "stats.npz")
    read = Statistics.load(tmp_path / "deep" / "stats.npz", FINGERPRINT)
    assert torch.equal(read.mean, made.mean) and torch.equal(read.covariance, made.covariance) and read.count == 500
    assert (read.features is None) == (not keep)
    if keep:
        assert torch.equal(read.features, rows())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["stats.npz"]


def test_another_extractors_statistics_are_refused(tmp_path) -> None:
    """What clean-fid's paper measured: the same network, another resize."""
    path = tmp_path / "stats.npz"
    Statistics.of(rows(), FINGERPRINT).save(path)
    other = {**FINGERPRINT, "resize": "nearest", "transformers": "5.23.0"}
    with pytest.raises(ValueError, match="resize is 'antialiased bicubic', not 'nearest'; transformers is None, not '5.23.0'. Distances"):
        Statistics.load(path, other)
    assert Statistics.load(path).fingerprint == {**FINGERPRINT, "size": [64, 64]}  # as JSON has it


def test_other_files_are_refused(tmp_path) -> None:
    np.savez(tmp_path / "other.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.savez(tmp_path / "pickle.npz", mean=np.array([{}], dtype=object), covariance=np.eye(3), count=2, fingerprint="{}")
    np.save(tmp_path / "array.npz", np.zeros(3))
    (tmp_path / "array.npz.npy").rename(tmp_path / "array.npz")
    (tmp_path / "text.npz").write_text("mean")
    (tmp_path / "empty.npz").write_bytes(b"")
    whole = tmp_path / "whole.npz"
    Statistics.of(rows()).save(whole)
    (tmp_path / "half.npz").write_bytes(whole.read_bytes()[:300])
    for name in ("other", "pickle", "array", "text", "empty", "half"):
        with pytest.raises(ValueError, match=rf"{name}.npz holds no statistics [^.]* made; give a file that [^.]*$"):
            Statistics.load(tmp_path / f"{name}.npz")
    with pytest.raises(OSError, match="none.npz"):
        Statistics.load(tmp_path / "none.npz")


def test_what_has_no_covariance_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two images; there is 1"):
        Statistics.of(rows(1))
    with pytest.raises(ValueError, match="not finite"):
        Statistics.of(torch.tensor([[1.0, float("nan")], [0.0, 0.0]]))
