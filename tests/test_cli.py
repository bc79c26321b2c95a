"""The command, on the tiny cascade."""

import pytest
from PIL import Image
from typer.testing import CliRunner

from imagen_diffusers.cli import app
from imagen_diffusers.images import read_settings

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
    Image.new("RGB", (48, 32), "red").save(small)
    larger = call("upscale", small, "a red cube", "--model", folder, "--output", big, "--seed", 1, "--tile", 32)
    assert larger.exit_code == 0, larger.output
    assert Image.open(big).size == (96, 64)


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
        (["--preset", "slow"], "slow"),
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


def test_an_adapter_changes_the_picture_as_much_as_its_weight_says(folder, tmp_path) -> None:
    from imagen_diffusers.models.lora import add_lora, lora_layers, lora_metadata

    from .test_lora import wake

    pipe = make_pipeline()
    add_lora(pipe.unet, rank=2)
    wake(pipe.unet, 1)
    pipe.save_lora_weights(tmp_path / "look", unet_lora_layers=lora_layers(pipe.unet), unet_lora_adapter_metadata=lora_metadata(pipe.unet))
    plain = ["generate", "a red cube", "--model", folder, "--dtype", "float32", "--stages", 1, "--seed", 5]
    drawn = {}
    for name, more in {"none": [], "off": [f"{tmp_path / 'look'}:0"], "on": [tmp_path / "look"]}.items():
        path = tmp_path / f"{name}.png"
        result = call(*plain, "--output", path, *(["--lora", *more] if more else []))
        assert result.exit_code == 0, result.output
        drawn[name] = Image.open(path).tobytes()
    assert drawn["off"] == drawn["none"] != drawn["on"]
    assert read_settings(tmp_path / "on.png")["lora"] == [str(tmp_path / "look")]
    result = call(*plain, "--lora", tmp_path / "nowhere", "--output", tmp_path / "x.png")
    assert "Error:" in result.output


def test_encode_text_goes_on_where_it_stopped(folder, tmp_path) -> None:
    import json

    from imagen_diffusers.training.text_cache import TextCache

    data = tmp_path / "data"
    data.mkdir()
    for i in range(2):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(data / f"{i}.png")
    lines = [{"file_name": "0.png", "text": "a red cube"}, {"file_name": "1.png", "text": "a blue sphere"}]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for _ in range(2):
        result = call("encode-text", data, "--output", tmp_path / "cache", "--model", folder)
        assert result.exit_code == 0, result.output
        assert "2 captions" in result.output
    index = json.loads((tmp_path / "cache" / "index.json").read_text())
    assert TextCache(tmp_path / "cache", index["fingerprint"])("a red cube").shape == (4, 32)
    result = call("encode-text", tmp_path / "nowhere", "--output", tmp_path / "cache", "--model", folder)
    assert result.output.startswith("Error:"), result.output
