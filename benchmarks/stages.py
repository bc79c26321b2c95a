"""One evaluation of each stage's network: time, share of the convolution rate that this machine reaches, peak memory.

    python -m benchmarks.stages
    python -m benchmarks.stages --paper --batch_size 8    # the paper's sizes, for a GPU

The bundled networks take a batch of two, as a guided step does. Ways of running take turns. Networks are made in float32, which peaks
in bfloat16 hold, too.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from examples.scenes.device import device_type
from imagen_diffusers import ImagenEfficientUNet2DConditionModel, ImagenUNet2DConditionModel, bundled
from imagen_diffusers.models import configurations
from imagen_diffusers.models.conditioned_unet import ConditionedUNet

from .ceilings import convolution_rate, device, machine, rates
from .counting import flop as counted
from .timing import DEVICE, peak_memory, print_peak_memory, table, times_as_fast, turns

TOKENS, RUNS = 32, 7
WAYS = {
    "float32": (torch.float32, False, False),
    "float32, channels_last": (torch.float32, True, False),
    "bfloat16, channels_last": (torch.bfloat16, True, False),
    "bfloat16, channels_last, compiled": (torch.bfloat16, True, True),
}
NETWORKS = {
    "unet": (ImagenUNet2DConditionModel, configurations.PAPER_BASE),
    "unet_2": (ImagenEfficientUNet2DConditionModel, configurations.PAPER_SR256),
    "unet_3": (ImagenEfficientUNet2DConditionModel, configurations.PAPER_SR1024),
}


def network(slot: str, *, paper: bool) -> ConditionedUNet:
    kind, config = NETWORKS[slot]
    if paper:
        with device():
            return kind(**config).eval()
    return kind.from_pretrained(bundled("imagen-scenes"), subfolder=slot, variant="fp16", dtype=torch.float32).to(device()).eval()


def inputs(unet: ConditionedUNet, batch_size: int, *, side: int | None = None, tokens: int = TOKENS) -> dict:
    """Noise of the size it was trained for, or of another, with as much text and condition as it takes."""
    side = side or unet.config["sample_size"]
    image = torch.randn(batch_size, 3, side, side, device=device())
    given = {"sample": image, "timestep": torch.full((batch_size,), 500.0, device=device())}
    if unet.text_dim is not None:
        given["encoder_hidden_states"] = torch.randn(batch_size, tokens, unet.text_dim, device=device())
        given["encoder_attention_mask"] = torch.ones(batch_size, tokens, dtype=torch.bool, device=device())
    if unet.has_low_res:
        given |= {"low_res": image, "noise_level": torch.full((batch_size,), 100.0, device=device())}
    return given


def evaluation(slot: str, way: str, batch_size: int, *, paper: bool) -> Callable[[], torch.Tensor]:
    """A call of the network, ready to run."""
    dtype, channels_last, compiled = WAYS[way]
    unet = network(slot, paper=paper).to(dtype)
    if channels_last:
        unet.to(memory_format=torch.channels_last)
    if compiled:
        unet.compile(fullgraph=True)
    given = {k: v.to(dtype) if v.is_floating_point() and v.ndim > 1 else v for k, v in inputs(unet, batch_size).items()}
    return lambda: unet(**given).sample


def work(slot: str, batch_size: int, *, paper: bool, side: int | None = None, tokens: int = TOKENS) -> int:
    """Operations of an evaluation, counted."""
    unet = network(slot, paper=paper)
    return counted(lambda: unet(**inputs(unet, batch_size, side=side, tokens=tokens)))


class Measured(NamedTuple):
    """An evaluation of a network, one way: operations, seconds of each round, times as fast as the first way, peak GiB."""

    slot: str
    way: str
    flop: int
    seconds: list[float]
    faster: float
    peak: float

    @property
    def share(self) -> float:
        """Of the operations a second of this machine's quickest convolution in the same dtype."""
        return self.flop / statistics.median(self.seconds) / convolution_rate(WAYS[self.way][0])


@torch.no_grad()
def measure_all(*, paper: bool = False, batch_size: int = 2, runs: int = RUNS) -> list[Measured]:
    measured = []
    for slot in NETWORKS:
        flop = work(slot, batch_size, paper=paper)
        seconds = turns({way: evaluation(slot, way, batch_size, paper=paper) for way in WAYS}, runs, title=slot)
        for way in WAYS:
            given = ["--alone", slot, way, "--batch_size", str(batch_size), *(["--paper"] if paper else [])]
            faster = times_as_fast(seconds, next(iter(WAYS)), way)
            measured.append(Measured(slot, way, flop, seconds[way], faster, peak_memory("benchmarks.stages", *given)))
    return measured


def report(measured: list[Measured]) -> str:
    rows = []
    for m in measured:
        middle, least, most = (1e3 * of(m.seconds) for of in (statistics.median, min, max))
        rows.append(
            [m.slot, m.way, f"{middle:.1f}", f"{least:.1f} to {most:.1f}", f"{m.faster:.2f}", f"{m.flop / 1e9:.2f}"]
            + [f"{100 * m.share:.0f} %", f"{m.peak:.2f}"]
        )
    head = ["network", "way", "ms", "from, to", "times as fast", "GFLOP", "of the convolution rate", "peak GiB"]
    told = " ".join(rates(dtype) for dtype in dict.fromkeys(dtype for dtype, _, _ in WAYS.values()))
    return f"{table(head, rows, words=2)}\n\n{told}"


def plot(measured: list[Measured], path: Path) -> None:
    """How much of the convolution rate of its dtype each network reaches, way by way."""
    from matplotlib import pyplot  # in the extra `bench` alone

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for place, way in enumerate(WAYS):
        shares = [100 * m.share for m in measured if m.way == way]
        axes.bar([i + 0.2 * place for i in range(len(shares))], shares, 0.19, label=way)
    axes.set_xticks([i + 0.3 for i in range(len(NETWORKS))], list(NETWORKS))
    axes.set(ylabel="% of the convolution rate in its dtype")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", help="the paper's networks, with random weights")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.paper:
        os.environ[DEVICE] = device_type()
    if args.alone:
        with torch.no_grad():
            evaluation(*args.alone, args.batch_size, paper=args.paper)()
        return print_peak_memory()
    print(f"{machine()}\n\n{report(measure_all(paper=args.paper, batch_size=args.batch_size, runs=args.runs))}")


if __name__ == "__main__":
    main()
