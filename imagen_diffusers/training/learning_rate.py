"""How the learning rates of a run go on: over its steps, or over the time that it has."""

import time
from typing import Any

import torch
from accelerate.utils import broadcast
from diffusers.optimization import get_scheduler
from torch.optim import Optimizer

from .run_settings import TrainSettings


class LearningRate:
    """diffusers' schedule of the settings, which `step` moves on.

    With `lr_by_time` a run that ends at its `time_limit` has gone through all of it, however many steps it took; after the warm-up, which
    is counted in steps, the clock says where it stands. Every run has a warm-up and a schedule of its own then, those that go on from a
    checkpoint, too. All processes heed the main one's clock.
    """

    def __init__(self, optimizer: Optimizer, settings: TrainSettings, device: torch.device):
        self.settings, self.device = settings, device
        self.schedule = get_scheduler(
            settings.lr_scheduler,
            optimizer,
            num_warmup_steps=settings.lr_warmup_steps,
            num_training_steps=settings.max_train_steps,
            num_cycles=settings.lr_num_cycles,
            power=settings.lr_power,
        )
        self._begun = time.monotonic()
        self._taken, self._warm = 0, self._begun  # steps of this run, and when its warm-up ended

    @property
    def highest(self) -> float:
        """Of the first group of weights, now."""
        return self.schedule.get_last_lr()[0]

    def step(self) -> None:
        if self.settings.lr_by_time:
            self.schedule.last_epoch = self._reached() - 1  # to which the next line adds one
        self.schedule.step()

    def _reached(self) -> int:
        """The step of the schedule at which the run stands by the clock."""
        self._taken += 1
        warmup, total = self.settings.lr_warmup_steps, self.settings.max_train_steps
        now = time.monotonic()
        if self._taken <= warmup:
            self._warm = now
            return self._taken
        left = self._begun + self.settings.time_limit - self._warm
        passed = min(1.0, (now - self._warm) / left) if left > 0 else 1.0
        at = torch.tensor(warmup + passed * (total - warmup), dtype=torch.float64, device=self.device)
        return int(broadcast(at))  # pyright: ignore[reportArgumentType]

    def state_dict(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.schedule.load_state_dict(state)
