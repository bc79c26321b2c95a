"""The whole emoji cascade from nothing, and its control, step by step; run it again and it goes on where it stopped.

    python -m examples.emoji.make --folder runs/emoji
    python -m examples.emoji.make --folder runs/emoji --time_limit 540    # in slices, where a machine is lent by the minute

Every step is one of the commands in this folder, or an evaluation, printed before it runs: things, judge, base and super-resolution, the
control's text encoder and stages, assembly, prompts, scores. What is there already is kept. The control, to 256px, and its scores are in
`control` below the folder; --without_control leaves them out.
On a GPU three steps run side by side, what they say is in `logs`, networks are compiled and see more images. Where its time is limited,
the stages to 256px are trained for one slice each, at the end of which their rates have fallen to nothing (`--lr_by_time`): one is begun
only where most of a slice is left. The 1024px stage is left out then, unless --steps says how long it is trained; once its own command has
trained it, the next run puts it into the pipeline.
"""

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from examples.scenes.device import device_type
from examples.scenes.steps import SHORTEST, Step, run
from imagen_diffusers.finetuning.flags import at_least_one, run_script

from .judge import CHOSEN, FILE, MEASURED
from .things import LINES

STAGES = ("base", "sr256", "sr1024")
TO_256 = STAGES[:2]
EXPORT = Path("unet") / "config.json"  # in the folder of a stage
# The last stage's network is no other cascade's; its noise levels and its loss are those of docs/training.md.
AT_1024 = ["--log_snr_mean=-3", "--log_snr_std=3", "--loss_type=huber", "--huber_c=0.02"]
LONG = 100_000  # steps: more than any slice has
UNBROKEN = 120.0  # seconds that scores, or the control's encoder, take on a GPU, about
ENCODER = Path("tokenizer") / "tokenizer_config.json"  # written after the text encoder
WHOLE = 0.85  # of a slice that a stage must have, if that slice is all its training


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Args:
        stages: which are trained, of all in order.
        steps, batch_sizes: of each stage; None for as many steps as a slice has.
        rates: of each stage, Muon's and AdamW's.
        ema_decay: of the stages.
        judge_steps, control_steps: of the judge, and of the control's text encoder.
        count: prompts that are scored.
        measured: compositions and captions that judge and control are measured on.
        validations: how often a stage's error is measured.
        pretrained: a pipeline whose weights the stages to 256px begin with.
        workers: processes that prepare examples, of each step.
        compile: whether networks are compiled.
        at_once: steps that run side by side.
        shortest: seconds that must be left for a stage to be begun whose training a slice is.
        unbroken: seconds that must be left for scores, and the control's encoder, which do not go on where they stopped.
    """

    stages: tuple[str, ...] = STAGES
    steps: tuple[int, ...] | None = (9000, 4000, 4000)
    batch_sizes: tuple[int, ...] = (64, 16, 16)
    rates: tuple[tuple[float, float], ...] = ((1.2e-3, 5e-4),) * 3
    ema_decay: float = 0.9995
    judge_steps: int = 5000
    control_steps: int = 1300
    count: int = 500
    measured: int = 2000
    validations: int = 8
    pretrained: str = "imagen-scenes"
    workers: int = 1
    compile: bool = False
    at_once: int = 1
    shortest: float = SHORTEST
    unbroken: float = SHORTEST


def plan_for(device: str, time_limit: float = math.inf) -> Plan:
    """A GPU that is there for a slice of time trains by it, and begins with what is near."""
    if device == "cpu":
        return Plan()
    larger = Plan(batch_sizes=(256, 96, 96), rates=((2e-3, 8e-4), (1.2e-3, 4e-4), (1.2e-3, 4e-4)), ema_decay=0.999)
    larger = replace(larger, workers=6, compile=True, at_once=3, measured=500)
    if time_limit == math.inf:
        return larger
    most = WHOLE * time_limit
    sliced = replace(larger, stages=TO_256, steps=None, pretrained="imagen-emoji")
    return replace(sliced, shortest=most, unbroken=min(UNBROKEN, most))


def made_by(plan: Plan, folder: Path, stage: str) -> Path:
    """What a stage's training leaves: its export, or a mark that the slice which is all its training came to its end."""
    return folder / stage / (EXPORT if plan.steps is not None else "trained_for_a_slice")


def training(plan: Plan, folder: Path, stages: Sequence[str]) -> Iterator[Step]:
    """Of these stages, in a folder that holds things and a text encoder."""
    for stage in stages:
        number = STAGES.index(stage)
        count, batch, (muon, adamw) = LONG if plan.steps is None else plan.steps[number], plan.batch_sizes[number], plan.rates[number]
        few = min(count, 9000)  # for a slice as for the steps that a processor makes
        how = [f"--max_train_steps={count}", f"--train_batch_size={batch}", f"--muon_learning_rate={muon}", f"--learning_rate={adamw}"]
        how += [f"--ema_decay={plan.ema_decay}", f"--dataloader_num_workers={plan.workers}"]
        how += [f"--pretrained={plan.pretrained}"] if stage in TO_256 else AT_1024
        how += [f"--checkpointing_steps={max(few // 16, 1)}"]
        how += [f"--validation_steps={max(few // plan.validations, 1)}"] if plan.validations else []
        how += [*(["--torch_compile"] if plan.compile else []), *(["--lr_by_time"] if plan.steps is None else [])]
        yield Step(
            ["examples.emoji.train", f"--stage={stage}", f"--folder={folder}", f"--output_dir={folder / stage}", *how],
            made_by(plan, folder, stage),
            trained=None if plan.steps is None else (folder / stage, count),
            limited=True,
            needs=(folder / ENCODER,),
            shortest=plan.shortest if plan.steps is None else SHORTEST,
            marked=plan.steps is None,
        )


def scoring(plan: Plan, folder: Path, prompts: Path, judge: Path, stages: Sequence[str]) -> Iterator[Step]:
    """These stages as a pipeline, and how often its images of 256px show what their prompts name."""
    pipeline, trained = folder / "pipeline", tuple(made_by(plan, folder, stage) for stage in stages)
    measured = judge.with_name(MEASURED)
    yield Step(
        ["examples.emoji.assemble", f"--folder={folder}", f"--output_dir={pipeline}"],
        pipeline / "model_index.json",
        sources=(*trained, folder / STAGES[-1] / EXPORT),  # which may have been trained by its own command
        needs=(*trained, measured),
    )
    asked = [f"--model={pipeline}", f"--prompts={prompts}", "--scorer=examples.emoji.scorer:judge", "--stop-at=2", "--save-images"]
    yield Step(
        ["imagen_diffusers.cli", "evaluate", *asked, f"--output={folder / 'report'}"],
        folder / "report" / "report.md",
        sources=(*trained[: len(TO_256)], prompts, judge),  # and not the pipeline, which a last stage, too, makes anew
        needs=(pipeline / "model_index.json", prompts, measured),
        shortest=plan.unbroken,
        begins=folder / "report" / "run.json",
        begun_of=(pipeline / "model_index.json",),  # an evaluation goes on with the same pipeline alone, all of its stages
    )


def steps(plan: Plan, folder: Path, *, control: bool = True) -> Iterator[Step]:
    """In order; each needs what some before it make."""
    of_control, encoder = folder / "control", folder / "control-encoder"
    judge, prompts, things = folder / "judge" / FILE, folder / "prompts.jsonl", folder / LINES
    yield Step(["examples.emoji.data", f"--folder={folder}"], folder / ENCODER)
    yield from training(plan, folder, plan.stages)
    if control:
        size = [f"--max_train_steps={plan.control_steps}", f"--count={plan.measured}"]
        yield Step(
            ["examples.emoji.control", f"--folder={folder}", f"--output_dir={encoder}", *size],
            encoder / "tokenizer.json",
            needs=(things,),
            shortest=plan.unbroken,
        )
        yield Step(
            ["examples.emoji.data", f"--folder={of_control}", f"--things={folder}", f"--encoder={encoder}"],
            of_control / ENCODER,
            needs=(encoder / "tokenizer.json",),
        )
    size = [f"--max_train_steps={plan.judge_steps}", f"--count={plan.measured}", f"--dataloader_num_workers={plan.workers}"]
    yield Step(
        ["examples.emoji.train_judge", f"--folder={folder}", f"--output_dir={judge.parent}", *size],
        judge.with_name(MEASURED),
        limited=True,
        needs=(things,),
    )
    yield Step(["examples.emoji.prompts", f"--folder={folder}", f"--output={prompts}", f"--count={plan.count}"], prompts, needs=(things,))
    if control:
        yield from training(plan, of_control, TO_256)
    yield from scoring(plan, folder, prompts, judge, plan.stages)
    if control:
        yield from scoring(plan, of_control, prompts, judge, TO_256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where all is kept")
    parser.add_argument("--time_limit", type=float, default=math.inf, help="in seconds; run again for the rest")
    parser.add_argument("--without_control", action="store_true")
    for name in ("steps", "batch_sizes"):
        parser.add_argument(f"--{name}", type=at_least_one, nargs=len(STAGES), help="of each stage")
    for name in ("judge_steps", "control_steps", "count", "measured", "at_once"):
        parser.add_argument(f"--{name}", type=at_least_one)
    for name in ("validations", "workers"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--pretrained", help="a pipeline whose weights the stages to 256px begin with")
    args = parser.parse_args()
    given = {name: value for name, value in vars(args).items() if name in Plan.__dataclass_fields__ and value is not None}
    plan = replace(
        plan_for(device_type(), args.time_limit),
        **{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()},
        **({"stages": STAGES} if args.steps else {}),
    )
    os.environ[CHOSEN] = str((args.folder / "judge").resolve())  # for the evaluations
    logs = args.folder / "logs" if plan.at_once > 1 else None
    if not run(list(steps(plan, args.folder, control=not args.without_control)), args.time_limit, plan.at_once, logs):
        print("time is up; run the same command for the rest")


if __name__ == "__main__":
    run_script(main)
