"""Distances of generated images from true ones in an evaluation, the paper's curve, and super-resolution on true images."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from imagen_diffusers.evaluation.curve import axes, write_curve
from imagen_diffusers.evaluation.figures import Figure
from imagen_diffusers.evaluation.generating import sweep
from imagen_diffusers.evaluation.lpips import Lpips, _vgg16
from imagen_diffusers.evaluation.metrics import Judged, entries, figure_of
from imagen_diffusers.evaluation.realism import Realism, check_count
from imagen_diffusers.evaluation.runs import Evaluation, evaluate
from imagen_diffusers.evaluation.statistics import Statistics
from imagen_diffusers.evaluation.super_resolution import Enlarging, fidelities, square

from .conftest import seeded
from .measures import bright, means

ROWS = [{"prompt": f"a {color} {shape}"} for color in ("red", "blue", "green") for shape in ("cube", "sphere")] * 4


def reference(keep: bool = True, count: int = 40) -> Statistics:
    features = means(torch.rand(count, 3, 8, 8, generator=seeded()) ** 2)
    return Statistics.of(features, means.fingerprint, keep_features=keep)


@pytest.mark.thorough
def test_distances_stand_beside_shares_and_make_the_curve(shared_pipe, tmp_path) -> None:
    metrics = [Realism(means, ["fid", "kid"], reference()), Judged("bright", bright)]
    evaluation = Evaluation(ROWS, metrics, tmp_path, batch_size=8)
    found = evaluate(shared_pipe, evaluation, sweep(shared_pipe, "guidance_scale", [1, 3], stop_at=1))
    for figures in found.values():
        for name in ("FID (means)", "KID (means)"):
            assert figures[name].low < figures[name].value < figures[name].high and figures[name].count == 24
    assert found["guidance-1"]["FID (means)"].value != found["guidance-3"]["FID (means)"].value
    assert Image.open(tmp_path / "curve.png").width > 500
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["notes"] == ["FID and KID: features of means, against 40 true images."]
    text = (tmp_path / "report.md").read_text()
    assert "![" in text and "without the bias" in text and "40 true images" in text


@pytest.mark.thorough
def test_frechet_is_of_all_images_whatever_the_batches(shared_pipe, tmp_path) -> None:
    metrics, values = [Realism(means, ["fid"], reference(keep=False))], []
    for size in (8, 5):
        evaluation = Evaluation(ROWS, metrics, tmp_path / str(size), batch_size=size)
        (figures,) = evaluate(shared_pipe, evaluation, sweep(shared_pipe, stop_at=1)).values()
        values.append(figures["FID (means)"].value)
    assert values[0] == pytest.approx(values[1], rel=1e-4)  # images differ by rounding


def test_an_inception_score_is_of_no_single_images() -> None:
    check_count(["is"], means, 20)
    with pytest.raises(ValueError, match="is taken over 10 parts of the images, and of one image it is 1 whatever it shows; there are 19"):
        check_count(["is"], means, 19)


def test_the_kernel_distance_needs_features() -> None:
    with pytest.raises(ValueError, match="holds no features, which kid compares"):
        Realism(means, ["kid"], reference(keep=False))


def columns(**figures: Figure) -> list:
    return [({"guidance_scale": w}, dict(figures)) for w in (1, 3)]


def test_a_curve_is_a_distance_over_alignment() -> None:
    number, share = Figure(2.0, 1.0, 3.0, 9), Figure(0.5, 0.4, 0.6, 9, share=True)
    named = {"KID (x)": number, "CLIP score": number, "right": share}
    assert axes(columns(**named)) == ("CLIP score", "KID (x)")
    assert axes(columns(**{"FID (x)": number, **named})) == ("CLIP score", "FID (x)")
    assert axes(columns(**{"KID (x)": number, "right": share, "others": share})) == ("right", "KID (x)")
    assert axes(columns(**{"KID (x)": number})) is None
    assert axes(columns(**named)[:1]) is None
    assert axes([({"guidance_scale": 2}, {"KID (x)": number}), *columns(**{"KID (x)": number, "right": share})]) == ("right", "KID (x)")


@pytest.mark.thorough
def test_the_same_figures_make_the_same_file(tmp_path) -> None:
    number, share = Figure(2.0, 1.0, 3.0, 9), Figure(0.5, 0.4, 0.6, 9, share=True)
    for name in ("one", "other"):
        assert write_curve(tmp_path / f"{name}.png", columns(**{"KID (x)": number, "right": share}))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    lacking = [*columns(**{"KID (x)": number, "right": share}), ({"guidance_scale": 5}, {"KID (x)": number})]
    assert write_curve(tmp_path / "lacking.png", lacking)
    assert (tmp_path / "lacking.png").read_bytes() == (tmp_path / "one.png").read_bytes()
    assert not write_curve(tmp_path / "none.png", columns(right=share))
    assert not (tmp_path / "none.png").exists()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(6):
        Image.effect_noise((70, 64 + i), 40 + 10 * i).convert("RGB").save(folder / f"{i}.png")
    return folder


def test_super_resolution_is_measured_against_bicubic(shared_pipe, photos, tmp_path) -> None:
    rows = [{"prompt": "a red cube", "file_name": f"{i}.png"} for i in range(6)]
    one = Enlarging(3, photos, fidelities())
    one.check(shared_pipe, rows)
    metrics = [Realism(means, ["kid"], None), Judged("bright", bright)]
    evaluation = Evaluation(rows, metrics, tmp_path, batch_size=4, save_images=True)
    found = evaluate(shared_pipe, evaluation, [], [one])
    assert list(found) == ["stage-3", "stage-3, bicubic", "stage-3, true"]
    true = torch.cat([square(photos / row["file_name"], 64) for row in rows])
    low = (torch.nn.functional.interpolate(true, (32, 32), mode="bicubic", antialias=True).clamp(0, 1) * 255).round() / 255
    plain = torch.nn.functional.interpolate(low, (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    errors = ((plain * 255).round() / 255 - true).square().mean((1, 2, 3))
    assert found["stage-3, bicubic"]["PSNR"].value == pytest.approx((-10 * errors.log10()).mean().item(), abs=1e-3)
    assert found["stage-3, bicubic"]["PSNR"].value > found["stage-3"]["PSNR"].value  # of a network that learned nothing
    assert {"PSNR", "SSIM", "KID (means)", "light"} <= found["stage-3"].keys()
    assert found["stage-3, true"].keys() == {"light", "lightness", "channels of red ones"}
    assert "| | stage-3 | stage-3, bicubic | stage-3, true | of |" in (tmp_path / "report.md").read_text()
    assert Image.open(tmp_path / "stage-3" / "images" / "000005.png").size == (64, 64)
    both = evaluate(shared_pipe, evaluation, [], [one._replace(stage=2)])
    assert [name for name in both if "," not in name] == ["stage-2", "stage-3"]


def test_a_reference_gives_the_floor_of_true_images(shared_pipe, photos, tmp_path) -> None:
    rows = [{"prompt": "a red cube", "file_name": f"{i}.png"} for i in range(4)]
    found = evaluate(shared_pipe, Evaluation(rows, [Realism(means, ["kid"], reference())], tmp_path), [], [Enlarging(2, photos, {})])
    assert found["stage-2, true"]["KID (means)"].value != 0


def test_other_true_images_and_another_nearness_are_another_evaluation(shared_pipe, photos, tmp_path) -> None:
    places = [shutil.copytree(photos, tmp_path / name) for name in ("true", "other")]
    shutil.copy(photos / "1.png", places[1] / "0.png")
    rows = [{"prompt": "a red cube", "file_name": f"{i}.png"} for i in range(2)]
    near = {"PSNR": fidelities()["PSNR"]}

    def run(enlarging: Enlarging) -> dict:
        return evaluate(shared_pipe, Evaluation(rows, [], tmp_path / "report"), [], [enlarging])

    run(Enlarging(2, places[0], near))
    for changed in (Enlarging(2, places[1], near), Enlarging(2, places[0], {**near, "LPIPS": fidelities()["SSIM"]})):
        with pytest.raises(ValueError, match="true images was"):
            run(changed)


def test_a_perfect_image_has_an_interval() -> None:
    assert str(figure_of(entries([float("inf"), 20.0, 21.0, 22.0, 23.0]))).endswith(" to inf)")
    figure = figure_of(entries([float("inf"), 20.0, 21.0, 22.0, 23.0]))
    assert 20 <= figure.low < figure.high


@pytest.mark.parametrize(
    ("stage", "row", "message"),
    [
        (1, {"file_name": "0.png"}, r"stage 1 enlarges nothing in this pipeline; its super-resolution stages are \[2, 3\]"),
        (3, {}, "row 1 names no image"),
        (3, {"file_name": "small.png"}, "small.png is 60x80, and stage 3 makes images of 64px; give true images of at least 64px"),
    ],
)
def test_images_that_cannot_be_enlarged_are_refused(shared_pipe, tmp_path, stage, row, message) -> None:
    Image.new("RGB", (60, 80)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=message):
        Enlarging(stage, tmp_path, {}).check(shared_pipe, [{"prompt": "a cube", **row}])


@pytest.mark.thorough
def test_lpips_is_that_of_torchmetrics(tmp_path, monkeypatch) -> None:
    from torchmetrics.functional.image import lpips

    torch.manual_seed(0)
    features = _vgg16()
    torch.save(
        {f"features.{name}": value for name, value in features.state_dict().items()} | {"classifier.0.bias": torch.zeros(2)},
        tmp_path / "vgg.pth",
    )
    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda *_, **__: features)
    theirs = lpips._LPIPS(net="vgg")
    one, other = (torch.rand(2, 3, 64, 64, generator=seeded(i)) for i in range(2))
    ours: Tensor = Lpips(tmp_path / "vgg.pth")(one, other)
    assert torch.allclose(ours, theirs(one, other, normalize=True).flatten(), rtol=1e-5)
    assert (ours > 0).all() and not Lpips(tmp_path / "vgg.pth")(one, one).any()
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match="holds no VGG16"):
        Lpips(tmp_path / "part.pth")
