"""What an evaluation found, for programs (report.json), for people (report.md) and as the paper's curve (curve.png)."""

import math
from pathlib import Path
from typing import Any

from .asked import as_json, write_whole
from .figures import INTERVAL, Figure, exact

Figures = dict[str, Figure]  # by name
Columns = list[tuple[dict[str, float], Figures]]  # of each point its settings and its figures
NAMES = {"guidance_scale": "guidance", "num_inference_steps": "steps"}


def write_report(folder: Path, asked: dict[str, Any], columns: Columns, stages: dict[str, Figures], notes: list[str]) -> None:
    """Write report.json, report.md and, where there is one, curve.png.

    Args:
        folder: of the evaluation.
        asked: what decided what was measured.
        columns: the points of the curve.
        stages: figures of super-resolution stages, by the name of the stage.
        notes: what else is to be said, a sentence each.
    """
    from .curve import write_curve

    found = [{"settings": settings, "figures": _plain(figures)} for settings, figures in columns]
    whole = {"asked": asked, "notes": notes, "points": found, "stages": {name: _plain(figures) for name, figures in stages.items()}}
    write_whole(folder / "report.json", as_json(whole) + "\n")
    tables = [markdown([(title(settings), figures) for settings, figures in columns])] if columns else []
    tables += [markdown(list(stages.items()))] if stages else []
    curve = folder / "curve.png"
    has_curve = write_curve(curve, columns)
    if not has_curve:
        curve.unlink(missing_ok=True)  # of other metrics
    parts = [*tables, *notes, *(["![The curve](curve.png)"] if has_curve else [])]
    write_whole(folder / "report.md", "\n\n".join(parts) + "\n")


def markdown(columns: list[tuple[str, Figures]]) -> str:
    """A table with a row for each figure, and under it what stands in brackets."""
    names = list(dict.fromkeys(name for _, figures in columns for name in figures))
    lines = [f"| | {' | '.join(head for head, _ in columns)} | of |", f"|---|{'---:|' * (len(columns) + 1)}"]
    for name in names:
        cells = [figures.get(name) for _, figures in columns]
        counts = sorted({cell.count for cell in cells if cell is not None})
        told = " | ".join("-" if cell is None else str(cell) for cell in cells)
        lines.append(f"| {name} | {told} | {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} |")
    kinds = {name: figure.kind for _, figures in columns for name, figure in figures.items() if figure.kind != INTERVAL}
    others = [f"; of {name} the {kind}" for name, kind in kinds.items()]
    return "\n".join([*lines, "", f"In brackets the {INTERVAL}{''.join(others)}."])


def title(settings: dict[str, float]) -> str:
    """The head of a column: "guidance 3"."""
    return ", ".join(f"{NAMES.get(name, name)} {exact(value)}" for name, value in settings.items()) or "own settings"


def _plain(figures: Figures) -> dict[str, Any]:
    """As JSON has it, which knows no numbers that are not finite."""
    return {
        name: {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in figure._asdict().items()}
        for name, figure in figures.items()
    }
