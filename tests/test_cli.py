"""The command, on the tiny cascade."""

import pytest
from PIL import Image
from typer.testing import CliRunner

from imagen_diffusers.cli import app
from imagen_diffusers.pictures import read_settings

from .conftest import make_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("cascade")
    make_pipeline().save_pretrained(path)
    return str(path)


def call(*words: object):
    return CliRunner().invoke(app, [str(w) for w in words])


def test_generate_writes_a_picture_that_remembers_its_settings(folder, tmp_path) -> None:
    path = tmp_path / "picture.png"
    result = call("generate", "a red cube", "--model", folder, "--output", path, "--seed", 7, "--steps", "3,2,1", "--dtype", "float32")
    assert result.exit_code == 0, result.output
    assert Image.open(path).size == (64, 64)
    told = read_settings(path)
    assert told["prompt"] == "a red cube"
    assert told["seed"] == 7
    assert told["num_inference_steps"] == [3, 2, 1]


def test_several_pictures_and_their_grid(folder, tmp_path) -> None:
    many, alone = tmp_path / "p.png", tmp_path / "alone.png"
    plain = ["generate", "a red cube", "--model", folder, "--dtype", "float32", "--stages", 1, "--scheduler", "dpm++"]
    assert call(*plain, "--output", many, "--num-images", 3, "--seed", 5).exit_code == 0
    assert call(*plain, "--output", alone, "--seed", 6).exit_code == 0
    assert Image.open(tmp_path / "p-2.png").tobytes() == Image.open(alone).tobytes()
    assert Image.open(tmp_path / "p-grid.png").width == 32
    assert read_settings(tmp_path / "p-3.png")["seed"] == 7


def test_upscale(folder, tmp_path) -> None:
    small, big = tmp_path / "small.png", tmp_path / "big.png"
    Image.new("RGB", (32, 32), "red").save(small)
    result = call("upscale", small, "a red cube", "--model", folder, "--output", big, "--seed", 1)
    assert result.exit_code == 0, result.output
    assert Image.open(big).size == (64, 64)


def test_unknown_words_are_said(folder, tmp_path) -> None:
    result = call("generate", "a red dragon", "--model", folder, "--output", tmp_path / "p.png", "--stages", 1)
    assert result.exit_code == 0
    assert "never saw: dragon" in result.output
    assert "sphere" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scheduler", "magic"], "magic"),
        (["--dtype", "int8"], "int8"),
        (["--steps", "many"], "many"),
        (["--steps", "1,2"], "2 values for 3 stages"),
        (["--width", "50"], "multiples of"),
    ],
)
def test_bad_options_are_one_line(folder, tmp_path, words, message) -> None:
    result = call("generate", "a red cube", "--model", folder, "--output", tmp_path / "p.png", *words)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_missing_model_is_one_line(tmp_path) -> None:
    result = call("generate", "a red cube", "--model", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "nowhere" in result.output
