"""The paper's curve (figure 4a): a distance to true images against alignment with the text, a point for each setting."""

from pathlib import Path
from typing import Any

from imagen_diffusers.extras import install

from .figures import Figure, exact

DISTANCES = ("FID", "KID")  # by any extractor, which stands in brackets; the first that was measured is drawn


def axes(columns: list[tuple[dict[str, float], dict[str, Figure]]]) -> tuple[str, str] | None:
    """What lies across and what lies up; None where there is no curve.

    Across is the CLIP score or, without one, the first share; up is a distance.
    """
    every = [(name, figure) for _, figures in columns for name, figure in figures.items()]
    up = [name for kind in DISTANCES for name, _ in every if name.startswith(f"{kind} (")]
    across = [name for name, _ in every if name == "CLIP score"] + [name for name, figure in every if figure.share]
    return (across[0], up[0]) if up and across and len(_with(columns, across[0], up[0])) > 1 else None


def write_curve(path: Path, columns: list[tuple[dict[str, float], dict[str, Figure]]]) -> bool:
    """Write the figure as a PNG, with intervals as bars; returns whether there is one.

    Raises:
        ImportError: without matplotlib.
    """
    chosen = axes(columns)
    if chosen is None:
        return False
    columns = _with(columns, *chosen)
    figure, plot = canvas()
    across, up = ([figures[name] for _, figures in columns] for name in chosen)
    scale = 100 if across[0].share else 1
    xs, ys = [one.value * scale for one in across], [one.value for one in up]
    bars = {"xerr": _bars(across, scale), "yerr": _bars(up, 1)}
    plot.errorbar(xs, ys, **bars, marker="o", capsize=2, linewidth=1.5, elinewidth=0.8)
    for (settings, _), x, y in zip(columns, xs, ys, strict=True):
        label = ", ".join(map(exact, settings.values()))
        plot.annotate(label, (x, y), xytext=(5, 5), textcoords="offset points")
    plot.set_xlabel(f"{chosen[0]}{' (%)' if scale == 100 else ''}")
    plot.set_ylabel(chosen[1])
    plot.set_title(f"at each point: {' and '.join(_words(columns[0][0]))}")
    plot.grid(alpha=0.3)
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})
    return True


def canvas() -> tuple[Any, Any]:
    """A figure that no window shows, and no global state of matplotlib knows.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise ImportError(f"the curve needs matplotlib: {install('evaluation')}") from None
    figure = Canvas(figsize=(5.5, 4))
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _with(columns: list[tuple[dict[str, float], dict[str, Figure]]], *names: str) -> list[tuple[dict[str, float], dict[str, Figure]]]:
    """The points that have all of these figures: a scorer may have found nothing to judge at others."""
    return [column for column in columns if all(name in column[1] for name in names)]


def _bars(figures: list[Figure], scale: int) -> list[list[float]]:
    """How far each range reaches below and above its value."""
    below = [max(one.value - one.low, 0.0) * scale for one in figures]
    return [below, [max(one.high - one.value, 0.0) * scale for one in figures]]


def _words(settings: dict[str, float]) -> list[str]:
    return [name.replace("_", " ").replace("num ", "") for name in settings] or ["own settings"]
