"""Kill trials: runs that are killed again and again, at any moment, end bit for bit where the run that was not killed ends."""

import random
import shutil
import time
from pathlib import Path

import pytest
import torch

from imagen_diffusers.models.lora import add_lora
from imagen_diffusers.training.checkpoints import list_checkpoints

from .conftest import make_base
from .forking import start
from .test_training import assert_same_state, fit

STEPS = 60
TRIALS = {"base": 18, "sr": 16, "lora": 16}  # kills; of each kind at least INSIDE in the middle of a checkpoint
INSIDE = 6


def train(kind: str, folder: Path) -> None:
    """A checkpoint after each step, and all but the last three deleted."""
    torch.set_num_threads(1)
    unet = None
    if kind == "lora":
        unet = make_base()
        add_lora(unet, rank=2, seed=4)
    fit(folder, STEPS, kind == "sr", unet=unet, checkpointing_steps=1, checkpoints_total_limit=3)


def half_written(folder: Path) -> list[str]:
    return [p.name for p in folder.glob("checkpoint-*") if p.suffix in (".part", ".deleted")]


def number(path: Path) -> int:
    return int(path.name.split("-")[1])


def kept_checkpoints(process, folder: Path, kept: Path) -> dict[int, Path]:
    """Copies of a running process's checkpoints by their number, as far as they are not deleted meanwhile."""
    seen: dict[int, Path] = {}
    while process.is_alive():
        for path in list_checkpoints(folder):
            if number(path) in seen:
                continue
            try:
                seen[number(path)] = shutil.copytree(path, kept / path.name)
            except (FileNotFoundError, shutil.Error):
                shutil.rmtree(kept / path.name, ignore_errors=True)
        time.sleep(0.001)
    return seen


def kill_at_random(process, folder: Path, dice: random.Random) -> None:
    """One to three checkpoints from now, more often than not while one is being written."""
    there = list_checkpoints(folder)
    aim = (number(there[-1]) if there else 0) + dice.randint(1, 3)
    sign = folder / (f"checkpoint-{aim}.part" if dice.random() < 0.6 else f"checkpoint-{aim}")
    while process.is_alive() and not sign.exists():
        time.sleep(0.0005)
    time.sleep(dice.random() * (0.01 if sign.suffix else 0.06))
    process.kill()
    process.join()


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(TRIALS))
def test_every_resume_is_the_run_that_was_not_killed(tmp_path, kind) -> None:
    dice, folder = random.Random(kind), tmp_path / "killed"
    whole = start(train, kind, tmp_path / "whole")
    seen = kept_checkpoints(whole, tmp_path / "whole", tmp_path / "kept")
    assert whole.exitcode == 0
    last = tmp_path / "whole" / f"checkpoint-{STEPS}"

    kills = inside = compared = 0
    while kills < TRIALS[kind] or inside < INSIDE:
        process = start(train, kind, folder)
        kill_at_random(process, folder, dice)
        if process.exitcode == 0:  # it had ended
            assert_same_state(last, folder / last.name)
            shutil.rmtree(folder)
            continue
        kills += 1
        inside += bool(half_written(folder))
        known = [path for path in list_checkpoints(folder) if number(path) in seen]
        for path in known:
            assert_same_state(seen[number(path)], path)
        compared += len(known)
    final = start(train, kind, folder)
    final.join()
    assert final.exitcode == 0
    assert_same_state(last, folder / last.name)
    assert not half_written(folder)
    print(f"{kind}: {kills} kills, {inside} inside a checkpoint, {compared} checkpoints compared on the way")
