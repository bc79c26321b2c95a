"""A 2048px image by the bundled 1024px stage, whole and in tiles: time, memory, and whether the seams can be found.

    python -m benchmarks.tiles --side 2048

A render of a quarter of the side is enlarged four times. Seams are told by steps: how much the difference between the image in tiles
and the whole one changes from one pixel to the next, on the lines where a tile begins or ends and everywhere else.
"""

import argparse
import time

import torch
from torch import Tensor

from examples.scenes.data import TEST_SEEDS
from examples.scenes.evaluate import load_cascade, scenes_and_prompts
from examples.scenes.raytrace import render
from imagen_diffusers import ImagenCascadeUpscalePipeline
from imagen_diffusers.sampling.tiles import spans

from .ceilings import machine
from .timing import peak_memory, print_peak_memory, table

SIDE, TILES, OVERLAP = 2048, (1024, 512, 256), 0.25
STAGE, SCALE = 3, 4


@torch.no_grad()
def enlarge(small: Tensor, prompt: str, tile: int | None) -> Tensor:
    """(1, 3, h, w) in [0, 1] to four times the side, in the type that the processor is fastest in."""
    pipe = ImagenCascadeUpscalePipeline.from_pipe(load_cascade())
    if tile is not None:
        pipe.enable_tiling(tile, OVERLAP)
    return pipe(prompt, image=small, start_at=STAGE, generator=torch.Generator().manual_seed(0), output_type="pt").images


def seams(whole: Tensor, tiled: Tensor, tile: int) -> tuple[float, float]:
    """Mean step of the difference, in levels of 255, on tiles' edges and elsewhere."""
    difference = 255 * (tiled - whole)
    side = difference.shape[-1]
    edges = sorted({at for s in spans(side, tile, int(tile * OVERLAP)) for at in (s.start, s.stop)} - {0, side})
    on, off = [], []
    for steps in (difference.diff(dim=-1), difference.diff(dim=-2).mT):
        at_edge = torch.zeros(side - 1, dtype=torch.bool)
        at_edge[[e - 1 for e in edges]] = True
        on.append(steps[..., at_edge].abs().mean())
        off.append(steps[..., ~at_edge].abs().mean())
    return torch.stack(on).mean().item(), torch.stack(off).mean().item()


def given(side: int) -> tuple[Tensor, str]:
    (scene,), (prompt,) = scenes_and_prompts(1, 2, TEST_SEEDS + 90_000)
    return (render([scene], side // SCALE, samples=2) + 1) / 2, prompt


def report(side: int = SIDE) -> str:
    small, prompt = given(side)
    rows, whole = [], torch.empty(0)
    for tile in (None, *(tile for tile in TILES if tile < side)):
        start = time.perf_counter()
        image = enlarge(small, prompt, tile)
        seconds = time.perf_counter() - start
        peak = peak_memory("benchmarks.tiles", "--side", str(side), "--alone", str(tile or 0))
        if tile is None:
            whole, told = image, ["", "", ""]
        else:
            on, off = seams(whole, image, tile)
            told = [f"{255 * (image - whole).abs().mean():.2f}", f"{on:.3f}", f"{off:.3f}"]
        rows.append(["whole" if tile is None else f"tiles of {tile}", f"{seconds:.1f}", f"{peak:.2f}", *told])
    head = ["", "seconds, loading included", "peak GiB", "mean difference of 255", "its step on edges", "elsewhere"]
    return f"{side}px, {OVERLAP:.0%} overlap.\n\n{table(head, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=SIDE, help="of the image, in pixels; tiles are smaller")
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side <= min(TILES):
        parser.error(f"--side is {args.side}, of which one tile would be the whole image; give more than {min(TILES)}")
    if args.alone is not None:
        enlarge(*given(args.side), args.alone or None)
        return print_peak_memory()
    print(f"{machine()}\n\n{report(args.side)}")


if __name__ == "__main__":
    main()
