"""How one evaluation's time and memory grow with the image, the batch and the prompt; written as tables and drawn as an image.

    python -m benchmarks.growth --plot growth.png

For each bundled super-resolution network, in the type that is fastest here, channels_last. A column says how much dearer a pixel (an
image, a token) has become since the first row: 1.00 is growth in proportion, less is better.
"""

import argparse
import statistics
from pathlib import Path

import torch

from imagen_diffusers.models.fastest_dtype import fastest_dtype

from .ceilings import device, machine
from .stages import inputs, network
from .timing import peak_memory, print_peak_memory, table, turns

DTYPE, RUNS = fastest_dtype(device().type), 3
AXES = {"side": (256, 512, 1024, 2048), "batch_size": (1, 2, 4, 8), "tokens": (16, 64, 256)}
STANDARD = {"side": 256, "batch_size": 1, "tokens": 16}
SLOTS = ("unet_2", "unet_3")


def evaluation(slot: str, side: int, batch_size: int, tokens: int):
    """A call of the network at this size, ready to run."""
    unet = network(slot, paper=False).to(DTYPE).to(memory_format=torch.channels_last)
    given = inputs(unet, batch_size, side=side, tokens=tokens)
    given = {k: v.to(DTYPE) if v.is_floating_point() and v.ndim > 1 else v for k, v in given.items()}
    return lambda: unet(**given).sample


def price(axis: str, value: int) -> float:
    """What should be paid for: pixels, images or tokens."""
    return float(value**2 if axis == "side" else value)


@torch.no_grad()
def measure(axis: str, slot: str, runs: int) -> list[tuple[int, float, float]]:
    """(value, seconds, peak GiB) along an axis."""
    sizes = {value: {**STANDARD, axis: value} for value in AXES[axis]}
    seconds = turns({value: evaluation(slot, **size) for value, size in sizes.items()}, runs, title=f"{slot} {axis}")
    alone = {v: peak_memory("benchmarks.growth", "--alone", slot, *(str(n) for n in size.values())) for v, size in sizes.items()}
    return [(value, statistics.median(seconds[value]), alone[value]) for value in sizes]


Measured = dict[tuple[str, str], list[tuple[int, float, float]]]


def report(measured: Measured) -> str:
    rows = []
    for (axis, slot), points in measured.items():
        first, least, _ = points[0]
        for value, seconds, peak in points:
            dearer = seconds / least * price(axis, first) / price(axis, value)
            rows.append([slot, axis, str(value), f"{1e3 * seconds:.1f}", f"{dearer:.2f}", f"{peak:.2f}"])
    return table(["network", "grows", "to", "ms", "dearer by", "peak GiB"], rows, words=2)


def plot(measured: Measured, path: Path) -> None:
    """Time against pixels, on logarithmic axes, with growth in proportion beside it."""
    from matplotlib import pyplot  # in the extra `bench` alone

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for slot in SLOTS:
        points = measured["side", slot]
        sides, seconds = [v for v, _, _ in points], [s for _, s, _ in points]
        (line,) = axes.loglog([v**2 for v in sides], seconds, "o-", label=slot)
        axes.loglog([v**2 for v in sides], [seconds[0] * (v / sides[0]) ** 2 for v in sides], "--", color=line.get_color(), alpha=0.5)
    axes.set(xlabel="pixels", ylabel="seconds an evaluation (dashed: in proportion)")
    axes.set_xticks([v**2 for v in AXES["side"]], [f"{v}²" for v in AXES["side"]])
    axes.legend()
    figure.savefig(path, dpi=150)


def measure_all(runs: int = RUNS) -> Measured:
    return {(axis, slot): measure(axis, slot, runs) for axis in AXES for slot in SLOTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--plot", type=Path, help="where to draw time against pixels")
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        slot, *size = args.alone
        with torch.no_grad():
            evaluation(slot, *(int(n) for n in size))()
        return print_peak_memory()
    measured = measure_all(args.runs)
    print(f"{machine()}\n\n{report(measured)}")
    if args.plot:
        plot(measured, args.plot)


if __name__ == "__main__":
    main()
