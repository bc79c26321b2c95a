"""Contestants measured in turns, so that ratios hold when the machine's speed drifts; memory in a process of its own."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

Name = TypeVar("Name")
Seconds = Mapping[Name, list[float]]
DEVICE = "BENCHMARK_DEVICE"  # in the environment, so that processes of their own measure there, too


def turns(contestants: Mapping[Name, Callable[[], Any]], runs: int, *, title: str = "", leave: bool = True) -> dict[Name, list[float]]:
    """Seconds of each contestant in each of `runs` rounds, after one that warms up."""
    seconds: dict[Name, list[float]] = {name: [] for name in contestants}
    for run in tqdm(range(runs + 1), desc=title, leave=leave):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            if run > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def times_as_fast(seconds: Seconds, first: Any, other: Any) -> float:
    """Median over the rounds of how many times as fast `other` was as `first` in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[first], seconds[other], strict=True))


def peak_memory(module: str, *arguments: str) -> float:
    """What `python -m module arguments` says by `print_peak_memory`, in GiB."""
    said = subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(said.splitlines()[-1])["peak"]


def print_peak_memory() -> None:
    """This process's largest size so far: of the GPU's memory where there is one, else of /proc (Linux)."""
    kind = os.environ.get(DEVICE, "cpu")
    if kind == "mps":  # whose driver keeps what was freed
        peak = torch.mps.driver_allocated_memory() / 2**30
    elif kind != "cpu":
        peak = torch.get_device_module(kind).max_memory_allocated() / 2**30
    else:  # not getrusage, whose peak begins with the parent's
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak = int(status["VmHWM"].split()[0]) / 2**20
    print(json.dumps({"peak": peak}))


def table(head: list[str], rows: list[list[str]], *, words: int = 1) -> str:
    """Markdown, the first `words` columns to the left and figures to the right."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
