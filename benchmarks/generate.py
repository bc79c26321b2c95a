"""How long the bundled cascade takes on this machine, stage by stage, in float32 and in bfloat16.

    python -m benchmarks.generate

The two dtypes take turns within one run, so that their ratio holds when the machine's speed drifts.
"""

import resource
import statistics
import time

import torch

from imagen_diffusers import ImagenCascadePipeline, bundled

PROMPT = "a large red metal sphere left of a small blue rubber cube on a gray floor"
RUNS = 3


def load(dtype: torch.dtype) -> ImagenCascadePipeline:
    wanted = {"default": dtype, "text_encoder": torch.float32}
    pipe = ImagenCascadePipeline.from_pretrained(bundled("imagen-scenes"), variant="fp16", dtype=wanted)
    pipe.set_progress_bar_config(disable=True)
    for number in pipe.stage_numbers:
        getattr(pipe, pipe.slots(number)[0]).to(memory_format=torch.channels_last)
    return pipe


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


def main() -> None:
    pipes = {"float32": load(torch.float32), "bfloat16": load(torch.bfloat16)}
    measured: dict[str, list[list[float]]] = {name: [] for name in pipes}
    for run in range(RUNS + 1):
        for name, pipe in pipes.items():
            times = seconds_by_stage(pipe)
            if run > 0:  # the first is a warm-up
                measured[name].append(times)
    stages = pipes["float32"].stages(pipes["float32"].stage_numbers)
    print(f"{torch.get_num_threads()} threads, median of {RUNS} runs, seconds a picture\n")
    print("| stage | steps | float32 | bfloat16 | ratio |\n|---|---:|---:|---:|---:|")
    for i, stage in enumerate(stages):
        one, two = (statistics.median(times[i] for times in measured[name]) for name in pipes)
        print(f"| {stage.sample_size}px | {stage.num_inference_steps} | {one:.2f} | {two:.2f} | {one / two:.2f} |")
    one, two = (statistics.median(sum(times) for times in measured[name]) for name in pipes)
    print(f"| all | | {one:.2f} | {two:.2f} | {one / two:.2f} |")
    print(f"\npeak memory of the process, both pipelines loaded: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
