"""How long the bundled cascade takes on this machine, stage by stage, in float32 and in bfloat16.

    python -m benchmarks.generate

The two dtypes take turns within one run, so that their ratio holds when the machine's speed drifts.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from examples.scenes.evaluate import load_cascade
from imagen_diffusers import ImagenCascadePipeline

from .ceilings import machine
from .timing import peak_memory, print_peak_memory, table, times_as_fast

PROMPT = "a large red metal sphere left of a small blue rubber cube on a gray floor"
RUNS = 3


def seconds_by_stage(pipe: ImagenCascadePipeline) -> list[float]:
    """Wall time of each stage of one call, told apart by when its first and last steps end."""
    ends: list[float] = []
    counts = [len(s.prepared_scheduler(pipe.device).timesteps) for s in pipe.stages(pipe.stage_numbers)]

    def note(*_) -> None:
        ends.append(time.perf_counter())

    start = time.perf_counter()
    pipe(PROMPT, generator=torch.Generator().manual_seed(7), callback_on_step_end=note, output_type="pt")
    times, before = [], start
    for last in (sum(counts[: i + 1]) - 1 for i in range(len(counts))):
        times.append(ends[last] - before)
        before = ends[last]
    return times


def report() -> str:
    pipes = {"float32": load_cascade(dtype=torch.float32), "bfloat16": load_cascade(dtype=torch.bfloat16)}
    measured: dict[str, list[list[float]]] = {name: [] for name in pipes}
    for run in range(RUNS + 1):
        for name, pipe in pipes.items():
            times = seconds_by_stage(pipe)
            if run > 0:  # the first is a warm-up
                measured[name].append(times)
    rows = []
    for i, stage in enumerate(pipes["float32"].stages(pipes["float32"].stage_numbers)):
        rows.append([f"{stage.sample_size}px", str(stage.num_inference_steps), *_told({n: [t[i] for t in measured[n]] for n in pipes})])
    rows.append(["all", "", *_told({name: [sum(times) for times in measured[name]] for name in pipes})])
    said = table(["stage", "steps", "float32", "bfloat16", "ratio"], rows)
    peak = peak_memory("benchmarks.generate", "--alone")
    memory = f"Peak memory of a process that loads it in float32 and draws once: {peak:.2f} GiB."
    return f"Seconds per image, median of {RUNS} runs.\n\n{said}\n\n{memory} {whole_command()}"


def _told(seconds: dict[str, list[float]]) -> list[str]:
    return [*(f"{statistics.median(times):.2f}" for times in seconds.values()), f"{times_as_fast(seconds, *seconds):.2f}"]


def whole_command() -> str:
    """Seconds of `imagen-diffusers generate` from its call to its end, and of what comes before its first step."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "imagen_diffusers.cli", "generate", PROMPT, "--seed", "7", "--output", f"{folder}/image.png"]
        seconds: dict[str, list[float]] = {"": [], "import": []}
        for _ in range(RUNS):
            for name, words in (("", command), ("import", [sys.executable, "-c", "import imagen_diffusers.pipelines.cascade"])):
                start = time.perf_counter()
                subprocess.run(words, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - start)
    all_of_it, imports = (statistics.median(times) for times in seconds.values())
    return (
        f"The whole `imagen-diffusers generate` command takes {all_of_it:.1f} s, of which {imports:.1f} s import torch, transformers and "
        "diffusers."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().alone:
        load_cascade(dtype=torch.float32)(PROMPT)
        return print_peak_memory()
    print(f"{machine()}\n\n{report()}")


if __name__ == "__main__":
    main()
