"""Learning rates that go on by the clock."""

import math
import time
from types import SimpleNamespace

import pytest
import torch

from imagen_diffusers.training import learning_rate
from imagen_diffusers.training.checkpoints import Checkpoints, list_checkpoints
from imagen_diffusers.training.learning_rate import LearningRate

from .test_training import fit, settings


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(learning_rate.time, "monotonic", lambda: self.now)


def rates(tmp_path, clock, seconds: list[float], **changes) -> list[float]:
    """Of the steps that end after so many seconds each; the last is that of a step that is not taken."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = LearningRate(optimizer, settings(tmp_path, 10_000, learning_rate=1.0, **changes), torch.device("cpu"))
    told = [schedule.highest]
    for passed in seconds:
        clock.now += passed
        optimizer.step()
        schedule.step()
        told.append(schedule.highest)
    return told


def test_the_clock_leads_the_cosine_to_its_end_however_many_steps_there_are(tmp_path, monkeypatch) -> None:
    clock = Clock(monkeypatch)
    for count in (10, 40):
        told = rates(tmp_path, clock, [100 / count] * count, lr_by_time=True, time_limit=100.0)
        expected = [(1 + math.cos(math.pi * i / count)) / 2 for i in range(count + 1)]
        assert told == pytest.approx(expected, abs=1e-3)  # the schedule has 10,000 steps, and stands at a whole one


def test_a_warm_up_is_counted_in_steps_and_what_is_late_stays_at_the_end(tmp_path, monkeypatch) -> None:
    told = rates(tmp_path, Clock(monkeypatch), [10, 10, 40, 40, 40], lr_by_time=True, time_limit=100.0, lr_warmup_steps=2)
    assert told == pytest.approx([0, 0.5, 1, 0.5, 0, 0], abs=1e-3)


def test_without_it_steps_lead(tmp_path, monkeypatch) -> None:
    told = rates(tmp_path, Clock(monkeypatch), [1000.0] * 3)
    assert told == pytest.approx([(1 + math.cos(math.pi * i / 10_000)) / 2 for i in range(4)], rel=1e-6)


def test_a_run_by_the_clock_trains_and_goes_on(tmp_path) -> None:
    for steps in (2, 4):  # the second has a schedule of its own
        fit(tmp_path, steps, lr_by_time=True, time_limit=1000.0, checkpointing_steps=2)
        assert list_checkpoints(tmp_path)[-1].name == f"checkpoint-{steps}"


def test_the_time_in_which_a_checkpoint_is_loaded_is_not_counted(tmp_path, monkeypatch) -> None:
    fit(tmp_path, 2, checkpointing_steps=2)
    lost, told, load, step = [0], [], Checkpoints.load, LearningRate.step

    def load_slowly(self, path):
        lost[0] += 1000
        return load(self, path)

    def and_tell(self):
        step(self)
        told.append(self.highest)

    monkeypatch.setattr(learning_rate, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + lost[0]))
    monkeypatch.setattr(Checkpoints, "load", load_slowly)
    monkeypatch.setattr(LearningRate, "step", and_tell)
    fit(tmp_path, 4, learning_rate=1e-3, lr_by_time=True, time_limit=1000.0)
    assert lost == [1000] and len(told) == 2 and min(told) > 9e-4


@pytest.mark.parametrize("again", [True, False])
def test_a_checkpoint_of_the_clock_is_gone_on_from_by_steps_and_by_the_clock(tmp_path, monkeypatch, again) -> None:
    clock, first = Clock(monkeypatch), torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    made = settings(tmp_path, 100, learning_rate=1.0, lr_by_time=True, time_limit=100.0)
    schedule = LearningRate(first, made, torch.device("cpu"))
    for _ in range(20):
        clock.now += 5
        first.step()
        schedule.step()
    assert schedule.highest == pytest.approx(0, abs=1e-6)
    more = {"lr_by_time": True, "time_limit": 100.0, "lr_warmup_steps": 2} if again else {}
    second = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3.0)
    other = LearningRate(second, settings(tmp_path, 100, learning_rate=3.0, **more), torch.device("cpu"))
    second.load_state_dict(first.state_dict())
    other.load_state_dict(schedule.state_dict())
    told = [second.param_groups[0]["lr"]]
    for _ in range(3):
        clock.now += 10
        second.step()
        other.step()
        told.append(second.param_groups[0]["lr"])
    if again:  # from its own beginning, at its own rate
        assert told == pytest.approx([0, 1.5, 3, 3 * (1 + math.cos(math.pi / 8)) / 2], abs=0.05)
    else:  # as a run by steps, of which 20 are taken, at its own rate, too
        assert told == pytest.approx([1.5 * (1 + math.cos(math.pi * i / 100)) for i in range(20, 24)], rel=1e-6)


def test_a_constant_rate_has_no_clock(tmp_path) -> None:
    with pytest.raises(ValueError, match='lr_by_time moves a rate that falls, and lr_scheduler is "constant": give "cosine"'):
        settings(tmp_path, 4, lr_by_time=True, time_limit=10.0, lr_scheduler="constant")


def test_the_clock_needs_an_end(tmp_path) -> None:
    with pytest.raises(ValueError, match="lr_by_time needs the time that the run has: give time_limit its seconds"):
        settings(tmp_path, 4, lr_by_time=True)


def test_a_warm_up_that_the_schedule_has_not_is_said(tmp_path, caplog) -> None:
    for name, told in (("constant_with_warmup", False), ("constant", True)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        LearningRate(optimizer, settings(tmp_path, 4, lr_scheduler=name, lr_warmup_steps=5), torch.device("cpu"))
        assert ("lr_warmup_steps=5 does nothing" in caplog.text) == told
