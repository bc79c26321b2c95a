"""The whole recipe of the scenes in one command, with everything tiny."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from examples.scenes.make import Plan, Step, run, steps

TINY = ("--scenes=4 2 2", "--steps=2 2 2", "--batch_sizes=2 2 2", "--text_steps=2 2", "--oracle_scenes=2", "--oracle_steps=2", "--count=2")


def trained(folder: Path, steps: int, exported: bool = True) -> None:
    """What a run leaves after so many steps."""
    checkpoint = folder / f"checkpoint-{steps}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "progress.json").touch()
    if exported:
        (folder / "unet").mkdir(exist_ok=True)
        (folder / "unet" / "config.json").touch()


def made(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def older(path: Path) -> None:
    os.utime(path, (1, 1))


def test_steps_come_in_order_and_only_those_that_are_missing(tmp_path) -> None:
    todo = list(steps(Plan(), tmp_path, tmp_path / "pipeline"))
    assert [step.arguments[0] for step in todo] == ["train_text_encoder", "train", "train", "train", "oracle", "assemble", "evaluate"]
    assert not any(step.done for step in todo)
    (tmp_path / "pipeline" / "text_encoder").mkdir(parents=True)
    assert not todo[0].done  # the tokenizer comes after it
    made(tmp_path / "pipeline" / "tokenizer" / "tokenizer.json")
    trained(tmp_path / "base", 20_000)
    trained(tmp_path / "sr256", 500)
    trained(tmp_path / "sr1024", 3000, exported=False)
    assert [step.done for step in todo] == [True, True, False, False, False, False, False]


def test_what_is_older_than_what_it_is_made_from_is_made_again(tmp_path) -> None:
    plan = replace(Plan(), steps=(20, 20, 20))
    for stage in ("base", "sr256", "sr1024"):
        trained(tmp_path / stage, 25)  # more than is asked for
    for path in ("tokenizer/tokenizer.json", "oracle/oracle.safetensors", "model_index.json"):
        made(tmp_path / "pipeline" / path)
    todo = list(steps(plan, tmp_path, tmp_path / "pipeline"))
    assert [step.done for step in todo] == [True] * 6 + [False]
    os.utime(tmp_path / "pipeline" / "tokenizer" / "tokenizer.json", (2**32, 2**32))
    assert [step.done for step in todo] == [True] * 6 + [False]  # a stage that was trained on another text encoder stays as it is
    older(tmp_path / "pipeline" / "model_index.json")
    assert [step.done for step in todo] == [True] * 5 + [False] * 2
    older(tmp_path / "sr256" / "unet" / "config.json")  # exported before the last checkpoint
    assert [step.done for step in todo] == [True] * 2 + [False] + [True] * 2 + [False] * 2


def test_a_slice_ends_when_its_time_does(tmp_path, monkeypatch) -> None:
    called = []
    monkeypatch.setattr("subprocess.run", lambda command, check: called.append(command))
    step = Step(["train", "--stage=base"], tmp_path / "unet" / "config.json", trained=(tmp_path, 9))
    assert not run(iter([step, step]), 100.0)  # the first leaves no last checkpoint: its time is up, and ours
    assert len(called) == 1
    limit = float(called[0][-1].removeprefix("--time_limit="))
    assert 60 < limit < 100
    assert not run(iter([step]), 5.0)
    assert len(called) == 1
    trained(tmp_path, 9)
    assert run(iter([step, step]), 5.0)


@pytest.mark.slow
def test_the_whole_recipe_runs_and_a_second_run_has_nothing_left_but_the_scores(tmp_path) -> None:
    command = [sys.executable, "-m", "examples.scenes.make", f"--folder={tmp_path}"]
    for flag in TINY:
        name, values = flag.split("=")
        command += [name, *values.split()]

    def output() -> str:
        made = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr[-2000:]
        return made.stdout

    assert output().count("-m examples.scenes.") == 7
    assert list((tmp_path / "pipeline" / "unet").glob("*fp16*.safetensors"))
    assert (tmp_path / "base" / "validation.jsonl").exists()
    assert output().count("-m examples.scenes.") == 1
