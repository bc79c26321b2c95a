"""Teach the bundled cascade one new thing from 12 images of it, by DreamBooth, and measure what it learned and what it kept.

    python -m examples.scenes.subject --output_dir runs/subject

The thing is a gnome: a yellow ball in a purple cone, which no scene of the training set holds. Its name is a word that the text
encoder has met, but which means nothing. `examples/dreambooth.py` does the teaching, once with prior preservation and once without. Then,
on seeds never seen: how often the name draws the gnome, and how often prompts of ordinary things do, by a classifier of renders.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from examples import dreambooth
from imagen_diffusers.finetuning.flags import run_script
from imagen_diffusers.images import labelled_grid

from . import classifier
from .data import TEST_SEEDS
from .evaluate import ORACLE, draw, first_of, load_cascade, scenes_and_prompts, score_set, share, table
from .oracle import load
from .raytrace import as_image, render
from .scene import PAINTS, Scene, sample_scene
from .style import TEACHING

NAME, CLASS = "a <extra_id_7>", "a sphere"
SUBJECT_SEEDS, CLASSIFIER_SEEDS = 42_000_000, 43_000_000


def with_gnome(seed: int) -> Scene:
    """The scene of one object of this seed, with the gnome where the object was."""
    scene = sample_scene(seed, num_objects=1)
    plain = replace(scene.objects[0], size="large", texture="plain", material="rubber")
    parts = (("sphere", "yellow"), ("cone", "purple"))
    return replace(scene, objects=tuple(replace(plain, shape=s, color=c, paint=PAINTS[c]) for s, c in parts))


def write_images(folder: Path, count: int) -> None:
    """`count` 1024px images of the gnome, on different floors."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        if not (folder / f"{i:02d}.png").exists():
            as_image(render([with_gnome(SUBJECT_SEEDS + i)], 1024, samples=2)[0]).save(folder / f"{i:02d}.png")


def read_flags(args: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/subject"))
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--count", type=int, default=40, help="images to measure on")
    parser.add_argument("--max_train_steps", type=int, default=200, help="of each stage")
    parser.add_argument("--oracle", type=Path, default=ORACLE, help="folder of the reader that prompts are scored by, the bundled one")
    return parser.parse_args(args)


def main() -> None:
    args = read_flags()
    reader = load(args.oracle)
    write_images(args.output_dir / "images", args.images)
    plain = ["--instance_data_dir", args.output_dir / "images", "--instance_prompt", NAME, "--max_train_steps", args.max_train_steps]
    prior = ["--with_prior_preservation", "--class_prompt", CLASS, "--class_data_dir", args.output_dir / "class", "--num_class_images", 24]
    runs = {"with prior preservation": prior, "without": []}
    for name, more in runs.items():
        dreambooth.main([str(f) for f in [*plain, *TEACHING, *more, "--output_dir", args.output_dir / name.replace(" ", "-")]])

    pipe = load_cascade()
    ordinary, gnomes = ([f(CLASSIFIER_SEEDS + i) for i in range(160)] for f in (sample_scene, with_gnome))
    judge = classifier.train(*map(classifier.draw_scenes, (ordinary, gnomes)))
    scenes, prompts = scenes_and_prompts(args.count, 1, TEST_SEEDS + 70_000)
    new = [with_gnome(TEST_SEEDS + 71_000 + i) for i in range(args.count)]
    true = {"true renders of gnomes": new, "true renders of other things": scenes}
    called = {name: share(judge.count(classifier.draw_scenes(some)), args.count) for name, some in true.items()}
    right, shown = {}, []
    for name in ("before", *runs):
        if name in runs:
            pipe.load_lora_weights(args.output_dir / name.replace(" ", "-"))
        named, others, class_of = (draw(pipe, p, 8, 2) for p in ([NAME] * args.count, prompts, [CLASS] * args.count))
        pipe.unload_lora_weights()
        for what, images in ((f'"{NAME}"', named), (f'"{CLASS}"', class_of), ("other prompts", others)):
            called[f"{name}: {what}"] = share(judge.count(images), args.count)
        right |= first_of(score_set(f"{name}: other prompts", reader, others, scenes))
        shown += [as_image(p) for p in (*named[:3], *class_of[:3])]
    print(table(called, "called gnomes"), table(right), sep="\n")
    labels = [f"{name}: {what}" for name in ("before", *runs) for what in [NAME] * 3 + [CLASS] * 3]
    labelled_grid(shown, labels, columns=6).save(args.output_dir / "grid.png")


if __name__ == "__main__":
    run_script(main)
