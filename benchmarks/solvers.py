"""What each solver and step count of the bundled cascade costs, and what it draws for that: quality against cost.

    python -m benchmarks.solvers --count 40

Presets first, then every solver by itself; each takes over the bundled schedulers' curve, prediction type and thresholding.
Images of 256px for prompts of one object are read by the oracle of `examples.scenes.oracle`, and its features give the Frechet
distance to true renders of the same scenes; without a trained oracle only the cost is told.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import imagen_diffusers
from examples.scenes.data import TEST_SEEDS
from examples.scenes.evaluate import draw, frechet, load_cascade, scenes_and_prompts, score_set
from examples.scenes.oracle import Oracle, load
from examples.scenes.raytrace import render
from examples.scenes.scene import Scene
from imagen_diffusers import ImagenCascadePipeline, bundled
from imagen_diffusers.cli.options import SCHEDULERS
from imagen_diffusers.sampling.guidance import is_guided

from .ceilings import machine
from .timing import table

ORACLE = Path("pipelines/imagen-scenes/oracle")
PRESETS = ("quality", "balanced", "fast")
STEPS = ((8, 4, 2), (16, 8, 4), (32, 16, 8))
STAGES, COUNT, BATCH = 2, 40, 8


def evaluations(pipe: ImagenCascadePipeline) -> int:
    """Images through a network for each that is drawn: a guided step counts two, a step of a two-stage solver what it takes."""
    total = 0
    for stage in pipe.stages(pipe.stage_numbers[:STAGES]):
        steps = len(stage.prepared_scheduler(pipe.device).timesteps)
        guided = 0 if stage.guidance_scale == 1 else sum(is_guided(i, steps, stage.guidance_interval) for i in range(steps))
        total += steps + guided
    return total


def ways() -> Iterator[tuple[str, Callable[[ImagenCascadePipeline], None]]]:
    """Names, and what makes a freshly loaded pipeline sample so."""
    for name in PRESETS:
        yield name, lambda pipe, name=name: pipe.use_preset(bundled(name))
    for name in SCHEDULERS.values():
        for steps in STEPS:
            yield name, lambda pipe, name=name, steps=steps: _swap(pipe, name, steps)


def _swap(pipe: ImagenCascadePipeline, scheduler: str, steps: tuple[int, ...]) -> None:
    for slot in (pipe.slots(n)[1] for n in pipe.stage_numbers):
        setattr(pipe, slot, getattr(imagen_diffusers, scheduler).from_config(getattr(pipe, slot).config))
    pipe.register_to_config(num_inference_steps=list(steps))


def quality(oracle: Oracle, images: torch.Tensor, scenes: list[Scene]) -> list[str]:
    """How many show all that was asked for, and the Frechet distance to true renders."""
    true = torch.cat([render(scenes[i : i + BATCH], 256, samples=2) for i in range(0, len(scenes), BATCH)])
    right = next(iter(score_set("", oracle, images, scenes).values()))
    return [f"{right.value:.0%}", f"{frechet(oracle.features(true), oracle.features(images)):.2f}"]


@torch.no_grad()
def report(count: int = COUNT, oracle_folder: Path = ORACLE) -> str:
    scenes, prompts = scenes_and_prompts(count, 1, TEST_SEEDS + 80_000)
    oracle = load(oracle_folder) if (oracle_folder / "oracle.safetensors").exists() else None
    rows = []
    for name, sample_so in ways():
        pipe = load_cascade()
        sample_so(pipe)
        steps = pipe.config["num_inference_steps"][:STAGES]
        start = time.perf_counter()
        images = draw(pipe, prompts, BATCH, STAGES)
        seconds = (time.perf_counter() - start) / count
        told = ["", ""] if oracle is None else quality(oracle, images, scenes)
        rows.append([name, ", ".join(map(str, steps)), str(evaluations(pipe)), f"{seconds:.2f}", *told])
    head = ["preset or solver", "steps", "evaluations", "seconds per image", "all right", "Frechet distance"]
    return f"{count} prompts, 64px then 256px, in batches of {BATCH}.\n\n{table(head, rows, words=2)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help="prompts")
    parser.add_argument("--oracle", type=Path, default=ORACLE)
    args = parser.parse_args()
    print(f"{machine()}\n\n{report(args.count, args.oracle)}")


if __name__ == "__main__":
    main()
