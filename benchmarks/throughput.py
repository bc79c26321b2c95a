"""How many images a minute the bundled cascade draws: the batch size that is best, and one process against two.

    python -m benchmarks.throughput

Contestants take turns. Processes of one thread each are begun first, and draw at the same time.
"""

import argparse
import statistics
import subprocess
import sys
from functools import partial

import torch

from examples.scenes.evaluate import load_cascade

from .ceilings import machine
from .generate import PROMPT
from .timing import table, turns

IMAGES, BATCHES, RUNS = 8, (1, 2, 4, 8), 2
STAGES = {2: "256px", 3: "1024px"}


def draw(pipe, count: int, batch: int, stop_at: int) -> None:
    for start in range(0, count, batch):
        generators = [torch.Generator().manual_seed(start + i) for i in range(batch)]
        pipe([PROMPT] * batch, generator=generators, stop_at=stop_at, output_type="pt")


class Worker:
    """A process with one thread that draws on every line that it is given."""

    def __init__(self, batch: int):
        command = [sys.executable, "-m", "benchmarks.throughput", "--worker", str(batch)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self, count: int, stop_at: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count} {stop_at}\n")
        self.process.stdin.flush()

    def wait(self) -> None:
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise RuntimeError(f"a worker ended with exit code {self.process.wait()}")

    def end(self) -> None:
        self.process.communicate()


def work(batch: int) -> None:
    """A worker's: until its standard input ends."""
    torch.set_num_threads(1)
    pipe = load_cascade()
    for line in sys.stdin:
        count, stop_at = map(int, line.split())
        draw(pipe, count, batch, stop_at)
        print("drawn", flush=True)


def together(workers: list[Worker], stop_at: int) -> None:
    for worker in workers:
        worker.begin(IMAGES // len(workers), stop_at)
    for worker in workers:
        worker.wait()


def report() -> str:
    pipe, workers = load_cascade(), [Worker(4) for _ in range(2)]
    rows, threads = [], torch.get_num_threads()
    for stop_at, size in STAGES.items():
        ways = {f"one process, batches of {n}": partial(draw, pipe, IMAGES, n, stop_at) for n in BATCHES}
        ways["two processes of one thread, batches of 4"] = partial(together, workers, stop_at)
        for way, seconds in turns(ways, RUNS, title=size).items():
            middle = statistics.median(seconds)
            rows.append([size, way, f"{60 * IMAGES / middle:.1f}", f"{60 * IMAGES / max(seconds):.1f} to {60 * IMAGES / min(seconds):.1f}"])
    for worker in workers:
        worker.end()
    said = f"{IMAGES} images a round, {RUNS} rounds, {threads} threads in one process; what loading takes is not counted."
    return f"{said}\n\n{table(['size', 'way', 'images a minute', 'from, to'], rows, words=2)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker)
    print(f"{machine()}\n\n{report()}")


if __name__ == "__main__":
    main()
