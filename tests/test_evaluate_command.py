"""`imagen-diffusers evaluate` and `evaluate-stats` on the tiny cascade, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from examples.scenes.prompts import rows
from imagen_diffusers import ImagenCascadePipeline

from .conftest import make_pipeline, make_tokenizer
from .test_cli import call

PROMPTS = [f"a {color} {shape}" for color in ("red", "blue", "green") for shape in ("cube", "sphere")] * 3
MEANS = ["--extractor", "tests.measures:means"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A cascade, a file of prompts, a folder of true images with metadata, and a tiny CLIP."""
    folder = tmp_path_factory.mktemp("place")
    make_pipeline().save_pretrained(folder / "cascade")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    (folder / "true").mkdir()
    rows = [{"text": "a red cube", "file_name": f"{i}.png"} for i in range(14)]
    (folder / "true" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for i in range(14):
        Image.effect_noise((64, 64), 30 + 10 * i).convert("RGB").save(folder / "true" / f"{i}.png")
    (folder / "few").mkdir()
    for name in ("0.png", "1.png"):
        (folder / "few" / name).write_bytes((folder / "true" / name).read_bytes())
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 16}
    CLIPModel(CLIPConfig(vision_config=vision, text_config={**text, "eos_token_id": 1}, projection_dim=8)).save_pretrained(folder / "clip")
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder / "clip")
    make_tokenizer().save_pretrained(folder / "clip")
    return folder


def words(place: Path, output: Path) -> list:
    model = ["--model", place / "cascade", "--dtype", "float32", "--device", "cpu"]
    return ["evaluate", "--prompts", place / "prompts.txt", "--output", output, *model, "--stop-at", 1]


@pytest.mark.thorough
def test_the_whole_command(place, tmp_path) -> None:
    output = tmp_path / "report"
    measures = ["--metrics", "fid,kid,clip", "--reference", place / "true", *MEANS, "--clip", place / "clip"]
    more = [*measures, "--scorer", "tests.measures:bright", "--guidance", "1,3", "--num-prompts", 14, "--save-images"]
    result = call(*words(place, output), *more)
    assert result.exit_code == 0, result.output
    report = json.loads((output / "report.json").read_text())
    names = ["FID (means)", "KID (means)", "CLIP score", "light", "lightness", "channels of red ones"]
    assert [list(point["figures"]) for point in report["points"]] == [names, names]
    assert report["points"][0]["figures"]["CLIP score"]["count"] == 14
    assert report["asked"]["model"] == str(place / "cascade") and "device" in report["asked"]
    assert "| | guidance 1 | guidance 3 | of |" in result.output
    assert Image.open(output / "curve.png").size[0] > 500
    assert len(list((output / "guidance-1" / "images").iterdir())) == 14
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}
    again = call(*words(place, output), *more)
    assert again.exit_code == 0 and len(before) == 4
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}


@pytest.mark.thorough
def test_statistics_that_were_written_once_are_a_reference(place, tmp_path) -> None:
    stats = tmp_path / "stats.npz"
    result = call("evaluate-stats", place / "true", *MEANS, "--output", stats, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "14 images, 12 features" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["stats.npz"]
    figures = []
    for reference in (stats, place / "true"):
        output = tmp_path / reference.stem
        more = ["--metrics", "kid", "--reference", reference, *MEANS, "--num-prompts", 4]
        assert call(*words(place, output), *more).exit_code == 0
        figures.append(json.loads((output / "report.json").read_text())["points"])
    assert figures[0] == figures[1]
    assert call("evaluate-stats", place / "true", *MEANS, "--output", stats, "--no-features", "--device", "cpu").exit_code == 0
    assert "features" not in np.load(stats)
    refused = call(*words(place, tmp_path / "other"), "--metrics", "kid", "--reference", stats, *MEANS)
    assert refused.exit_code == 1 and "holds no features, which kid compares" in refused.output.replace("\n", " ")


def test_leftovers_beside_any_name_are_removed(place, tmp_path) -> None:
    """Of a run that was killed between its last two steps, and under a name that a shell would read as a pattern."""
    features = tmp_path / "st[1].features.npy"
    features.with_name(f"{features.name}.groups").mkdir()
    result = call("evaluate-stats", place / "true", *MEANS, "--output", tmp_path / "st[1].npz", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["st[1].npz"]


def test_a_mistyped_model_is_told_before_the_reference_is_measured(place, tmp_path) -> None:
    plain = [*words(place, tmp_path / "report"), "--model", "nowhere/at_all"]
    result = call(*plain, "--metrics", "kid", *MEANS, "--reference", place / "true")
    assert result.exit_code == 1 and "nowhere/at_all" in result.output
    assert not (tmp_path / "report").exists()


@pytest.mark.thorough
def test_super_resolution_and_steps(place, tmp_path) -> None:
    true, plain = place / "true" / "metadata.jsonl", [w for w in words(place, tmp_path / "sr") if w not in ("--stop-at", 1)]
    plain[2] = true
    result = call(*plain, "--super-resolution", "2,3", "--num-prompts", 3, "--batch-size", 2, "--metrics", "kid", *MEANS)
    assert result.exit_code == 0, result.output
    stages = json.loads((tmp_path / "sr" / "report.json").read_text())["stages"]
    assert list(stages) == ["stage-2", "stage-2, bicubic", "stage-3", "stage-3, bicubic"]
    assert list(stages["stage-3"]) == ["PSNR", "SSIM", "KID (means)"]
    steps = call(*words(place, tmp_path / "steps"), "--step-counts", "1,2", "--num-prompts", 2, "--scorer", "tests.measures:bright")
    assert steps.exit_code == 0 and "| | steps 1 | steps 2 | of |" in steps.output


def test_the_oracle_of_scenes_refuses_small_images_before_any_is_generated(place, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ImagenCascadePipeline, "__call__", lambda *_, **__: pytest.fail("an image was generated"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(2, ("one object",))))
    plain = words(place, tmp_path / "report")
    plain[2] = tmp_path / "rows.jsonl"
    result = call(*plain, "--scorer", "examples.scenes.scorer:judge")
    said = " ".join(result.output.split())
    assert result.exit_code == 1 and "these are of 16x16; sample the second stage as well, by --stop-at 2" in said, said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "there is nothing to measure"),
        (["--metrics", "fud"], '--metrics "fud" is unknown; choose among fid, kid, is, clip'),
        (["--metrics", "fid"], "fid compares features; say by --extractor"),
        (["--metrics", "kid", *MEANS], "kid compares with true images; give a folder of them"),
        (["--metrics", "is", *MEANS], "give the file of its weights: --extractor inception:FILE"),
        (["--metrics", "clip"], "go together; give both, or neither"),
        (["--scorer", "tests.measures:bright", *MEANS], "are for fid and kid"),
        (
            ["--metrics", "fid", *MEANS, "--reference", "TRUE", "--num-prompts", 12],
            "needs at least 13 images for its covariance, and there are 12",
        ),
        (["--metrics", "fid", *MEANS, "--reference", "TRUE", "--num-prompts", 12], "ask for --metrics kid"),
        (["--metrics", "fid", *MEANS, "--reference", "FEW"], "and there are 2 in the reference; give more, or ask for --metrics kid"),
        (["--metrics", "kid", *MEANS, "--reference", "TRUE", "--num-prompts", 1], "kid needs at least two images"),
        (["--scorer", "tests.measures:Means"], "tests.measures:Means is a class; give module:name of a function"),
        (["--metrics", "kid", "--extractor", "nowhere/at_all", "--reference", "TRUE"], '"nowhere/at_all" is no path here'),
        (["--metrics", "kid", "--extractor", "tests.measures:nothing", "--reference", "TRUE"], "holds no function nothing"),
        (["--scorer", "nothere"], '"nothere" does not have the form module:name; give a module and the name of a function in it'),
        (["--metrics", "kid", "--extractor", "json", "--reference", "TRUE"], "and no function, which has the form module:name"),
        (["--scorer", "nothere:rate"], "nothere:rate is not there: no module nothere"),
        (["--scorer", "tests.measures:bright", "--num-prompts", 1000], "prompts.txt holds 18; ask for no more"),
        (["--scorer", "tests.measures:bright", "--column", "words"], 'no column "words"'),
        (["--scorer", "tests.measures:bright", "--guidance", "1,1"], "give each value once"),
        (["--scorer", "tests.measures:bright", "--guidance", "1", "--step-counts", "2"], "are two curves"),
        (["--scorer", "tests.measures:bright", "--guidance", "much"], '--guidance is "much"'),
        (["--super-resolution", "2"], "leave out --guidance, --step-counts and --stop-at"),
        (["--scorer", "tests.measures:bright", "--lpips", "TABLE"], "give --super-resolution, or leave it out"),
    ],
)
def test_what_does_not_fit_is_one_sentence(place, tmp_path, more, message) -> None:
    table = place / "true" / "metadata.jsonl"
    more = [{"TRUE": place / "true", "FEW": place / "few", "TABLE": table}.get(word, word) for word in more]
    plain = words(place, tmp_path / "report")
    plain[2] = table if "--column" in more else plain[2]
    result = call(*plain, *more)
    assert result.exit_code == 1, result.output
    said = " ".join(result.output.split())
    assert message in said.rpartition("Error: ")[2] and "not foreseen" not in said
    assert not list((tmp_path / "report").rglob("*.safetensors"))
