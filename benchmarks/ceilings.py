"""What this machine can do at best: the largest rates of a matrix product, a convolution and a copy, in each dtype.

    python -m benchmarks.ceilings

A network's evaluation is told as a fraction of the convolution's rate.
"""

import gc
import os
import platform
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from .timing import DEVICE, table, turns

DTYPES = (torch.float32, torch.bfloat16)
SIDES = (1024, 2048, 4096)  # of the matrices; a GPU needs larger ones to be busy
GPU_SIDES = (4096, 8192, 16384)
CONVOLUTIONS = ((128, 64), (256, 32), (512, 32))  # channels and side, batch 8, 3x3
COPIED = 2**28  # bytes
RUNS = 9


def device() -> torch.device:
    """Where networks are measured: the processor, unless the environment names another, as `benchmarks.gpu` does."""
    return torch.device(os.environ.get(DEVICE, "cpu"))


def free() -> None:
    """What no name holds any more is gone from the device, graphs included."""
    torch.compiler.reset()
    gc.collect()
    if device().type != "cpu":
        torch.get_device_module(device()).empty_cache()


def machine() -> str:
    """What is measured, in words."""
    kind = device().type
    if kind == "mps":  # of which older releases of torch do not know the name
        name = f"Apple GPU of {platform.platform()}"
    elif kind != "cpu":
        name = torch.get_device_module(kind).get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
        has = sorted({flag for line in lines if line.startswith("flags") for flag in line.split() if flag in ("amx_bf16", "avx512_bf16")})
        threads = torch.get_num_threads()
        name = f"{threads} {'thread' if threads == 1 else 'threads'} of {name} ({', '.join(has) or 'no bf16 instructions'})"
    return f"{name}, torch {torch.__version__}"


@cache
def matrix_rate(dtype: torch.dtype) -> float:
    """Operations a second of the quickest square product."""
    best = 0.0
    for side in SIDES if device().type == "cpu" else GPU_SIDES:
        a, b = (torch.randn(side, side, device=device(), dtype=dtype) for _ in range(2))
        best = max(best, 2 * side**3 / min(turns({"": lambda a=a, b=b: a @ b}, RUNS, leave=False)[""]))
    return best


@cache
def convolution_rate(dtype: torch.dtype) -> float:
    """Operations a second of the quickest 3x3 convolution, channels_last."""
    best = 0.0
    for channels, side in CONVOLUTIONS:
        x = torch.randn(8, channels, side, side, device=device(), dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, device=device(), dtype=dtype).to(memory_format=torch.channels_last)
        seconds = min(turns({"": lambda x=x, weight=weight: F.conv2d(x, weight, padding=1)}, RUNS, leave=False)[""])
        best = max(best, 2 * 9 * channels**2 * 8 * side**2 / seconds)
    return best


@cache
def copy_rate() -> float:
    """Bytes read and written a second."""
    source = torch.empty(COPIED, dtype=torch.uint8, device=device()).random_()
    target = torch.empty_like(source)
    return 2 * COPIED / min(turns({"": lambda: target.copy_(source)}, RUNS, leave=False)[""])


@torch.no_grad()
def report() -> str:
    rows = [
        [str(dtype).removeprefix("torch."), f"{matrix_rate(dtype) / 1e9:,.0f}", f"{convolution_rate(dtype) / 1e9:,.0f}"] for dtype in DTYPES
    ]
    said = table(["dtype", "matrix product, GFLOP/s", "3x3 convolution, GFLOP/s"], rows)
    return f"{said}\n\nA copy in memory: {copy_rate() / 1e9:.1f} GB/s, reading and writing counted."


def rates(dtype: torch.dtype) -> str:
    """What shares are of, in a sentence beside them."""
    name, convolution, product = str(dtype).removeprefix("torch."), convolution_rate(dtype) / 1e9, matrix_rate(dtype) / 1e9
    return f"Then the quickest convolution in {name} reached {convolution:,.0f} GFLOP/s, and the quickest matrix product {product:,.0f}."


if __name__ == "__main__":
    print(f"{machine()}\n\n{report()}")
