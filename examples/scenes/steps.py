"""A recipe as commands, each of which makes something: those whose product is missing or old are run, in slices of time."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagen_diffusers.training.checkpoints import PROGRESS, list_checkpoints, steps_done

SHORTEST = 20.0  # seconds: with less left no step is begun
SPARE = 45.0  # seconds of a slice that a step needs beside its training: to start, to measure and to write
ASKED_EVERY = 0.2  # seconds
TOLD = 30  # last lines of what a step that failed has said


@dataclass(frozen=True)
class Step:
    """One command and what it makes.

    Args:
        arguments: the module and its flags.
        product: a file of what is made, written last; None for a step that is run every time.
        sources: a product older than one of these is made again.
        trained: of a stage, its folder and number of steps: it is done when so many are, and exported.
        limited: whether it takes --time_limit and goes on where it stopped, as stages do.
        needs: what must be there before it begins, of steps that may run beside others, and made by them as it shall be.
        shortest: seconds; with less left it is not begun.
        begins: a file that it writes first, in a folder of its own, which is removed where that file is older than a source.
        begun_of: more such sources of what is begun and not finished, which what is finished does not depend on.
        marked: whether the product is an empty file that stands for a command which has come to its end, time limits included.
    """

    arguments: list[str]
    product: Path | None
    sources: tuple[Path, ...] = ()
    trained: tuple[Path, int] | None = None
    limited: bool = False
    needs: tuple[Path, ...] = ()
    shortest: float = SHORTEST
    begins: Path | None = None
    begun_of: tuple[Path, ...] = ()
    marked: bool = False

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
        return not _older(self.product, sources)

    @property
    def goes_on(self) -> bool:
        """Whether it may be ended by its time, to go on later."""
        return self.limited or self.trained is not None

    @property
    def least(self) -> float:
        """Seconds that must be left."""
        return max(self.shortest, SPARE + SHORTEST) if self.goes_on else self.shortest

    def start(self, seconds: float, log: Path | None = None) -> subprocess.Popen:
        """Begin it with so many seconds left; what it says goes to the end of the log, where one is given."""
        if self.begins is not None and self.begins.exists() and _older(self.begins, (*self.sources, *self.begun_of)):
            shutil.rmtree(self.begins.parent)
        limit = [f"--time_limit={seconds - SPARE:.0f}"] if self.goes_on and seconds != float("inf") else []
        command = [sys.executable, "-m", *self.arguments, *limit]
        print(*command[1:], *([f"(see {log})"] if log else []), flush=True)
        if log is None:
            return subprocess.Popen(command)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as said:
            return subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)


@contextmanager
def leaving_at_sigterm() -> Iterator[None]:
    """SIGTERM raises `SystemExit`, as SIGINT raises `KeyboardInterrupt`: by itself it would end this program alone, and not its steps."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)  # as shells count

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@leaving_at_sigterm()
def run(steps: Sequence[Step], time_limit: float, at_once: int = 1, logs: Path | None = None) -> bool:
    """Run what is not done yet; whether all of it is done now, or time ran out first.

    Args:
        steps: in an order in which each can be made of what those before it made.
        time_limit: in seconds.
        at_once: so many steps side by side, where what they need is there; another one begins when one of them ends.
        logs: a folder for what each of them says; by default they all say it here.

    Raises:
        ChildProcessError: for a step that fails, or ends well and has not made its product, after those beside it, and those that `needs`
            shows not to need it.
    """
    end, begun = time.monotonic() + time_limit, set()
    running: dict[int, subprocess.Popen] = {}
    failures: list[ChildProcessError] = []
    time_is_up = False
    try:
        while True:
            for i in [i for i, process in running.items() if process.poll() is not None]:
                failure = _ended(steps[i], running.pop(i), _log(logs, steps, i))
                if failure is not None:
                    failures.append(failure)
                elif steps[i].goes_on and not steps[i].done:
                    time_is_up = True
            seconds = end - time.monotonic()
            may = [] if time_is_up else _next(steps, begun, seconds, alone=not running, failed=bool(failures))
            for i in may[: at_once - len(running)]:
                begun.add(i)
                running[i] = steps[i].start(seconds, _log(logs, steps, i))
            if not running and failures:
                raise failures[0]
            if not running:
                return not time_is_up and all(i in begun or step.done for i, step in enumerate(steps))
            time.sleep(ASKED_EVERY)
    finally:  # after an interrupt, or SIGTERM: stages end their step and keep it
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _older(path: Path, sources: Sequence[Path]) -> bool:
    return any(source.exists() and path.stat().st_mtime_ns < source.stat().st_mtime_ns for source in sources)


def _next(steps: Sequence[Step], begun: set[int], seconds: float, *, alone: bool, failed: bool) -> list[int]:
    """Which steps may begin with so many seconds left; where nothing runs and none is ready, the first, which says what it misses."""
    missing = {step.product for step in steps if not step.done}  # what is made anew is not taken before
    left = [i for i, step in enumerate(steps) if i not in begun and not step.done]
    there = [i for i in left if all(path.exists() and path not in missing for path in steps[i].needs)]
    ready = [i for i in there if steps[i].needs or not failed]
    if alone and not ready and not failed:
        ready = left[:1]
    short = [i for i in ready if steps[i].least > seconds]
    waiting = next((i for i in short if not steps[i].needs), len(steps))  # what says no needs may need what comes before it
    return [i for i in ready if i not in short and (steps[i].needs or i < waiting)]


def _log(logs: Path | None, steps: Sequence[Step], number: int) -> Path | None:
    return logs and logs / f"{number:02}-{steps[number].arguments[0].rpartition('.')[2]}.log"


def _ended(step: Step, process: subprocess.Popen, log: Path | None) -> ChildProcessError | None:
    """Leave the mark of a step that has come to its end, or tell the end of its log; what it is to be blamed for, if anything."""
    if process.returncode == 0:
        if step.marked and step.product is not None:
            step.product.touch()
        if step.done or step.product is None or step.goes_on:
            return None
        return ChildProcessError(f"{' '.join(step.arguments)} has ended, and {step.product} is not there, or older than what it is made of")
    if log is not None:
        lines = log.read_text("utf-8", errors="replace").replace("\r", "\n").splitlines()
        print(f"{log} ends with exit code {process.returncode}:", *lines[-TOLD:], sep="\n", file=sys.stderr, flush=True)
    where = "above" if log is None else f"in {log}"
    return ChildProcessError(f"{' '.join(step.arguments)} failed with exit code {process.returncode}; what it said is {where}")
