"""`imagen-diffusers evaluate`."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as o
from .loading import pick_device, prepare

SWEPT = {"--guidance": "guidance_scale", "--step-counts": "num_inference_steps"}  # of the first stage

Prompts = Annotated[Path, typer.Option(exists=True, dir_okay=False, help=o.PROMPT_FILE)]
Folder = Annotated[Path, typer.Option(help="Folder of the report; the same command run again goes on.")]
Metrics = Annotated[str, typer.Option(help="Of fid, kid, is (the inception score) and clip, separated by commas.")]
Reference = Annotated[Path | None, typer.Option(exists=True, help="For fid and kid: a folder of true images, or a file of evaluate-stats.")]
EXTRACTOR = "Images to features: a vision model's folder or Hub id, inception:FILE of its weights, or module:name of your own."
Extractor = Annotated[str | None, typer.Option(help=f"For fid and kid. {EXTRACTOR}")]
Clip = Annotated[str | None, typer.Option(help="For clip: its folder or Hub id.")]
Scorer = Annotated[list[str] | None, typer.Option(help="module:name of a function that judges images. May be given again.")]
Guidance = Annotated[str | None, typer.Option(help='Guidance scales of the first stage, a point of the curve each: "1,2,3,5".')]
StepCounts = Annotated[str | None, typer.Option(help='In place of these, numbers of steps of the first stage: "8,16,32".')]
SuperResolution = Annotated[
    str | None,
    typer.Option(help='In place of generating: stages, "2,3", that enlarge the true images which the rows name as file_name, made small.'),
]
Lpips = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="For super-resolution: torchvision's weights of VGG16.")]


@dataclass(frozen=True)
class MeasureOptions:
    """What is measured of images."""

    metrics: Metrics = ""
    reference: Reference = None
    extractor: Extractor = None
    clip: Clip = None
    scorer: Scorer = None


@dataclass(frozen=True)
class RunOptions:
    """Which images, and how many at once."""

    column: o.Column = None
    num_prompts: Annotated[int | None, typer.Option(min=1, help="The first so many prompts; all by default.")] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Images that are generated and measured at once.")] = 8
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Of the first prompt; the next ones count up.")] = 0
    save_images: Annotated[bool, typer.Option("--save-images", help="Keep the images, too.")] = False

    def rows(self, prompts: Path) -> list[dict[str, Any]]:
        """Of the file of prompts, those that are asked for.

        Raises:
            ValueError: for a file that cannot be read, and for fewer of them.
        """
        from imagen_diffusers.evaluation.prompts import read_prompts

        rows = read_prompts(prompts, self.column)
        if (self.num_prompts or 0) > len(rows):
            raise ValueError(
                f"--num-prompts is {self.num_prompts}, and {prompts} holds {len(rows)}; ask for no more, or leave it out for all"
            )
        return rows[: self.num_prompts]


def evaluate(
    prompts: Prompts,
    output: Folder,
    pipeline: o.PipelineOptions,
    measures: MeasureOptions,
    run: RunOptions,
    guidance: Guidance = None,
    step_counts: StepCounts = None,
    stop_at: o.StopAt = None,
    super_resolution: SuperResolution = None,
    lpips: Lpips = None,
) -> None:
    """Say how good a cascade is: generate an image of each prompt, measure them, and write a report."""
    swept = _swept({"--guidance": guidance, "--step-counts": step_counts})
    stages = _listed("--super-resolution", super_resolution, whole=True)
    if stages and (swept[0] is not None or stop_at is not None):
        raise ValueError("--super-resolution enlarges true images and generates none; leave out --guidance, --step-counts and --stop-at")
    if lpips is not None and not stages:
        raise ValueError("--lpips compares enlarged images with true ones; give --super-resolution, or leave it out")
    o.check_writable(output)
    from imagen_diffusers.evaluation.choosing import Choice
    from imagen_diffusers.evaluation.curve import canvas
    from imagen_diffusers.evaluation.generating import sweep
    from imagen_diffusers.evaluation.runs import Evaluation, evaluate
    from imagen_diffusers.evaluation.super_resolution import Enlarging, fidelities
    from imagen_diffusers.training.processes import process_group

    names = tuple(name.strip() for name in measures.metrics.split(",") if name.strip())
    choice = Choice(names, measures.reference, measures.extractor, measures.clip, tuple(measures.scorer or ()), bool(stages))
    choice.check()
    rows = run.rows(prompts)
    with process_group() as state:
        device = str(state.device) if state.use_distributed else pick_device(pipeline.device)
        pipe = prepare(replace(pipeline, device=device))
        if len(swept[1]) > 1:
            canvas()  # whoever lacks matplotlib hears of it before anything is measured
        metrics = choice.load(len(rows), device, output)
        points = [] if stages else sweep(pipe, *swept, stop_at=stop_at)
        enlarging = [Enlarging(int(n), prompts.parent, fidelities(lpips)) for n in stages]
        for one in enlarging:
            one.check(pipe, rows)
        told = {name: value for name, value in asdict(pipeline).items() if name not in o.OF_THE_MACHINE}
        asked = Evaluation(rows, metrics, output, run.seed, run.batch_size, run.save_images, told)
        evaluate(pipe, asked, points, enlarging)
        if state.is_main_process:
            typer.echo((output / "report.md").read_text(encoding="utf-8"))


def _swept(given: dict[str, str | None]) -> tuple[str | None, list[float]]:
    """The setting that changes from point to point, and its values; None and no values where none does."""
    said = {option: text for option, text in given.items() if text is not None}
    if len(said) > 1:
        raise ValueError(f"{' and '.join(said)} are two curves; give one of them, and run the command again for the other")
    for option, text in said.items():
        return SWEPT[option], _listed(option, text, whole=option == "--step-counts")
    return None, []


def _listed(option: str, text: str | None, *, whole: bool) -> list[float]:
    read: Any = o.numbers(option, text, whole=whole)
    return [] if read is None else read if isinstance(read, list) else [read]
