"""A whole evaluation: every prompt at every point, measured and written down, resumable, on any number of processes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imagen_diffusers.hub.versions import versions
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.pipelines.stage_numbers import numbers_to_run
from imagen_diffusers.training.folders import one_run_in
from imagen_diffusers.training.processes import process_group, this_process

from .asked import as_json, cascade_digest, keep_or_refuse, read_notes, write_whole
from .curve import canvas
from .figures import Figure
from .generating import Point, generate, save
from .groups import Measured, fill, gathered, is_whole
from .metrics import Metric, all_figures, measure_all
from .prompts import digest
from .report import title, write_report
from .super_resolution import Enlarging

SETTINGS = "settings.json"  # of a point, in its folder


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

    def asked(self, pipe: ImagenCascadePipeline, points: Sequence[Point], enlarging: Sequence[Enlarging] = ()) -> dict[str, Any]:
        """All that decides the bits of what is measured, but for what the points of one curve differ in."""
        return {
            **(self.told or {}),
            "prompts": digest(list(self.rows)),
            "count": len(self.rows),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "save_images": self.save_images,
            "points": _together([point.common for point in points]),
            "true images": _together([one.fingerprint(self.rows) for one in enlarging]),
            "cascade": cascade_digest(pipe),
            "device": pipe._execution_device.type,
            "metrics": [metric.fingerprint for metric in self.metrics],
            "versions": versions(),
        }


def evaluate(
    pipe: ImagenCascadePipeline, evaluation: Evaluation, points: Sequence[Point], enlarging: Sequence[Enlarging] = ()
) -> dict[str, dict[str, Figure]]:
    """Measure the cascade at each point, and its super-resolution stages on true images, and write the report.

    The report holds what was measured in the folder before, too.

    Returns:
        The figures of each point and each stage of the report, by name; on the main process alone, and empty on others.

    Raises:
        ValueError: when the folder holds another evaluation, or another run writes into it, and for what the metrics refuse.
    """
    pipe.set_progress_bar_config(disable=True)
    e = evaluation
    if len({point.name for point in [*_points(e), *points]}) > 1:
        canvas()  # or whoever lacks matplotlib would hear of it last
    with process_group() as state, one_run_in(e.output):
        asked = e.asked(pipe, points, enlarging)
        keep_or_refuse(e.output, asked)
        for size in _sizes_to_make(pipe, e, points, enlarging):
            _try(e, size)
        for point in points:
            _note(e.output, point)
            fill(e.output / point.name, len(e.rows), e.batch_size, _measuring(pipe, e, point), title(point.settings))
        for one in enlarging:
            fill(e.output / one.name, len(e.rows), e.batch_size, _enlarging(pipe, e, one), one.name)
        if not state.is_main_process:
            return {}
        points = _points(e) if points else []
        enlarging = [enlarging[0]._replace(stage=n) for n in pipe.stage_numbers if _is_whole(e, f"stage-{n}")] if enlarging else []
        found = {point.name: all_figures(e.metrics, gathered(e.output / point.name, len(e.rows), e.batch_size)) for point in points}
        stages = {}
        for one in enlarging:
            stages |= one.figures(gathered(e.output / one.name, len(e.rows), e.batch_size), e.metrics)
        notes = [metric.about for metric in e.metrics if metric.about]
        write_report(e.output, asked, [(point.settings, found[point.name]) for point in points], stages, notes)
    return found | stages


def _try(e: Evaluation, size: tuple[int, int]) -> None:
    """Let the metrics see noise of a size: what they refuse would else be heard of after a whole group.

    Raises:
        ValueError: for what they refuse, and whatever fails in them.
    """
    noise = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    try:
        measure_all(e.metrics, noise, e.rows[:1])
    except ValueError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise ValueError(f"a metric failed on an image of noise, which all are tried on before any is generated, with {told}") from error


def _sizes_to_make(
    pipe: ImagenCascadePipeline, e: Evaluation, points: Sequence[Point], enlarging: Sequence[Enlarging]
) -> set[tuple[int, int]]:
    """(height, width) of images that will be measured."""
    found = set()
    for point in points:
        if not _is_whole(e, point.name):
            last = numbers_to_run(pipe.networks, None, None, point.call.get("stop_at"))[-1]
            trained = pipe.networks[last].sample_size
            found.add((point.call.get("height") or trained, point.call.get("width") or trained))
    return found | {(size, size) for one in enlarging if not _is_whole(e, one.name) for size in [pipe.networks[one.stage].sample_size]}


def _measuring(pipe: ImagenCascadePipeline, e: Evaluation, point: Point) -> Any:
    """What `fill` calls: images of these rows, measured."""

    def measure(chosen: range) -> Measured:
        images = generate(pipe, e.rows, chosen, point, e.seed)
        if e.save_images:
            told = json.loads(as_json({**(e.told or {}), **point.call}))
            save(images, e.rows, chosen, e.output / point.name / "images", told, e.seed)
        return measure_all(e.metrics, images, [e.rows[i] for i in chosen])

    return measure


def _enlarging(pipe: ImagenCascadePipeline, e: Evaluation, one: Enlarging) -> Any:
    """The same of true images made small and enlarged again."""

    def keep(images: Tensor, chosen: range) -> None:
        if e.save_images:
            save(images, e.rows, chosen, e.output / one.name / "images", {**(e.told or {}), "stage": one.stage}, e.seed)

    return one.measuring(pipe, e.rows, e.metrics, e.seed, keep)


def _note(folder: Path, point: Point) -> None:
    """Keep a point's settings beside what is measured at it, for reports over more points than are asked for."""
    if this_process().is_main_process:
        write_whole(folder / point.name / SETTINGS, json.dumps(point.settings) + "\n")


def _points(e: Evaluation) -> list[Point]:
    """All that are measured in the folder, by their settings."""
    there = [path for path in e.output.glob(f"*/{SETTINGS}") if _is_whole(e, path.parent.name)]
    found = [Point(path.parent.name, read_notes(path), {}) for path in there]
    try:
        return sorted(found, key=lambda point: list(point.settings.values()))
    except TypeError:
        raise OSError(
            f"the {SETTINGS} of {', '.join(point.name for point in found)} are of different kinds; delete the foreign ones"
        ) from None


def _is_whole(e: Evaluation, name: str) -> bool:
    return is_whole(e.output / name, len(e.rows), e.batch_size)


def _together(told: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What all of these are; None of none.

    Raises:
        ValueError: where they differ.
    """
    if any(one != told[0] for one in told):
        raise ValueError(f"one evaluation holds points of one kind, and these are {told}; give those of another kind another output")
    return told[0] if told else None
