"""The best of several images first, by whatever judges them."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from examples.scenes.captions import listing
from examples.scenes.prompts import KINDS, rows
from examples.scenes.raytrace import render
from examples.scenes.reading import asked_for
from examples.scenes.scene import relation, sample_scene, scene_from
from examples.scenes.scorer import rate
from imagen_diffusers.cli.best import said
from imagen_diffusers.evaluation.ranking import rank
from imagen_diffusers.images import read_settings
from imagen_diffusers.pipelines.image_inputs import images_to_tensor

from .measures import bright, darkest
from .test_cli import call, folder  # noqa: F401 (a fixture)


def mistaken(images, given):
    return {}[len(images)]  # the first image alone: no other is made


def gray(level: float) -> Image.Image:
    return Image.new("RGB", (8, 8), (round(level * 255),) * 3)


def test_the_best_is_first_and_equal_ones_stay_in_order() -> None:
    images = [gray(level) for level in (0.5, 0.25, 0.75, 0.25)]
    assert rank(images, "a red cube", darkest) == [1, 3, 0, 2]
    assert rank(torch.stack([torch.full((3, 8, 8), level) for level in (0.5, 0.1)]), "a red cube", darkest) == [1, 0]


def test_the_next_judgement_decides_where_the_first_leaves_images_equal() -> None:
    images = [gray(level) for level in (0.1, 0.6, 0.3, 0.9)]
    assert rank(images, "a red cube", bright) == [3, 1, 2, 0]  # light, and of these the lightest


def test_a_scorer_may_read_more_than_the_prompt_and_find_nothing_to_judge() -> None:
    told: list = []

    def by_row(images, given):
        told.extend(given)
        return {"x": [None, 0.5, [True, True], False]}

    assert rank([gray(0.1)] * 4, {"prompt": "a red cube", "scene": 3}, by_row) == [2, 1, 3, 0]
    assert told == [{"prompt": "a red cube", "scene": 3}] * 4


def test_what_is_no_number_comes_last() -> None:
    for values, order in (([0.1, math.nan, 0.3], [2, 0, 1]), ([math.nan, 0.3, math.nan, 0.5], [3, 1, 0, 2])):
        assert rank([gray(0.1)] * len(values), "a red cube", lambda images, given, told=values: {"x": told}) == order


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(ValueError, match="it must judge each of them"):
        rank([gray(0.1)] * 3, "a red cube", lambda images, given: {"x": [1.0]})
    for judged, message in (
        ([1.0] * 3, "the scorer returned a list; it must return a dictionary"),
        ({"x": 1.0}, 'the scorer gave a float as "x"; give a list with a value for each image'),
        ({"x": ["good"] * 3}, """the scorer gave 'good' as "x" of an image; give a value"""),
    ):
        with pytest.raises(ValueError, match=message):
            rank([gray(0.1)] * 3, "a red cube", lambda images, given, judged=judged: judged)  # pyright: ignore[reportArgumentType]
    for nothing in (None, float("nan")):
        with pytest.raises(ValueError, match="the scorer judged none of the images"):
            rank([gray(0.1)] * 3, "a red cube", lambda images, given, value=nothing: {"x": [value] * 3})
    with pytest.raises(ValueError, match="at least one image"):
        rank([], "a red cube", darkest)


def test_the_oracle_finds_the_image_that_shows_the_prompt() -> None:
    """True renders of two scenes: for each scene's prompt its own is the best."""
    some = rows(2, ("one object", "two objects"))
    images = (render([scene_from(row["scene"]) for row in some], 256, samples=1) + 1) / 2
    for i, row in enumerate(some):
        assert rank(images, row["prompt"], rate)[0] == i


def test_prompts_are_read_back_to_what_they_ask_for() -> None:
    for row in rows(60, tuple(KINDS)):
        scene, asked = scene_from(row["scene"]), asked_for(row["prompt"])
        names = [{**named, "texture": named.get("texture", "plain")} for named in asked.objects]
        assert names == [{name: getattr(o, name) for name in ("shape", "color", "material", "size", "texture")} for o in scene.objects]
        assert asked.relations == [relation(scene.objects[0], o) for o in scene.objects[1:]]


def test_objects_that_are_only_listed_are_read_back_too() -> None:
    scene = sample_scene(3, num_objects=3, unnamed_share=0.0)
    asked = asked_for(listing(scene))
    assert asked.objects == [{"shape": o.shape, "color": o.color} for o in scene.objects]
    assert asked.relations == [None, None]
    told = asked_for("a red cube left of a blue cone and behind a green sphere and an orange cylinder")
    assert [named["shape"] for named in told.objects] == ["cube", "cone", "sphere", "cylinder"]
    assert told.relations == ["left of", "behind", None]


@pytest.mark.thorough
def test_the_command_keeps_the_best_and_says_its_seed(folder, tmp_path) -> None:  # noqa: F811
    plain = ["generate", "a red cube", "--model", folder, "--dtype", "float32", "--stop-at", 1, "--seed", 5]
    assert call(*plain, "--num-images-per-prompt", 4, "--output", tmp_path / "all.png").exit_code == 0
    images = [Image.open(tmp_path / f"all-{i + 1}.png") for i in range(4)]
    order = rank(images, "a red cube", darkest)
    assert order != [0, 1, 2, 3]
    result = call(*plain, "--best-of", 4, "--scorer", "tests.measures:darkest", "--output", tmp_path / "best.png")
    assert result.exit_code == 0, result.output
    assert f"best.png (16x16, seed {5 + order[0]})" in result.output.replace("\n", "")
    told = [line for line in result.stdout.splitlines() if line.startswith("seed ")]
    judged = darkest(images_to_tensor("images", images), [{}] * 4)
    assert told == [f"seed {5 + i}: {', '.join(f'{name} {values[i]:.4g}' for name, values in judged.items())}" for i in order]
    assert Image.open(tmp_path / "best.png").tobytes() == images[order[0]].tobytes()
    assert read_settings(tmp_path / "best.png")["seed"] == 5 + order[0]
    two = [*plain, "--best-of", 4, "--num-images-per-prompt", 2, "--scorer", "tests.measures:darkest", "--output", tmp_path / "two.png"]
    assert call(*two).exit_code == 0
    assert [read_settings(tmp_path / f"two-{i}.png")["seed"] for i in (1, 2)] == [5 + i for i in order[:2]]
    assert call("generate", "--from", tmp_path / "best.png", "--output", tmp_path / "again.png").exit_code == 0
    assert Image.open(tmp_path / "again.png").tobytes() == images[order[0]].tobytes()


@pytest.mark.parametrize("words", [["edit", "IMAGE", "a cube"], ["vary", "IMAGE"]])
def test_the_best_of_edits_is_kept(folder, tmp_path, words) -> None:  # noqa: F811
    image, best = tmp_path / "image.png", tmp_path / "best.png"
    Image.effect_noise((64, 64), 60).save(image)
    plain = [image if word == "IMAGE" else word for word in words] + [
        "--model",
        folder,
        "--strength",
        1,
        "--stop-at",
        1,
        "--num-inference-steps",
        1,
    ]
    result = call(*plain, "--best-of", 3, "--seed", 5, "--scorer", "tests.measures:darkest", "--output", best)
    assert result.exit_code == 0, result.output
    told = [line.split() for line in result.stdout.splitlines() if line.startswith("seed ")]
    assert len(told) == 3 and told[0] == max(told, key=lambda words: float(words[-1]))
    assert told[0][1] == f"{read_settings(best)['seed']}:"
    clip = call(*plain, "--best-of", 2, "--scorer", "./nowhere", "--output", best)
    said = {"edit": '"./nowhere" is not there', "vary": '--scorer "./nowhere" is a CLIP, which compares images with a prompt'}[words[0]]
    assert clip.exit_code == 1 and said in clip.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--best-of", 4], "give both, or neither"),
        (["--scorer", "tests.measures:darkest"], "give both, or neither"),
        (["--best-of", 2, "--num-images-per-prompt", 3, "--scorer", "tests.measures:darkest"], "of which 3 images cannot be kept"),
        (["--best-of", 2, "--scorer", "tests.measures:nothing"], "tests.measures holds no function nothing"),
        (
            ["--best-of", 2, "--scorer", "tests.test_ranking:mistaken"],
            "--scorer tests.test_ranking:mistaken failed with KeyError: 1; --debug",
        ),
        (
            ["--best-of", 2, "--scorer", "json"],
            '"json" is not there: it is no path, no Hub id, which has the form "user/name", and no function',
        ),
        (["--best-of", 2, "--scorer", "nowhere.at_all:nothing"], "nowhere.at_all:nothing is not there: no module nowhere"),
    ],
)
def test_bad_rankings_are_one_line(folder, tmp_path, words, message) -> None:  # noqa: F811
    result = call("generate", "a red cube", "--model", folder, "--output", tmp_path / "x.png", *words)
    assert result.exit_code == 1
    assert message in result.output.replace("\n", " ")
    assert not (tmp_path / "x.png").exists()


def test_judgements_are_said_in_words() -> None:
    assert list(map(said, (True, False, None, [True, False, True], 0.123456, 2))) == ["yes", "no", "not judged", "2 of 3", "0.1235", "2"]
    assert list(map(said, (np.bool_(True), torch.tensor(False), float("nan"), torch.tensor(0.5)))) == ["yes", "no", "not judged", "0.5"]
