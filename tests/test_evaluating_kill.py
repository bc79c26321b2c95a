"""Evaluations that are killed at any moment and started again write the same report, bit for bit."""

import random
import shutil
import time
from pathlib import Path

import pytest
import torch

from imagen_diffusers.evaluation.generating import sweep
from imagen_diffusers.evaluation.metrics import Judged
from imagen_diffusers.evaluation.realism import Realism
from imagen_diffusers.evaluation.runs import Evaluation, evaluate
from imagen_diffusers.evaluation.statistics import Statistics

from .conftest import make_pipeline, seeded
from .forking import start
from .measures import bright, means

ROWS = [{"prompt": f"a {color} {shape}"} for color in ("red", "blue", "green") for shape in ("cube", "sphere")]
KILLS = 12


def run(folder: Path) -> None:
    """14 images at two guidance scales, in five groups each, the last of which is short."""
    torch.set_num_threads(1)
    reference = Statistics.of(means(torch.rand(40, 3, 8, 8, generator=seeded())), means.fingerprint, keep_features=True)
    evaluation = Evaluation((ROWS * 3)[:14], [Realism(means, ["fid", "kid"], reference), Judged("bright", bright)], folder, batch_size=3)
    pipe = make_pipeline()
    evaluate(pipe, evaluation, sweep(pipe, "guidance_scale", [1, 3], stop_at=1, num_inference_steps=2))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def alone(folder: Path) -> dict[str, bytes]:
    """What one process writes that is not disturbed."""
    process = start(run, folder)
    process.join()
    assert process.exitcode == 0
    found = files(folder)
    assert {"report.json", "report.md", "curve.png", "run.json"} < found.keys() and len(found) == 4 + 2 * 5
    return found


@pytest.mark.slow
def test_killed_runs_go_on_to_the_same_report(tmp_path) -> None:
    whole = alone(tmp_path / "whole")
    dice, folder, kills, inside = random.Random(0), tmp_path / "report", 0, 0
    while kills < KILLS:
        process = start(run, folder)
        there = len(list(folder.rglob("group-*.safetensors")))
        while process.is_alive() and len(list(folder.rglob("group-*.safetensors"))) <= there:
            time.sleep(0.0005)
        time.sleep(dice.random() * 0.05)
        process.kill()
        process.join()
        if process.exitcode == 0:
            assert files(folder) == whole
            shutil.rmtree(folder)
            continue
        kills += 1
        inside += not (folder / "report.json").exists()
        assert all(whole[name] == content for name, content in files(folder).items() if name.endswith(".safetensors"))
    process = start(run, folder)
    process.join()
    assert process.exitcode == 0 and files(folder) == whole
    assert inside > KILLS // 2
