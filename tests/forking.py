"""Processes that fork from one that has imported everything: they start in no time, and are processes of the system all the same."""

import multiprocessing
import os
import runpy
import socket
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

# Not forks of the tests' own process, whose threads they would lack.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.test_training", "tests.freezing"])


def start(function, *args):
    """A process that calls a module's function, with as many threads as here: sums are then taken in the same order."""
    process = CONTEXT.Process(target=_call, args=(torch.get_num_threads(), function, *args), daemon=True)
    process.start()
    return process


def result(function, *args) -> Any:
    """What a module's function returns, or raises, in a process of its own."""
    with ProcessPoolExecutor(1, CONTEXT) as pool:
        return pool.submit(_call, torch.get_num_threads(), function, *args).result()


def run_ranks(count: int, script: Path, *args: object) -> None:
    """Run a script in processes that compute together, in the environment that `torch.distributed.run` gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
    errors = [script.with_suffix(f".{rank}.txt") for rank in range(count)]
    ranks = [start(_rank, {**group, "RANK": n, "LOCAL_RANK": n}, errors[n], [script, *args]) for n in range(count)]
    while all(rank.is_alive() or rank.exitcode == 0 for rank in ranks) and any(rank.is_alive() for rank in ranks):
        wait([rank.sentinel for rank in ranks if rank.is_alive()], timeout=1)  # the last may end between these two lines
    for rank in ranks:
        rank.kill()  # one that waits for another that has failed
    assert [rank.exitcode for rank in ranks] == [0] * count, "".join(path.read_text()[-3000:] for path in errors if path.exists())


def _call(threads: int, function, *args) -> Any:
    torch.set_num_threads(threads)
    return function(*args)


def _rank(place: dict[str, object], error: Path, words: list[object]) -> None:
    os.dup2(os.open(error, os.O_WRONLY | os.O_CREAT), 2)
    os.environ |= {**{name: str(value) for name, value in place.items()}, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    sys.argv = [str(word) for word in words]
    runpy.run_path(sys.argv[0], run_name="__main__")
