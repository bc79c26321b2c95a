"""`imagen-diffusers generate --prompts`, on the tiny cascade."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.images import METADATA_KEY, read_settings

from .conftest import make_base, make_pipeline
from .test_cli import call

PROMPTS = ["a red cube", "the blue sphere left of the red cube", "a green sphere", "a blue cube", "a red sphere"]
WORDS = ["--dtype", "float32", "--device", "cpu", "--stop-at", 2]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    make_pipeline().save_pretrained(folder / "cascade")
    (folder / "prompts.txt").write_text("\n\n".join(PROMPTS))
    assert generate(folder, folder / "there", "--seed", 7).exit_code == 0
    return folder


def generate(place: Path, output: Path, *more: object):
    return call("generate", "--prompts", place / "prompts.txt", "--model", place / "cascade", "--output", output, *WORDS, *more)


def images(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)).astype(int) for path in sorted(folder.glob("*.png"))]


@pytest.mark.thorough
@pytest.mark.parametrize("text", [[], ["--weights", "--blend-with", "a (green:1.5) cube", "--blend", 0.3, "--negative-prompt", "the cube"]])
def test_each_prompt_has_the_image_that_it_has_alone_in_any_batch(place, tmp_path, text) -> None:
    for size in (2, 5):
        result = generate(place, tmp_path / str(size), "--seed", 7, "--batch-size", size, *text)
        assert result.exit_code == 0, result.output
    plain = ["--model", place / "cascade", *WORDS, *text]
    for i, prompt in enumerate(PROMPTS):
        assert call("generate", prompt, *plain, "--seed", 7 + i, "--output", tmp_path / "alone" / f"{i}.png").exit_code == 0
    alone = images(tmp_path / "alone")
    for size in ("2", "5"):
        paths = sorted((tmp_path / size).glob("*.png"))
        assert [path.name for path in paths] == [f"{i:06d}.png" for i in range(5)]
        told = [read_settings(path) for path in paths]
        assert told == [read_settings(tmp_path / "alone" / f"{i}.png") for i in range(5)]
        assert max(abs(a - b).max() for a, b in zip(images(tmp_path / size), alone, strict=True)) <= 1  # rounded to the next level


@pytest.mark.thorough
def test_a_run_that_was_ended_goes_on(place, tmp_path, monkeypatch) -> None:
    assert generate(place, tmp_path / "whole", "--seed", 3, "--batch-size", 2).exit_code == 0
    sampled, batches = ImagenCascadePipeline.__call__, []

    def ended(self, prompt, **given):
        batches.append(prompt)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return sampled(self, prompt, **given)

    monkeypatch.setattr(ImagenCascadePipeline, "__call__", ended)
    assert generate(place, tmp_path / "ended", "--seed", 3, "--batch-size", 2).exit_code != 0
    assert len(images(tmp_path / "ended")) == 2
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "ended").glob("*.png"))]
    (tmp_path / "ended" / "000002.png.part").write_text("half an image")
    assert generate(place, tmp_path / "ended", "--batch-size", 2).exit_code == 0  # of the same seed, which the images tell
    assert batches == [PROMPTS[:2], PROMPTS[2:4], PROMPTS[2:4], PROMPTS[4:]]
    paths = sorted((tmp_path / "ended").glob("*.png"))
    assert [path.stat().st_mtime_ns for path in paths[:2]] == before
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in sorted((tmp_path / "whole").glob("*.png"))]
    monkeypatch.setattr("imagen_diffusers.cli.many.prepare", lambda *_: pytest.fail("a model was loaded for nothing"))
    again = generate(place, tmp_path / "ended")
    assert again.exit_code == 0 and "5 images, seeds 3 to 7" in again.output


@pytest.mark.thorough
def test_a_run_whose_first_image_is_gone_goes_on_and_one_cut_short_is_named(place, tmp_path) -> None:
    assert generate(place, tmp_path / "out", "--seed", 3).exit_code == 0
    whole = [path.read_bytes() for path in sorted((tmp_path / "out").glob("*.png"))]
    first, second = tmp_path / "out" / "000000.png", tmp_path / "out" / "000001.png"
    first.unlink()
    second.write_bytes(whole[1][:-200])
    result = generate(place, tmp_path / "out")
    assert result.exit_code == 1 and "000001.png is in the way of an image" in " ".join(result.output.split())
    second.unlink()
    assert generate(place, tmp_path / "out").exit_code == 0
    assert [path.read_bytes() for path in sorted((tmp_path / "out").glob("*.png"))] == whole


def test_images_of_a_run_of_more_prompts_are_told(place, tmp_path) -> None:
    (tmp_path / "fewer.txt").write_text(PROMPTS[0])
    words = ["--prompts", tmp_path / "fewer.txt", "--model", place / "cascade", "--output", place / "there", *WORDS]
    said = " ".join(call("generate", *words).output.split())
    assert "1 image, seed 7; beyond them, from 000001.png on, 4 of a run of more prompts" in said


@pytest.mark.parametrize("settings", ["[]", "3", '{"seed": null}', '{"seed": [1]}'])
def test_images_with_other_settings_are_in_the_way(place, tmp_path, settings) -> None:
    info = PngInfo()
    info.add_text(METADATA_KEY, settings)
    (tmp_path / "out").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "out" / "000000.png", pnginfo=info)
    said = " ".join(generate(place, tmp_path / "out").output.split())
    assert ("000000.png is in the way of an image" in said or "000000.png is an image of another run" in said) and "foreseen" not in said


def test_several_images_a_prompt_and_a_table(place, tmp_path) -> None:
    table = tmp_path / "metadata.jsonl"
    table.write_text("".join(json.dumps({"file_name": f"{i}.png", "words": prompt}) + "\n" for i, prompt in enumerate(PROMPTS[:2])))
    more = ["--column", "words", "--num-images-per-prompt", 2, "--seed", 1]
    words = ["--prompts", table, "--model", place / "cascade", "--output", tmp_path / "out", *WORDS]
    assert call("generate", *words, *more).exit_code == 0
    told = [read_settings(path) for path in sorted((tmp_path / "out").glob("*.png"))]
    assert [(one["prompt"], one["seed"]) for one in told] == [(PROMPTS[0], 1), (PROMPTS[0], 2), (PROMPTS[1], 3), (PROMPTS[1], 4)]


def test_networks_without_text_make_an_image_of_each_seed(place, tmp_path) -> None:
    make_pipeline(unet=make_base(encoder_hid_dim=None), unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None).save_pretrained(
        tmp_path / "model"
    )
    words = ["--model", tmp_path / "model", "--output", tmp_path / "out", "--dtype", "float32", "--seed", 1, "--num-inference-steps", 1]
    result = call("generate", "--prompts", place / "prompts.txt", *words)
    assert result.exit_code == 0 and "take no text" in result.output, result.output
    assert len({image.tobytes() for image in images(tmp_path / "out")}) == 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--prompts", "EMPTY"], "holds no prompt; give a prompt a line"),
        (["--output", "FILE"], "cannot be a folder"),
        (["--output", "image.png"], '--output is "image.png", the name of one image; give a folder'),
        (["a cube"], 'PROMPT is "a cube", beside a file of --prompts'),
        (["--best-of", 2, "--scorer", "tests.measures:darkest"], "--best-of chooses among images of one prompt"),
        (["--column", "words"], 'no column "words"'),
        (["--output", "OTHER"], "000000.png is in the way of an image"),
        (["--output", "THERE", "--seed", 8], "000000.png is an image of another run (seed is 7, not 8); give another --output"),
        (["--output", "THERE", "--num-inference-steps", 1], "another run (num_inference_steps is None, not 1)"),
        (["--weights", "--blend", 0.5], "give both, or neither"),
    ],
)
def test_what_does_not_fit_is_one_sentence(place, tmp_path, monkeypatch, more, message) -> None:
    monkeypatch.setattr("imagen_diffusers.cli.many.prepare", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "empty").write_text("\n \n")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "other").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "other" / "000000.png")
    places = {"EMPTY": tmp_path / "empty", "FILE": tmp_path / "file", "OTHER": tmp_path / "other", "THERE": place / "there"}
    more = [places.get(word, word) for word in more]
    result = generate(place, tmp_path / "out", *more)
    said = " ".join(result.output.split())
    assert result.exit_code == 1 and message in said.rpartition("Error: ")[2] and "not foreseen" not in said, result.output


def test_a_column_and_a_batch_are_of_a_file(place, tmp_path) -> None:
    file = place / "prompts.txt"
    said = call("generate", file, "--model", place / "cascade", "--output", tmp_path / "x.png").output
    assert f"which is a file; for the prompts in it give --prompts {file}" in " ".join(said.split())
    for more in (["--column", "words"], ["--batch-size", 2]):
        said = call("generate", "a red cube", "--model", place / "cascade", "--output", tmp_path / "x.png", *more).output
        assert "are about a file of prompts; give one as --prompts" in " ".join(said.split())
