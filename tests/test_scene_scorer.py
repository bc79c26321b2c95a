"""Scenes as an evaluation reads them: their prompts, and the oracle as its scorer and its extractor."""

import json

import pytest
import torch

from examples.scenes import evaluate
from examples.scenes.oracle import Oracle
from examples.scenes.prompts import KINDS, add_renders, rows
from examples.scenes.scene import HELD_OUT
from examples.scenes.scorer import features, judge
from imagen_diffusers.evaluation.metrics import Judged
from imagen_diffusers.evaluation.prompts import read_prompts
from imagen_diffusers.evaluation.super_resolution import square

from .conftest import seeded


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> tuple[list[dict], torch.Tensor]:
    """Four rows, written and read again, and true images of them."""
    folder = tmp_path_factory.mktemp("prompts")
    made = rows(4, ("one object", "two objects"))
    add_renders(made, folder, 256)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    read = read_prompts(folder / "metadata.jsonl")
    return read, torch.cat([square(folder / row["file_name"], 256) for row in read])


def test_kinds_take_turns_and_stay_what_they_are() -> None:
    made = rows(9, tuple(KINDS))
    assert [row["kind"] for row in made] == list(KINDS) * 3
    assert [len(row["scene"]["objects"]) for row in made] == [1, 2, 1] * 3
    first = [row["scene"]["objects"][0] for row in made]
    assert [(o["color"], o["shape"]) in HELD_OUT for o in first] == [False, False, True] * 3
    assert [row["scene"] for row in rows(3, ("two objects",))] == [row["scene"] for row in made[1::3]]
    assert all(row["other_scene"] != row["scene"] and len(row["other_scene"]["objects"]) == len(row["scene"]["objects"]) for row in made)


@pytest.mark.thorough
def test_a_row_without_another_of_its_kind_is_judged_by_its_own_prompt_alone(table) -> None:
    alone = rows(3, ("one object", "two objects"))
    assert alone[1]["other_scene"] is None and alone[0]["other_scene"] == alone[2]["scene"]
    judged = judge(table[1][:1], [alone[1]])
    assert judged["two objects: the same, prompts shuffled"] == [None]
    assert judged["two objects: number of objects"] != [None]


def test_true_images_are_right_and_those_of_other_prompts_wrong(table) -> None:
    read, images = table
    scorer = Judged("oracle", judge)
    found = scorer.figures(scorer.measure(images, read))
    right = found["prompts right"]
    assert right.value >= 0.75 and right.count == 4  # the oracle misreads one true image in twenty
    assert right.value == sum(found[f"{kind}: every attribute and relation"].value for kind in ("one object", "two objects")) / 2
    for kind, objects in (("one object", 2), ("two objects", 4)):
        assert found[f"{kind}: the same, prompts shuffled"].value == 0.0
        assert found[f"{kind}: an object's colour and shape"].count == objects
    assert not any(name.startswith("unseen pair") for name in found)  # of which there is none


@pytest.mark.thorough
def test_features_are_one_row_an_image_of_any_size(table) -> None:
    _, images = table
    small = features(images[:2])
    assert small.shape == (2, features.width) and not torch.equal(small[0], small[1])
    large = torch.cat([torch.cat([images[:2]] * 4, 3)] * 4, 2)  # sixteen windows, each of them the small image
    assert torch.allclose(features(large), small, rtol=1e-4, atol=1e-4)
    assert features.fingerprint["oracle"] != features.fingerprint["read_size"] == 256
    assert Judged("oracle", judge).fingerprint["oracle"] == features.fingerprint["oracle"]  # other weights judge otherwise


def test_what_is_right_is_part_of_the_fingerprint(monkeypatch) -> None:
    before = judge.fingerprint
    monkeypatch.setattr(evaluate, "__file__", __file__)
    assert judge.fingerprint != before


def test_images_are_looked_at_once_and_only_where_they_are_read(table, monkeypatch) -> None:
    read, images = table[0], table[1].clone()  # which no test has looked at
    passes, forward = [], Oracle.forward
    monkeypatch.setattr(Oracle, "forward", lambda self, few: passes.append(len(few)) or forward(self, few))
    alone = features(images)
    assert passes == [4]
    judge(images, read)
    assert torch.equal(features(images), alone) and passes == [4] * 3  # the image and its mirror image


def test_what_the_oracle_cannot_judge_is_refused() -> None:
    images = torch.rand(1, 3, 64, 64, generator=seeded())
    with pytest.raises(ValueError, match="reads images of 256px, and these are of 64x64; sample the second stage as well, by --stop-at 2"):
        features(images)
    with pytest.raises(ValueError, match='a row has no "scene".*examples.scenes.prompts'):
        judge(torch.rand(1, 3, 256, 256, generator=seeded()), [{"prompt": "a red cube"}])
