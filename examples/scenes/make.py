"""The whole bundled cascade from nothing, step by step; run it again and it goes on where it stopped.

    python -m examples.scenes.make --folder runs/scenes
    python -m examples.scenes.make --folder runs/scenes --time_limit 540    # in slices, where a machine is lent by the minute

Every step is one of the commands in this folder, printed before it runs: text encoder, base, super-resolution, oracle, assembly, scores.
What a step has made already is kept, but a stage is exported again when it has a later checkpoint, and the pipeline put together again when
a stage's export is newer. Another text encoder, another world of scenes or other sizes than steps change nothing of what is there: begin
in another folder.
On a GPU the networks are compiled and see more images; sizes can be given, too.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from imagen_diffusers.finetuning.flags import at_least_one, run_script
from imagen_diffusers.training.checkpoints import list_checkpoints

from .device import device_type
from .steps import Step, run

STAGES = ("base", "sr256", "sr1024")


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Args:
        scenes, steps, batch_sizes: of each stage.
        text_steps: of span corruption, of grounding, and of brief captions.
        oracle_scenes, oracle_steps: of the reader of images.
        count: prompts of each kind that are scored.
        workers: processes that prepare examples.
        compile: whether networks are compiled.
    """

    scenes: tuple[int, ...] = (60_000, 4_000, 1_500)
    steps: tuple[int, ...] = (20_000, 4_000, 3_000)
    batch_sizes: tuple[int, ...] = (64, 16, 16)
    text_steps: tuple[int, int, int] = (300, 600, 800)
    oracle_scenes: int = 6_000
    oracle_steps: int = 3_000
    count: int = 200
    workers: int = 1
    compile: bool = False


def plan_for(device: str) -> Plan:
    """Two processors see 15 to 30 images per second and train for days at these sizes; a GPU sees thousands, and more of them pay."""
    if device == "cpu":
        return Plan()
    larger = {"scenes": (400_000, 30_000, 30_000), "steps": (30_000, 8_000, 6_000), "batch_sizes": (256, 64, 64), "oracle_scenes": 30_000}
    return Plan(**larger, workers=8, compile=True)


def steps(plan: Plan, folder: Path, pipeline: Path) -> Iterator[Step]:
    """In order; each needs what those before it made."""
    text, ground, brief = plan.text_steps
    counts = [f"--max_train_steps={text}", f"--grounding_steps={ground}", f"--brief_steps={brief}"]
    yield Step(
        ["examples.scenes.train_text_encoder", f"--output_dir={pipeline}", *counts],
        pipeline / "tokenizer" / "tokenizer.json",
    )
    exported = tuple(folder / stage / "unet" / "config.json" for stage in STAGES)
    for stage, product, scenes, count, batch in zip(STAGES, exported, plan.scenes, plan.steps, plan.batch_sizes, strict=True):
        sizes = [f"--scenes={scenes}", f"--max_train_steps={count}", f"--train_batch_size={batch}"]
        where = [f"--folder={folder}", f"--pipeline={pipeline}", f"--output_dir={folder / stage}"]
        how = [f"--validation_steps={max(count // 8, 1)}", f"--checkpointing_steps={max(count // 16, 1)}"]
        how += [f"--dataloader_num_workers={plan.workers}", *(["--torch_compile"] if plan.compile else [])]
        yield Step(["examples.scenes.train", f"--stage={stage}", *sizes, *where, *how], product, trained=(folder / stage, count))
    reader = pipeline / "oracle"
    given = [f"--output_dir={reader}", f"--folder={folder}"]
    given += [f"--scenes={plan.oracle_scenes}", f"--max_train_steps={plan.oracle_steps}"]
    yield Step(["examples.scenes.oracle", *given], reader / "oracle.safetensors")
    yield Step(
        ["examples.scenes.assemble", f"--output_dir={pipeline}", f"--folder={folder}", "--max_shard_size=15MB"],
        pipeline / "model_index.json",
        exported,
    )
    counts = [f"--count={plan.count}", f"--fine_count={plan.count}", f"--distance_count={5 * plan.count}"]
    yield Step(["examples.scenes.evaluate", f"--model={pipeline}", f"--oracle={reader}", *counts], None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/scenes"), help="where renders and checkpoints are kept")
    parser.add_argument("--pipeline", type=Path, help="where the cascade is put together; by default pipeline/ in the folder")
    parser.add_argument("--time_limit", type=float, default=float("inf"), help="in seconds; run again for the rest")
    for name in ("scenes", "steps", "batch_sizes"):
        parser.add_argument(f"--{name}", type=at_least_one, nargs=3, help="of each stage")
    parser.add_argument("--text_steps", type=int, nargs=3, help="three")
    for name in ("oracle_scenes", "oracle_steps", "count"):
        parser.add_argument(f"--{name}", type=at_least_one)
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    plan = plan_for(device_type())
    given = {name: value for name, value in vars(args).items() if name in Plan.__dataclass_fields__ and value is not None}
    plan = replace(plan, **{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
    finished = run(list(steps(plan, args.folder, args.pipeline or args.folder / "pipeline")), args.time_limit)
    if not finished:
        reached = {stage: there[-1].name for stage in STAGES if (there := list_checkpoints(args.folder / stage))}
        print(f"time is up ({', '.join(f'{k}: {v}' for k, v in reached.items()) or 'no stage begun'}); run the same command for the rest")


if __name__ == "__main__":
    run_script(main)
