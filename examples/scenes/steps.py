"""A recipe as commands, each of which makes something: those whose product is missing or old are run, in slices of time."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagen_diffusers.training.checkpoints import PROGRESS, list_checkpoints, steps_done

SHORTEST = 20.0  # seconds: with less left no step is begun


@dataclass(frozen=True)
class Step:
    """One command and what it makes.

    Args:
        arguments: the module and its flags.
        product: a file of what is made, written last; None for a step that is run every time.
        sources: a product older than one of these is made again.
        trained: of a stage, its folder and number of steps: it is done when so many are, and exported.
        limited: whether it takes --time_limit and goes on where it stopped, as stages do.
        needs: what must be there before it begins, of steps that may run beside others.
    """

    arguments: list[str]
    product: Path | None
    sources: tuple[Path, ...] = ()
    trained: tuple[Path, int] | None = None
    limited: bool = False
    needs: tuple[Path, ...] = ()

    @property
    def done(self) -> bool:
        if self.product is None or not self.product.exists():
            return False
        sources = self.sources
        if self.trained is not None:
            folder, count = self.trained
            if steps_done(folder) < count:
                return False
            sources = (list_checkpoints(folder)[-1] / PROGRESS,)
        return all(self.product.stat().st_mtime_ns >= path.stat().st_mtime_ns for path in sources)

    @property
    def ready(self) -> bool:
        return all(path.exists() for path in self.needs)

    @property
    def goes_on(self) -> bool:
        """Whether it may be ended by its time, to go on later."""
        return self.limited or self.trained is not None

    def start(self, seconds: float) -> subprocess.Popen:
        limit = [f"--time_limit={seconds:.0f}"] if self.goes_on and seconds != float("inf") else []
        command = [sys.executable, "-m", *self.arguments, *limit]
        print(*command[1:], flush=True)
        return subprocess.Popen(command)


def run(steps: Sequence[Step], time_limit: float, at_once: int = 1) -> bool:
    """Run what is not done yet; whether all of it is done now, or time ran out first.

    Args:
        steps: in an order in which each can be made of what those before it made.
        time_limit: in seconds.
        at_once: so many steps side by side, where what they need is there.

    Raises:
        subprocess.CalledProcessError: for a step that fails, after those beside it.
    """
    end, begun = time.monotonic() + time_limit, set()
    while left := [i for i, step in enumerate(steps) if i not in begun and not step.done]:
        seconds = end - time.monotonic()
        if seconds < SHORTEST:
            return False
        few = [i for i in left if steps[i].ready][:at_once] or left[:1]  # which then says what it misses
        begun |= set(few)
        running = [steps[i].start(seconds - SHORTEST / 2) for i in few]
        for process in running:
            process.wait()
        for process in running:
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, process.args)
        if any(steps[i].goes_on and not steps[i].done for i in few):
            return False
    return True
