"""The page under load: many clients on the loopback, each asking again as soon as it is answered, and a second after it is refused.

    python -m benchmarks.web --clients 20 --seconds 300

Of the bundled base alone, with the preset "fast", so that many requests pass in the time.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from imagen_diffusers import ImagenCascadePipeline, bundled

from .ceilings import machine
from .generate import PROMPT
from .timing import table

WARM_UP = 0.25  # of the time, before which memory still grows
COMMAND = [sys.executable, "-c", "from imagen_diffusers.cli import app; app()", "web"]


@dataclass(frozen=True)
class Answer:
    """What became of one request: when it joined the line and was answered, and the sentence it was refused with, if it was."""

    client: int
    joined: float
    ended: float
    refusal: str | None = None


@contextmanager
def served(*options: str) -> Iterator[tuple[str, int]]:
    """The address of a page, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*COMMAND, "--port", str(port), *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and "http" in process.stdout.readline(), "the page did not start"
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def ask(http: httpx.AsyncClient, function: int, client: int, number: int) -> Answer:
    """One request, as the page sends it: joined to the line, and listened to until it is answered."""
    session = f"client-{client}-{number}"
    body = {"data": [PROMPT, str(number), 1, "fast", 3, "base", []], "fn_index": function, "session_hash": session}
    reply = await http.post("/gradio_api/queue/join", json=body)
    joined = time.monotonic()
    if reply.status_code != 200:
        return Answer(client, joined, joined, reply.json()["detail"])
    async with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        async for line in stream.aiter_lines():
            told: dict[str, Any] = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if told.get("msg") == "process_completed":
                return Answer(client, joined, time.monotonic(), None if told["success"] else told["output"]["error"])
    raise ConnectionError("a request was lost: its stream ended without an answer")


async def load(address: str, clients: int, seconds: float) -> list[Answer]:
    """The answers to all requests that were made in the time."""
    end = time.monotonic() + seconds
    answers: list[Answer] = []
    async with httpx.AsyncClient(base_url=address, timeout=None, limits=httpx.Limits(max_connections=None)) as http:
        functions = (await http.get("/config")).json()["dependencies"]
        generate = next(function["id"] for function in functions if function["api_name"] == "generate")

        async def keep_asking(client: int) -> None:
            number = 0
            while time.monotonic() < end:
                answers.append(await ask(http, generate, client, number := number + 1))
                if answers[-1].refusal is not None:
                    await asyncio.sleep(1)

        await asyncio.gather(*map(keep_asking, range(clients)))
    return answers


async def watch(pid: int, memory: list[tuple[float, int]]) -> None:
    """The process's memory in bytes, every second."""
    while True:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        memory.append((time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE")))
        await asyncio.sleep(1)


def overtaken(answers: list[Answer]) -> int:
    """How many requests were answered after one that had joined the line later."""
    ends = [answer.ended for answer in sorted(answers, key=lambda answer: answer.joined)]
    return sum(min(ends[i:]) < end for i, end in enumerate(ends))


async def measure(folder: Path, clients: int, seconds: float, waiting: int) -> list[str]:
    """One row of the table."""
    with served("--model", str(folder / "base"), "--waiting", str(waiting)) as (address, pid):
        memory: list[tuple[float, int]] = []
        watching = asyncio.create_task(watch(pid, memory))
        answers = await load(address, clients, seconds)
        watching.cancel()
    begin, end = memory[0][0], memory[-1][0]
    steady = [size for at, size in memory if at > begin + WARM_UP * (end - begin)]
    third = len(steady) // 3
    grown = sum(steady[-third:]) / sum(steady[:third]) - 1
    done = [answer for answer in answers if answer.refusal is None]
    refusals = Counter(answer.refusal for answer in answers if answer.refusal is not None)
    print(*(f"{count} times: {sentence}" for sentence, count in refusals.items()), sep="\n")
    each = Counter(answer.client for answer in done)
    share = f"{min(each[c] for c in range(clients))} to {max(each.values(), default=0)}"
    cells = [len(answers), len(done), sum(refusals.values()), share, overtaken(done), f"{steady[0] / 2**20:.0f} MiB", f"{grown:+.1%}"]
    return [str(waiting), *map(str, cells)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=300, help="of each of the two runs")
    args = parser.parse_args()
    if args.seconds < 10:
        parser.error(f"--seconds is {args.seconds:g}; memory is looked at each second, and its growth asks for 10 at least")
    if args.clients < 2:
        parser.error(f"--clients is {args.clients}; half of them find a line full in which one waits at least: give 2 or more")
    with tempfile.TemporaryDirectory() as folder:
        base = ImagenCascadePipeline.from_pretrained(bundled("imagen-scenes"), unet_2=None, unet_3=None, scheduler_2=None, scheduler_3=None)
        base.save_pretrained(Path(folder) / "base")
        # A line as long as there are clients, and one that half of them find full.
        rows = [asyncio.run(measure(Path(folder), args.clients, args.seconds, n)) for n in (args.clients, args.clients // 2)]
    head = ["may wait", "requests", "answered", "refused", "answered, each client", "overtaken", "memory", "its growth"]
    print(f"{machine()}, {args.clients} clients, {args.seconds:.0f} s each\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
