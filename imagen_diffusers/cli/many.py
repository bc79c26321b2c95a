"""Images of a file of prompts: a PNG each in one folder, made in batches; a run that was ended goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .loading import prepare
from .options import (
    PROMPT_FILE,
    TEXT_TO_IMAGE,
    Column,
    PipelineOptions,
    SamplingOptions,
    TextOptions,
    check_writable,
)
from .resuming import first_seed, is_there
from .sampling import made_by, stage_settings, warn
from .texts import text_arguments_of_all, texts_to_encode

BATCH_SIZE = 8


@dataclass(frozen=True)
class ManyOptions:
    """A file of prompts in place of one prompt, and how it is read."""

    prompts: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help=f"In place of PROMPT. {PROMPT_FILE}")] = None
    column: Column = None
    batch_size: Annotated[int | None, typer.Option(min=1, help=f"With --prompts: images made at once. {BATCH_SIZE} by default.")] = None

    def check(self, prompt: str | None, best_of: int | None) -> None:
        """See that no option contradicts another one.

        Raises:
            ValueError: naming those that do.
        """
        if self.prompts is None and (self.column is not None or self.batch_size is not None):
            raise ValueError("--column and --batch-size are about a file of prompts; give one as --prompts, or leave them out")
        if self.prompts is not None and prompt is not None:
            raise ValueError(f'PROMPT is "{prompt}", beside a file of --prompts; give one of them')
        if prompt is not None and Path(prompt).suffix in (".txt", ".jsonl", ".csv", ".tsv") and Path(prompt).is_file():
            raise ValueError(f'PROMPT is "{prompt}", which is a file; for the prompts in it give --prompts {prompt}')
        if self.prompts is not None and best_of is not None:
            raise ValueError("--best-of chooses among images of one prompt; leave it out, or give a PROMPT in place of --prompts")


def sample_many(many: ManyOptions, text: TextOptions, pipeline: PipelineOptions, sampling: SamplingOptions, **call: Any) -> None:
    """Write an image of every prompt, or several, as 000000.png and so on into a folder, but for those that are there.

    Args:
        many: with a file of prompts.
        text, pipeline, sampling: the options of all commands; number i has the seed i higher than the first one's.
        call: other arguments of the pipeline's call; those that are None are left out.

    Raises:
        ValueError: for values that do not fit, and a folder with images of another run.
        OSError: for files that are missing, damaged, or cannot be written.
    """
    assert many.prompts is not None
    from imagen_diffusers.evaluation.prompts import read_prompts
    from imagen_diffusers.training.folders import one_run_in

    folder, (settings, told_settings) = _folder(sampling.output), stage_settings(sampling)
    prompts = [row["prompt"] for row in read_prompts(many.prompts, many.column) for _ in range(sampling.num_images_per_prompt)]
    texts = list(dict.fromkeys(one for prompt in prompts for one in texts_to_encode(prompt, text)))
    call = {name: value for name, value in call.items() if value is not None}
    told = {**made_by(TEXT_TO_IMAGE, pipeline, text), **told_settings, **call}
    with one_run_in(folder):
        seed = first_seed(_numbered(folder).items()) if sampling.seed is None else sampling.seed
        each = [{**told, "prompt": prompt, "seed": seed + i} for i, prompt in enumerate(prompts)]
        missing = [i for i in range(len(each)) if not is_there(_place(folder, i), each[i])]
        if missing:
            pipe = prepare(pipeline)
            warn(pipe, texts, text, pipeline.tile, call.get("stop_at"))
            _write(folder, pipe, text, each, missing, many.batch_size or BATCH_SIZE, {**settings, **call})
    count = "1 image, seed" if len(each) == 1 else f"{len(each)} images, seeds {seed} to"
    typer.echo(f"{folder}: {count} {seed + len(each) - 1}{_beyond(folder, len(each))}")


def _write(
    folder: Path, pipe: Any, text: TextOptions, each: Sequence[dict[str, Any]], missing: list[int], batch_size: int, call: dict[str, Any]
) -> None:
    """Those of the images that are missing."""
    import torch
    from tqdm import tqdm

    from imagen_diffusers.images import save_png
    from imagen_diffusers.training.folders import in_one_rename

    pipe.set_progress_bar_config(disable=True)
    with tqdm(total=len(each), initial=len(each) - len(missing), desc="images") as progress:
        for start in range(0, len(missing), batch_size):
            few = missing[start : start + batch_size]
            prompts, seeds = ([each[i][name] for i in few] for name in ("prompt", "seed"))
            alone = {"num_images_per_prompt": len(few)}
            texts = text_arguments_of_all(pipe, prompts, text) if pipe.takes_text else alone
            made = pipe(**texts, **call, generator=[torch.Generator().manual_seed(seed) for seed in seeds])
            for i, image in zip(few, made.images, strict=True):
                with in_one_rename(_place(folder, i)) as part:
                    save_png(image, part, each[i])
            progress.update(len(few))


def _folder(output: Path) -> Path:
    if output.suffix.lower() == ".png":
        raise ValueError(f'--output is "{output}", the name of one image; give a folder for those of --prompts')
    check_writable(output)
    return output


def _place(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.png"


def _numbered(folder: Path) -> dict[int, Path]:
    """Images of a run, by their numbers."""
    return {int(path.stem): path for path in sorted(folder.glob("[0-9]" * 6 + ".png"))}


def _beyond(folder: Path, count: int) -> str:
    """What else is there, of a run of more prompts."""
    more = sum(number >= count for number in _numbered(folder))
    return f"; beyond them, from {_place(folder, count).name} on, {more} of a run of more prompts" if more else ""
