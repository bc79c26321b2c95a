"""What each solver and step count of the bundled cascade costs, and what it draws for that: quality against cost.

    python -m benchmarks.solvers --count 40
    python -m benchmarks.solvers --count 200 --way quality --way fast
    python -m benchmarks.solvers --count 200 --way quality --way my-preset --objects 2

Presets first, then every solver by itself; each takes over the bundled schedulers' curve, prediction type and thresholding.
Images of 256px, for prompts of one object or of two and their relation, are read by the oracle of `examples.scenes.oracle`, and
its features give the Frechet distance to true renders of the same scenes; without a trained oracle only the cost is told. All
ways have the same prompts and seeds, so that the interval beside a difference from the first is of pairs, and take turns, batch
by batch.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from tqdm import trange

import imagen_diffusers
from examples.scenes.data import TEST_SEEDS
from examples.scenes.evaluate import ORACLE, all_right, draw, frechet, load_cascade, scenes_and_prompts
from examples.scenes.oracle import Oracle, load
from examples.scenes.raytrace import render
from examples.scenes.scene import Scene
from imagen_diffusers import ImagenCascadePipeline, bundled
from imagen_diffusers.cli.options import SCHEDULERS
from imagen_diffusers.evaluation.intervals import paired
from imagen_diffusers.finetuning.flags import at_least_one
from imagen_diffusers.sampling.guidance import is_guided

from .ceilings import machine
from .timing import table

PRESETS = ("quality", "balanced", "fast")
WAYS = (*PRESETS, *SCHEDULERS.values())
STEPS = ((8, 4, 2), (16, 8, 4))
STAGES, COUNT, BATCH = 2, 40, 8


def evaluations(pipe: ImagenCascadePipeline, stages: int = STAGES) -> int:
    """Images through a network for each that is drawn: a guided step counts two, a step of a two-stage solver what it takes."""
    total = 0
    for stage in pipe.stages(pipe.stage_numbers[:stages]):
        steps = len(stage.prepared_scheduler(pipe.device).timesteps)
        guided = 0 if stage.guidance_scale == 1 else sum(is_guided(i, steps, stage.guidance_interval) for i in range(steps))
        total += steps + guided
    return total


def ways(names: Iterable[str]) -> Iterator[tuple[str, Callable[[ImagenCascadePipeline], None]]]:
    """Of `WAYS`, and folders of presets, those with these names, and what makes a freshly loaded pipeline sample so."""
    for name in names:
        if name not in SCHEDULERS.values():
            yield name, lambda pipe, name=name: pipe.use_preset(bundled(name) if name in PRESETS else name)
            continue
        for steps in STEPS:
            yield name, lambda pipe, name=name, steps=steps: _swap(pipe, name, steps)


def _swap(pipe: ImagenCascadePipeline, scheduler: str, steps: tuple[int, ...]) -> None:
    for slot in (pipe.slots(n)[1] for n in pipe.stage_numbers):
        setattr(pipe, slot, getattr(imagen_diffusers, scheduler).from_config(getattr(pipe, slot).config))
    pipe.register_to_config(num_inference_steps=list(steps))


class Measured(NamedTuple):
    """A way of sampling: its steps, evaluations and seconds an image, of which images all was right, and the Frechet distance."""

    name: str
    steps: list[int]
    evaluations: int
    seconds: float
    right: torch.Tensor | None
    distance: float | None


def quality(oracle: Oracle, images: torch.Tensor, scenes: list[Scene], true: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Which images show all that was asked for, (N,) of zeros and ones, and the Frechet distance to the features of true renders."""
    right = [float(all_right(scene, seen)) for scene, (seen, _) in zip(scenes, oracle.read(images), strict=True)]
    return torch.tensor(right), frechet(true, oracle.features(images))


@torch.no_grad()
def measure_all(
    count: int = COUNT, oracle_folder: Path = ORACLE, names: Iterable[str] = WAYS, objects: Literal[1, 2] = 1
) -> list[Measured]:
    scenes, prompts = scenes_and_prompts(count, objects, TEST_SEEDS + 80_000)
    oracle = load(oracle_folder) if (oracle_folder / "oracle.safetensors").exists() else None
    true = None
    if oracle is not None:
        true = torch.cat([oracle.features(render(scenes[i : i + BATCH], 256, samples=2)) for i in range(0, count, BATCH)])
    whole, pipes, made = load_cascade(), [], []
    for name, sample_so in ways(names):
        pipes.append((name, ImagenCascadePipeline.from_pipe(whole)))  # the same networks, schedulers of its own
        sample_so(pipes[-1][1])
    draw(whole, prompts[:BATCH], BATCH, STAGES)  # warms up
    seconds = [0.0] * len(pipes)
    for first in trange(0, count, BATCH, desc="prompts", mininterval=5):
        made.append([])
        for i, (_, pipe) in enumerate(pipes):
            start = time.perf_counter()
            made[-1].append(draw(pipe, prompts[first : first + BATCH], BATCH, STAGES, first_seed=first, quiet=True))
            seconds[i] += (time.perf_counter() - start) / count
    measured = []
    for (name, pipe), images, spent in zip(pipes, map(torch.cat, zip(*made, strict=True)), seconds, strict=True):
        told = (None, None) if oracle is None or true is None else quality(oracle, images, scenes, true)
        measured.append(Measured(name, pipe.config["num_inference_steps"][:STAGES], evaluations(pipe), spent, *told))
    return measured


def report(measured: list[Measured], count: int = COUNT, objects: Literal[1, 2] = 1) -> str:
    rows = []
    for m in measured:
        told = ["", "", ""] if m.right is None else [f"{m.right.mean():.0%}", _points(m, measured[0]), f"{m.distance:.2f}"]
        rows.append([m.name, ", ".join(map(str, m.steps)), str(m.evaluations), f"{m.seconds:.2f}", *told])
    head = ["preset or solver", "steps", "evaluations", "seconds per image", "all right", f"points from {measured[0].name}"]
    head.append("Frechet distance")
    of = "one object" if objects == 1 else "two objects"
    said = f"{count} prompts of {of}, 64px then 256px, in batches of {min(BATCH, count)}."
    said += " Frechet distances of so few images say how ways compare."
    return f"{said}\n\n{table(head, rows, words=2)}"


def _points(m: Measured, first: Measured) -> str:
    """How many points more are right than in the first way, with the 95 % interval of prompt by prompt."""
    if m is first or m.right is None or first.right is None:
        return ""
    points = 100 * (m.right - first.right)
    low, high = paired(int((points > 0).sum()), int((points < 0).sum()), len(points))
    return f"{points.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def plot(measured: list[Measured], path: Path) -> None:
    """Prompts right against seconds an image, a line for each solver and a cross for each preset."""
    from matplotlib import pyplot  # in the extra `bench` alone

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name in dict.fromkeys(m.name for m in measured):
        points = [m for m in measured if m.name == name and m.right is not None]
        shares = [100 * m.right.mean().item() for m in points if m.right is not None]
        axes.plot([m.seconds for m in points], shares, "kX" if name in PRESETS else "o-", label=name, zorder=3 if name in PRESETS else 2)
        if name in PRESETS:
            for m, share in zip(points, shares, strict=True):
                axes.annotate(name, (m.seconds, share), xytext=(6, -10), textcoords="offset points")
    axes.set(xlabel="seconds an image of 256px", ylabel="% of prompts with every attribute right", ylim=(0, 100))
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=at_least_one, default=COUNT, help="prompts")
    parser.add_argument("--oracle", type=Path, default=ORACLE)
    parser.add_argument("--objects", type=int, choices=(1, 2), default=1, help="in each prompt; of two their relation counts, too")
    these = "one of these, or a folder of a preset; given again for more, of which the first is what others are compared with"
    parser.add_argument("--way", action="append", metavar=f"{{{','.join(WAYS)}}}", help=these)
    args = parser.parse_args()
    for name in args.way or ():
        if name not in WAYS and not Path(name).is_dir():
            parser.error(f"--way {name} is neither one of {', '.join(WAYS)} nor a folder; give one of these")
    measured = measure_all(args.count, args.oracle, args.way or WAYS, args.objects)
    print(f"{machine()}\n\n{report(measured, args.count, args.objects)}")


if __name__ == "__main__":
    main()
