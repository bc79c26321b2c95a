"""A whole evaluation: every prompt at every point, measured and written down, resumable, on any number of processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.training.folders import one_run_in
from imagen_diffusers.training.processes import process_group

from .asked import cascade_digest, keep_or_refuse, versions
from .curve import canvas
from .figures import Figure
from .generating import Point, generate, save
from .groups import Measured, fill, gathered
from .metrics import Metric, measure_all
from .prompts import digest
from .report import title, write_report
from .super_resolution import Enlarging


@dataclass(frozen=True)
class Evaluation:
    """What is measured of a cascade, and how.

    Args:
        rows: each with its "prompt", and what else the metrics read.
        metrics: measured of every image.
        output: the folder of the report and of what it is made from; the same evaluation started there again goes on.
        seed: of the first row; the next ones count up.
        batch_size: images that are generated and measured together.
        save_images: whether they are kept, as PNG files.
        told: of the model and its settings, for the report.
    """

    rows: Sequence[dict[str, Any]]
    metrics: Sequence[Metric]
    output: Path
    seed: int = 0
    batch_size: int = 8
    save_images: bool = False
    told: dict[str, Any] | None = None

    def asked(self, pipe: ImagenCascadePipeline) -> dict[str, Any]:
        """All that decides the bits of what is measured."""
        return {
            **(self.told or {}),
            "prompts": digest(list(self.rows)),
            "count": len(self.rows),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "cascade": cascade_digest(pipe),
            "device": pipe._execution_device.type,
            "metrics": [metric.fingerprint for metric in self.metrics],
            "versions": versions(),
        }


def evaluate(
    pipe: ImagenCascadePipeline, evaluation: Evaluation, points: Sequence[Point], enlarging: Sequence[Enlarging] = ()
) -> dict[str, dict[str, Figure]]:
    """Measure the cascade at each point, and its super-resolution stages on true images, and write the report.

    Returns:
        The figures of each point and each stage, by name; on the main process alone, and empty on others.

    Raises:
        ValueError: when the folder holds another evaluation, or another run writes into it, and for what the metrics refuse.
    """
    pipe.set_progress_bar_config(disable=True)
    e = evaluation
    if len(points) > 1:
        canvas()  # or whoever lacks matplotlib would hear of it last
    with process_group() as state, one_run_in(e.output):
        asked = e.asked(pipe)
        keep_or_refuse(e.output, asked)
        for point in points:
            fill(e.output / point.name, len(e.rows), e.batch_size, _measuring(pipe, e, point), title(point.settings))
        for one in enlarging:
            fill(e.output / one.name, len(e.rows), e.batch_size, one.measuring(pipe, e.rows, e.metrics, e.seed), one.name)
        if not state.is_main_process:
            return {}
        found = {point.name: _figures(e.metrics, gathered(e.output / point.name, len(e.rows), e.batch_size)) for point in points}
        stages = {}
        for one in enlarging:
            stages |= one.figures(gathered(e.output / one.name, len(e.rows), e.batch_size), e.metrics)
        notes = [metric.about for metric in e.metrics if metric.about]
        write_report(e.output, asked, [(point.settings, found[point.name]) for point in points], stages, notes)
    return found | stages


def _measuring(pipe: ImagenCascadePipeline, e: Evaluation, point: Point) -> Any:
    """What `fill` calls: images of these rows, measured."""

    def measure(chosen: range) -> Measured:
        images = generate(pipe, e.rows, chosen, point, e.seed)
        if e.save_images:
            save(images, e.rows, chosen, e.output / point.name / "images", {**(e.told or {}), **point.call}, e.seed)
        return measure_all(e.metrics, images, [e.rows[i] for i in chosen])

    return measure


def _figures(metrics: Sequence[Metric], rows: Measured) -> dict[str, Figure]:
    return {name: figure for metric in metrics for name, figure in metric.figures(rows).items()}
