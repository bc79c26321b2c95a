"""Teach the text encoder of imagen-emoji a word for a thing, from 8 images of it, and count how often the word shows the thing.

    python -m examples.emoji.word --folder runs/emoji --output_dir runs/word

The things are those that the cascade knows by name, so what is measured is whether `examples/textual_inversion.py` finds in the images what
the name says; it begins with the name of something else. The judge names images of 64px, by seeds that no run learned from.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from examples import textual_inversion
from imagen_diffusers import ImagenCascadePipeline, bundled
from imagen_diffusers.evaluation.figures import Figure
from imagen_diffusers.evaluation.intervals import wilson
from imagen_diffusers.finetuning.flags import at_least_one, run_script
from imagen_diffusers.images import labelled_grid

from .compositions import BACKGROUNDS, compose, layer, open_thing, paint, place
from .judge import Judge, load, usual_folder
from .things import Thing, image_path, read_things

MODEL, WORD = "imagen-emoji", "<thing>"
THINGS = {"peacock": "bird", "fox": "dog", "strawberry": "apple", "violin": "guitar", "rocket": "airplane"}  # and where learning begins
PROMPTS = ("a 3d emoji of a {} on a light blue background", "a 3d emoji of a {} on a black background")


def write_images(thing: Thing, folder: Path, images: Path, count: int) -> None:
    """`count` compositions of a thing, on as many backgrounds; those of an earlier run beyond them, which would be learned from, go."""
    images.mkdir(parents=True, exist_ok=True)
    for number in range(count, len(BACKGROUNDS)):
        (images / f"{number}.png").unlink(missing_ok=True)
    shown = open_thing(image_path(folder, thing.file))
    for number, background in zip(range(count), BACKGROUNDS, strict=False):
        rng = np.random.default_rng(number)
        over = layer(shown, place(shown, rng, may_mirror=thing.mirrors))
        Image.fromarray(compose(over, paint(background, rng)).transpose(1, 2, 0)).save(images / f"{number}.png")


def named(pipe: ImagenCascadePipeline, judge: Judge, word: str, count: int) -> tuple[list[str], list[Image.Image]]:
    """What the judge calls `count` images of each prompt, and the first two of each."""
    names, shown = list[str](), list[Image.Image]()
    for prompt in PROMPTS:
        seeds = [torch.Generator().manual_seed(100 + i) for i in range(count)]
        images = pipe([prompt.format(word)] * count, generator=seeds, stop_at=1, output_type="pt").images
        names += [best[0] for best in judge.best(images)]
        shown += pipe.image_processor.numpy_to_pil(images[:2].permute(0, 2, 3, 1).numpy())
    return names, shown


def teach(asked: argparse.Namespace, thing: Thing) -> Path:
    """The folder of the word that is learned from the thing's images."""
    run = asked.output_dir / thing.name
    write_images(thing, asked.folder, run / "images", asked.images)
    how = {"train_data_dir": run / "images", "placeholder_token": WORD, "initializer_token": THINGS[thing.name]}
    how |= {"num_vectors": asked.num_vectors, "max_train_steps": asked.max_train_steps, "train_batch_size": 8, "learning_rate": 0.05}
    how |= {"output_dir": run / "word", "resume_from_checkpoint": "latest", "pretrained_model_name_or_path": MODEL}
    given = [str(part) for flag, value in how.items() for part in (f"--{flag}", value)]
    textual_inversion.main([*given, "--templates", "a 3d emoji of a {}", "a {}"])
    return run / "word"


def table(rows: dict[str, list[int]], count: int) -> str:
    """How many of `count` images of each word show the thing, thing by thing and in all."""
    lines = ["| thing | begins with | shows the thing: what it begins with | the word | its name |", f"|---|---|{'---:|' * 3}"]
    lines += [f"| {name} | {THINGS[name]} | {' | '.join(map(str, right))} |" for name, right in rows.items()]
    judged = count * len(rows)
    sums = [sum(column) for column in zip(*rows.values(), strict=True)]
    figures = [Figure(right / judged, *wilson(right, judged), judged, share=True) for right in sums]
    return "\n".join([*lines, f"| of {judged} | | {' | '.join(map(str, figures))} |"])


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="of the things")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/word"))
    parser.add_argument("--things", nargs="+", default=list(THINGS), choices=list(THINGS))
    parser.add_argument("--images", type=int, default=8, help="of each thing, to learn from")
    parser.add_argument("--count", type=at_least_one, default=8, help="images of each prompt to judge")
    parser.add_argument("--num_vectors", type=int, default=3)
    parser.add_argument("--max_train_steps", type=int, default=400)
    asked = parser.parse_args(args)
    if not 1 <= asked.images <= len(BACKGROUNDS):
        parser.error(f"--images is {asked.images}; give 1 to {len(BACKGROUNDS)}, each on a background of its own")
    there = {thing.name: thing for thing in read_things(asked.folder)}
    judge, rows, shown = load(usual_folder()), {}, {}
    for name in asked.things:
        learned = teach(asked, there[name])
        pipe = ImagenCascadePipeline.from_pretrained(bundled(MODEL), dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        pipe.load_textual_inversion(learned)
        found = {word: named(pipe, judge, word, asked.count) for word in (THINGS[name], WORD, name)}
        rows[name] = [sum(one == name for one in names) for names, _ in found.values()]
        shown |= {f"{name}: {word} {i}": image for word, (_, images) in found.items() for i, image in enumerate(images)}
    print(table(rows, asked.count * len(PROMPTS)))
    labelled_grid(list(shown.values()), list(shown), columns=12).save(asked.output_dir / "grid.png")


if __name__ == "__main__":
    run_script(main)
