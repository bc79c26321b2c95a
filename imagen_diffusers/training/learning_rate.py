"""How the learning rates of a run go on: over its steps, or over the time that it has."""

import logging
import time
from typing import Any

import torch
from accelerate.utils import broadcast
from diffusers.optimization import get_scheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .run_settings import TrainSettings

logger = logging.getLogger(__name__)


class LearningRate:
    """diffusers' schedule of the settings, which `step` moves on.

    With `lr_by_time` a run that ends at its `time_limit` has gone through all of it, however many steps it took; after the warm-up, which
    is counted in steps, the clock says where it stands. Every run has a warm-up and a schedule of its own then, at its own rates, those
    that go on from a checkpoint, too; a checkpoint holds the steps taken, by which a run without `lr_by_time` goes on. All processes heed
    the main one's clock.
    """

    def __init__(self, optimizer: Optimizer, settings: TrainSettings, device: torch.device):
        self.settings, self.device = settings, device
        if settings.lr_warmup_steps and settings.lr_scheduler == "constant":
            told = 'lr_scheduler "constant" has no warm-up, "constant_with_warmup" has one'
            logger.warning(f"lr_warmup_steps={settings.lr_warmup_steps} does nothing: {told}")
        self.schedule: LambdaLR = get_scheduler(  # pyright: ignore[reportAttributeAccessIssue]
            settings.lr_scheduler,
            optimizer,
            num_warmup_steps=settings.lr_warmup_steps,
            num_training_steps=settings.steps,
            num_cycles=settings.lr_num_cycles,
            power=settings.lr_power,
        )
        self.steps = 0  # in all, those before a checkpoint included
        self._taken = 0  # steps of this run
        self.begin()

    @property
    def highest(self) -> float:
        """Of the first group of weights, now."""
        return float(self.schedule.get_last_lr()[0])

    def begin(self) -> None:
        """Let the clock begin now: with the time limit's own, after a checkpoint was loaded."""
        self._begun = self._warm = time.monotonic()  # and when the warm-up ended

    def step(self) -> None:
        self.steps += 1
        if self.settings.lr_by_time:
            self.schedule.last_epoch = self._reached() - 1  # to which the next line adds one
        self.schedule.step()

    def _reached(self) -> int:
        """The step of the schedule at which the run stands by the clock."""
        self._taken += 1
        warmup, total = self.settings.lr_warmup_steps, self.settings.steps
        now = time.monotonic()
        if self._taken <= warmup:
            self._warm = now
            return self._taken
        left = self._begun + self.settings.time_limit - self._warm
        passed = min(1.0, (now - self._warm) / left) if left > 0 else 1.0
        return int(broadcast(torch.tensor(int(warmup + passed * (total - warmup)), device=self.device)))  # pyright: ignore[reportArgumentType]

    def state_dict(self) -> dict[str, Any]:
        return {**self.schedule.state_dict(), "last_epoch": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """After the optimizer's, whose rates are those at the checkpoint and become those of this schedule, of the settings' highest."""
        self.steps = state["last_epoch"]
        if not self.settings.lr_by_time:
            self.schedule.load_state_dict({**state, "base_lrs": self.schedule.base_lrs})
        schedule = self.schedule
        rates = [base * factor(schedule.last_epoch) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
        for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
