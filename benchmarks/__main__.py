"""Everything that is measured, on the machine this runs on, written to benchmarks/RESULTS.md, and its plots to docs/.

    make bench
    .venv/bin/python -m benchmarks --only stages growth    # measured again; what else is in the file stays

Nothing else should run meanwhile. It measures the processor; `python -m benchmarks.gpu` measures a GPU.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import ceilings, generate, growth, layers, operations, side_by_side, solvers, stages, throughput, tiles

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """# Measured

Written by `make bench`; each part names its own command, which says what takes turns.
"""
PLOTS = Path(__file__).parents[1] / "docs"  # whose pages show them, too


def evaluating() -> str:
    measured = stages.measure_all()
    return f"{stages.report(measured)}\n\n{_shown(stages, measured, 'How much of the machine each network uses')}"


def solving() -> str:
    measured = solvers.measure_all()
    return f"{solvers.report(measured)}\n\n{_shown(solvers, measured, 'Prompts right against seconds')}"


def growing() -> str:
    measured = growth.measure_all()
    return f"{_shown(growth, measured, 'Time against pixels')}\n\n{growth.report(measured)}"


def _shown(part: Any, measured: Any, title: str) -> str:
    """Plotted for the docs, and shown in the results."""
    image = PLOTS / f"measured-{part.__name__.rpartition('.')[2]}.png"
    part.plot(measured, image)
    return f"![{title}](../docs/{image.name})"


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "ceilings": ("What the machine can do", ceilings.report),
    "stages": ("One evaluation of each network", evaluating),
    "generate": ("The bundled cascade", generate.report),
    "throughput": ("Many images", throughput.report),
    "solvers": ("Quality against cost", solving),
    "side_by_side": ("Beside imagen-pytorch and diffusers' IF pipelines", side_by_side.report),
    "layers": ("Where the time of imagen-pytorch's networks goes", layers.report),
    "operations": ("Where the time of both goes, operation by operation", operations.report),
    "tiles": ("Beyond one image's memory", tiles.report),
    "growth": ("How cost grows", growing),
}


def section(name: str) -> str:
    """One part, measured now; what the machine can do, too, since its speed drifts."""
    title, report = PARTS[name]
    for rate in (ceilings.matrix_rate, ceilings.convolution_rate, ceilings.copy_rate):
        rate.cache_clear()
    return f"## {title}\n\n`python -m benchmarks.{name}` on {ceilings.machine()}.\n\n{report()}\n"


def read(path: Path) -> dict[str, str]:
    """The parts that an earlier run wrote, by name."""
    written = path.read_text().split("\n## ")[1:] if path.exists() else []
    by_title = {text.partition("\n")[0]: f"## {text.rstrip()}\n" for text in written}
    return {name: by_title[title] for name, (title, _) in PARTS.items() if title in by_title}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--output", type=Path, default=RESULTS, help="plots go to docs/ in any case")
    args = parser.parse_args()
    sections = read(args.output)
    for name in args.only:
        sections[name] = section(name)
        args.output.write_text("\n".join([HEAD, *(sections[n] for n in PARTS if n in sections)]))  # after each part: a run is long
        print(sections[name], flush=True)


if __name__ == "__main__":
    main()
