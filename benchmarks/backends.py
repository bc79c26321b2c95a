"""The bundled cascade by PyTorch, ONNX Runtime and OpenVINO: seconds and memory of a 1024px image, and what it differs in.

    pip install -c constraints.txt -e ".[onnx,openvino]"
    python -m benchmarks.backends

Contestants take turns within one run, so that ratios hold when the machine's speed drifts; each also generates once in a process of its
own, which tells its peak memory. All have as many threads as torch. The graphs are written to a temporary folder, or to --folder, whose
own are taken where they are there. What eight bits cost in prompts that come out right is what this says of such a folder:

    python -m examples.scenes.evaluate --model graphs/int8
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.scenes.evaluate import load_cascade, scenes_and_prompts
from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.export.cascade import export_cascade

from .ceilings import machine
from .generate import PROMPT
from .timing import peak_memory, print_peak_memory, table, times_as_fast, turns

RUNS, SEED = 3, 7
FITTED, FIRST_SCENE = 4, 30_090_000  # prompts that eight bits are fitted to, of scenes that are not evaluated
Load = Callable[[Path], ImagenCascadePipeline]


def write_graphs(folder: Path) -> None:
    """The cascade for each runtime, unless it is there."""
    for name in ("onnx", "openvino", "int8"):
        place = folder / name
        if not (place / "model_index.json").exists():
            _, prompts = scenes_and_prompts(FITTED, 2, FIRST_SCENE) if name == "int8" else (None, ())
            list(export_cascade(load_cascade(dtype=torch.float32), place, openvino=name != "onnx", prompts=prompts))


def compiled(_: Path) -> ImagenCascadePipeline:
    pipe = load_cascade(dtype=torch.bfloat16)
    pipe.compile()
    return pipe


CONTESTANTS: dict[str, Load] = {
    "PyTorch, float32": lambda _: load_cascade(dtype=torch.float32),
    "PyTorch, bfloat16": lambda _: load_cascade(dtype=torch.bfloat16),
    "PyTorch, bfloat16, compiled": compiled,
    "ONNX Runtime, float32": lambda folder: load_cascade(folder / "onnx", torch.float32),
    "OpenVINO, float32": lambda folder: load_cascade(folder / "openvino", torch.float32),
    "OpenVINO, bfloat16": lambda folder: load_cascade(folder / "openvino", torch.bfloat16),
    "OpenVINO, int8": lambda folder: load_cascade(folder / "int8", torch.bfloat16),
}
FIRST = "PyTorch, bfloat16"  # that others are compared with in speed; in values it is the one before


def image(pipe: Any) -> Tensor:
    """(1, 3, 1024, 1024) in [0, 1]."""
    return pipe(PROMPT, generator=torch.Generator().manual_seed(SEED), output_type="pt").images.float()


def report(folder: Path, runs: int = RUNS) -> str:
    write_graphs(folder)
    made: dict[str, Tensor] = {}

    def kept(name: str, pipe: Any) -> Callable[[], None]:
        return lambda: made.update({name: image(pipe)})

    seconds = turns({name: kept(name, load(folder)) for name, load in CONTESTANTS.items()}, runs, title="backends")
    rows = []
    for name in CONTESTANTS:
        levels = 255 * (made[name] - made["PyTorch, float32"]).abs().mean().item()
        peak = peak_memory("benchmarks.backends", "--alone", name, "--folder", str(folder))
        figures = (statistics.median(seconds[name]), min(seconds[name]), max(seconds[name]), times_as_fast(seconds, FIRST, name), peak)
        rows.append([name, *(f"{x:.2f}" for x in figures), f"{levels:.2f}"])
    head = ["", "seconds per image", "from", "to", f"times as fast as {FIRST}", "peak GiB", "levels of 255 from float32"]
    return f"A 1024px image of the bundled cascade, median of {runs} runs on {torch.get_num_threads()} threads.\n\n{table(head, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--folder", type=Path, help="where the graphs are kept")
    parser.add_argument("--alone", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        image(CONTESTANTS[args.alone](args.folder))
        return print_peak_memory()
    with tempfile.TemporaryDirectory() as place:
        print(f"{machine()}\n\n{report(args.folder or Path(place), args.runs)}")


if __name__ == "__main__":
    main()
