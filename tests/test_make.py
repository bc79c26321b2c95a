"""The whole recipe of the scenes in one command, with everything tiny."""

import subprocess
import sys
from pathlib import Path

import pytest

from examples.scenes.make import Plan, Step, run, steps

TINY = ("--scenes=4 2 2", "--steps=2 2 2", "--batch_sizes=2 2 2", "--text_steps=2 2", "--oracle_scenes=2", "--oracle_steps=2", "--count=2")


def test_steps_come_in_order_and_only_those_that_are_missing(tmp_path) -> None:
    todo = list(steps(Plan(), tmp_path, tmp_path / "pipeline"))
    assert [step.arguments[0] for step in todo] == ["train_text_encoder", "train", "train", "train", "oracle", "assemble", "evaluate"]
    assert not any(step.done for step in todo)
    (tmp_path / "pipeline" / "text_encoder").mkdir(parents=True)
    (tmp_path / "base" / "checkpoint-20000").mkdir(parents=True)
    (tmp_path / "sr256" / "checkpoint-500").mkdir(parents=True)
    assert [step.done for step in todo] == [True, True, False, False, False, False, False]


def test_a_slice_ends_when_its_time_does(tmp_path, monkeypatch) -> None:
    called = []
    monkeypatch.setattr("subprocess.run", lambda command, check: called.append(command))
    step = Step(["train", "--stage=base"], tmp_path / "checkpoint-9", sliced=True)
    assert not run(iter([step, step]), 100.0)  # the first leaves no last checkpoint: its time is up, and ours
    assert len(called) == 1
    limit = float(called[0][-1].removeprefix("--time_limit="))
    assert 60 < limit < 100
    assert not run(iter([step]), 5.0)
    assert len(called) == 1
    (tmp_path / "checkpoint-9").mkdir()
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
