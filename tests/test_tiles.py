"""Networks evaluated in slices of a batch and in tiles of an image."""

import pytest
import torch

from imagen_diffusers.sampling.network import adapt
from imagen_diffusers.sampling.tiles import Pieces, ramp, spans

from .conftest import make_sr, seeded
from .test_cascade import PROMPT, ROUNDING, draw


class Pointwise:
    """Stands for a network: each pixel's answer depends on that pixel alone, so tiles must give what the whole does."""

    stride = 4

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def predict(self, sample, timestep, arguments):
        self.seen.append(tuple(sample.shape))
        rows = arguments["noise_level"].view(-1, 1, 1, 1)
        return sample * 2 + arguments["low_res"] + rows + timestep.view(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("size", "tile", "overlap"), [((64, 64), 32, 0.25), ((40, 72), 32, 0.5), ((64, 32), 32, 0.0), ((36, 100), 30, 0.9)]
)
def test_tiles_and_slices_of_a_pointwise_network_are_the_whole(size, tile, overlap) -> None:
    network = Pointwise()
    sample, low_res = (torch.randn(5, 3, *size, generator=seeded(n)) for n in (1, 2))
    given = {"low_res": low_res, "noise_level": torch.arange(5.0), "encoder_attention_mask": None}
    times = torch.arange(5.0) * 10
    whole = network.predict(sample, times, given)
    network.seen.clear()
    pieces = Pieces(2, tile, overlap).predict(network, sample, times, given)
    torch.testing.assert_close(pieces, whole)
    rounded = tile // 4 * 4
    assert all(rows <= 2 and h <= rounded and w <= rounded and h % 4 == w % 4 == 0 for rows, _, h, w in network.seen)


@pytest.mark.parametrize(("side", "tile", "shared"), [(2048, 1024, 256), (100, 32, 8), (33, 32, 0), (32, 32, 16), (20, 32, 8)])
def test_tiles_cover_every_pixel(side, tile, shared) -> None:
    covered = torch.zeros(side)
    found = list(spans(side, tile, shared))
    for before, after in zip(found, found[1:], strict=False):
        assert before.stop - after.start >= shared
    for span in found:
        assert span.stop - span.start == min(tile, side)
        weights = ramp(span, side, shared, torch.device("cpu"))
        assert weights.min() > 0
        covered[span] += weights
    assert covered.min() > 0
    assert found[-1].stop == side


def test_prediction_changes_smoothly_from_tile_to_tile() -> None:
    """Two tiles that disagree by 1: blended over the overlap, no neighbouring pixels differ by more than its slope."""

    class Disagrees(Pointwise):
        def predict(self, sample, timestep, arguments):
            self.seen.append(sample.shape)
            return torch.full_like(sample, float(len(self.seen)))

    blended = Pieces(None, 32, 0.5).predict(Disagrees(), torch.zeros(1, 1, 32, 48), torch.tensor(0.0), {})
    assert blended[0, 0, 0, 0] == 1
    assert blended[0, 0, 0, -1] == 2
    assert blended.diff(dim=-1).abs().max() <= 1 / 16 + 1e-6


@pytest.mark.thorough
@pytest.mark.numeric
@pytest.mark.parametrize("dtype", ROUNDING)
def test_slices_draw_the_same_images(pipe, dtype) -> None:
    pipe.to(dtype)
    given = {"prompt": [PROMPT] * 3, "generator": [seeded(s) for s in range(3)], "output_type": "pt"}
    at_once = pipe(**given).images
    rows = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    pipe.enable_slicing(2)
    sliced = pipe(**{**given, "generator": [seeded(s) for s in range(3)]}).images
    hook.remove()
    assert rows == [2, 2, 2] * 3  # three images, guided, in three steps
    torch.testing.assert_close(sliced, at_once, atol=ROUNDING[dtype], rtol=0)
    pipe.disable_slicing()
    assert torch.equal(pipe(**{**given, "generator": [seeded(s) for s in range(3)]}).images, at_once)


@pytest.mark.thorough
def test_tiling_is_for_super_resolution_networks_alone(pipe) -> None:
    pipe.enable_tiling(32, 0.5)
    sides = {name: [] for name in ("unet", "unet_2", "unet_3")}
    for name, seen in sides.items():
        getattr(pipe, name).register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(tuple(inputs[0].shape[-2:])))
    out = draw(pipe, height=128, width=128)
    assert out.images.shape == (1, 3, 128, 128)
    assert set(sides["unet"]) == {(32, 32)}  # twice its trained size: all of it
    assert set(sides["unet_2"]) == {(32, 32)}
    assert len(sides["unet_2"]) == 2 * 9  # two steps, tiles at 0, 16 and 32 of 64 each way
    assert len(sides["unet_3"]) == 2 * 49
    pipe.enable_tiling()
    assert [pipe.pieces(network).tile for network in pipe.networks.values()] == [None, 32, 64]  # what each was trained for
    pipe.disable_tiling()
    assert pipe.pieces(pipe.networks[3]).tile is None


def test_a_tile_larger_than_the_image_changes_nothing(pipe) -> None:
    whole = draw(pipe).images
    pipe.enable_tiling(64)
    assert torch.equal(draw(pipe).images, whole)


def test_impossible_pieces_are_refused_in_words(pipe) -> None:
    for call, message in (
        (lambda: pipe.enable_slicing(0), "slice_size is 0"),
        (lambda: pipe.enable_slicing("2"), "slice_size is '2'; it must be a whole number"),
        (lambda: pipe.enable_tiling(0), "tile_size is 0"),
        (lambda: pipe.enable_tiling("512"), "tile_size is '512'; give a side in pixels, a whole number"),
        (lambda: pipe.enable_tiling(64, 1.0), "tile_overlap_factor is 1.0"),
        (lambda: pipe.enable_tiling(64, "0.5"), "tile_overlap_factor is '0.5'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="cond_images is"):
        images = {"cond_images": torch.zeros(1, 3, 8, 8)}
        Pieces(tile=32).predict(adapt(make_sr()), torch.zeros(1, 3, 64, 64), torch.tensor(0.0), images)
