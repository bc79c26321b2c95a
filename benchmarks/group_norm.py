"""Group norms of the bundled networks beside torch's own, in bfloat16 and channels_last, with their gradient and without.

    python -m benchmarks.group_norm

Of a processor: elsewhere, and in float32, the two are one.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from imagen_diffusers.models.group_norm import GroupNorm

from .ceilings import machine
from .timing import table, times_as_fast, turns

GROUPS, RUNS = 32, 15
SHAPES = ((64, 128, 16, 16), (64, 256, 8, 8), (16, 64, 64, 64), (16, 32, 128, 128), (2, 128, 16, 16), (2, 64, 128, 128))
TRAINED = 16  # examples: fewer are sampled with guidance


def normalizing(norm: nn.GroupNorm, x: Tensor, gradient: bool) -> Callable[[], Tensor]:
    def work() -> Tensor:
        with torch.set_grad_enabled(gradient):
            out = norm(x)
            if gradient:
                out.backward(x)
        return out

    return work


def report(runs: int = RUNS) -> str:
    rows = []
    for shape in SHAPES:
        x = torch.randn(shape).bfloat16().contiguous(memory_format=torch.channels_last)
        norms = {"torch": nn.GroupNorm(GROUPS, shape[1]).bfloat16(), "here": GroupNorm(GROUPS, shape[1]).bfloat16()}
        for gradient in (False, True) if shape[0] >= TRAINED else (False,):
            given = x.clone().requires_grad_(gradient)
            seconds = turns({name: normalizing(norm, given, gradient) for name, norm in norms.items()}, runs, leave=False)
            told = [f"{1000 * statistics.median(spent):.2f}" for spent in seconds.values()]
            rows.append(["x".join(map(str, shape)), "yes" if gradient else "no", *told, f"{times_as_fast(seconds, 'torch', 'here'):.1f}"])
    return table(["image", "gradient", "torch, ms", "here, ms", "times as fast"], rows, words=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS)
    args = parser.parse_args()
    print(f"{machine()}\n\n{report(args.runs)}")


if __name__ == "__main__":
    main()
