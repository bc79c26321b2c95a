"""Where the time of other homes' networks goes as this package runs them, by operation, and how near each is to the machine's rate.

    make .venv/installed-reference
    .venv/bin/python -m benchmarks.operations

The networks and calls are those of `benchmarks.side_by_side`, in the dtype that the processor is fastest in. An operation is held to the
quickest convolution or matrix product or, by the bytes that it reads and writes, each counted once, to a copy in memory, whichever it is
nearer to. What lies in the processor's caches is quicker than that copy; what is read twice, as by norms, is slower. Of a processor: a GPU
does not wait for its operations, so that their times say nothing there.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from imagen_diffusers.models.fastest_dtype import fastest_dtype

from .ceilings import convolution_rate, copy_rate, machine, matrix_rate, rates
from .counting import FORMULAS
from .side_by_side import HOMES, WIDTHS, contestant
from .timing import table, turns

aten = torch.ops.aten
RUNS, WATCHED = 2, 3
LEAST = 0.01  # of the time: operations below it are told together


@dataclass
class Spent:
    """All calls of one operation: how many, their seconds, their operations on numbers, and the bytes they read and write."""

    calls: int = 0
    seconds: float = 0.0
    flop: int = 0
    moved: int = 0


class Watch(TorchDispatchMode):
    """Times every operation of torch within the block, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: dict[Any, Spent] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        start = time.perf_counter()
        out = func(*args, **kwargs)
        seconds = time.perf_counter() - start
        spent = self.spent.setdefault(func.overloadpacket, Spent())
        spent.calls, spent.seconds = spent.calls + 1, spent.seconds + seconds
        if func.overloadpacket in FORMULAS:
            spent.flop += FORMULAS[func.overloadpacket](*args, **kwargs, out_val=out)
        spent.moved += sum(moved(x) for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor))
        return out


def moved(x: Tensor) -> int:
    """Bytes that hold the values of a tensor; what it is expanded along is read once."""
    return x.element_size() * math.prod(side for side, stride in zip(x.shape, x.stride(), strict=True) if stride or side == 0)


def rate(kind: Any, spent: Spent, dtype: torch.dtype) -> tuple[str, float]:
    """What an operation reaches, and which part of the machine's own rate that is: of the two rates, the one that it is nearer to."""
    computed, moved = spent.flop / spent.seconds, spent.moved / spent.seconds
    by_copy = moved / copy_rate()
    by_numbers = computed / (convolution_rate(dtype) if kind is aten.convolution else matrix_rate(dtype)) if computed else 0.0
    return (f"{computed / 1e9:.0f} GFLOP/s", by_numbers) if by_numbers >= by_copy else (f"{moved / 1e9:.1f} GB/s", by_copy)


@torch.no_grad()
def of_home(home: str, dtype: torch.dtype, dim: int | None = None) -> str:
    """A table of the operations of one image."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        HOMES[home][0](folder, dim or WIDTHS[home])
        draw = contestant(home, "ours", str(dtype).removeprefix("torch."), folder, dim or WIDTHS[home])
        plain = min(turns({"": draw}, RUNS, leave=False)[""])
        with Watch() as watch:
            for _ in range(WATCHED):
                draw()
    whole = sum(spent.seconds for spent in watch.spent.values())
    ordered = sorted(watch.spent.items(), key=lambda one: -one[1].seconds)
    shown = [(kind, spent) for kind, spent in ordered if spent.seconds >= LEAST * whole]
    rest = [spent for _, spent in ordered[len(shown) :]]
    least = others = sum(spent.seconds for spent in rest)
    rows = []
    for kind, spent in shown:
        reached, part = rate(kind, spent, dtype)
        least += spent.seconds * min(part, 1.0)
        name = str(kind).removeprefix("aten.").strip("_")
        rows.append([name, str(spent.calls // WATCHED), f"{100 * spent.seconds / whole:.0f} %", reached, f"{100 * part:.0f} %"])
    rows.append(["others", str(sum(spent.calls for spent in rest) // WATCHED), f"{100 * others / whole:.0f} %", "", ""])
    head = ["operation", "calls", "of the time", "reached", "of the machine's rate"]
    told = f"{home}, {dtype}, channels_last, {plain:.2f} s, and {whole / WATCHED:.2f} s in operations while they are watched"
    told = told.replace("torch.", "")
    bound = f"Were all those that are named as fast as the machine, it would be {100 * least / whole:.0f} % of the time."
    return f"{told}:\n\n{table(head, rows)}\n\n{bound}"


def report(homes: Iterable[str] = HOMES, dim: int | None = None) -> str:
    dtype = fastest_dtype("cpu")
    told = "\n\n".join(of_home(home, dtype, dim) for home in homes)
    return f"{told}\n\n{rates(dtype)} A copy reached {copy_rate() / 1e9:.1f} GB/s."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, help="channels of the finest level, in place of those of side_by_side")
    parser.add_argument("--home", choices=HOMES, action="append", help="one of the two only")
    args = parser.parse_args()
    print(f"{machine()}\n\n{report(args.home or HOMES, args.dim)}")


if __name__ == "__main__":
    main()
