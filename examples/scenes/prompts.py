"""Prompts of scenes that are never trained on, as an evaluation reads them, and true renders of these scenes.

    python -m examples.scenes.prompts --output_dir runs/scenes/prompts --count 200 --render 256

Each row of metadata.jsonl holds a prompt that names every attribute, its scene, the scene of another row of its kind, if there is any, and
of which kind it is; kinds take turns, so that any first rows hold all of them.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from imagen_diffusers.finetuning.flags import at_least_one, run_script
from imagen_diffusers.images import save_png

from .captions import caption
from .data import TEST_SEEDS
from .raytrace import as_image, render
from .scene import sample_scene, scene_from

# What a prompt asks for: how many objects, whether the first is of a pair of colour and shape never trained on, and the first seed.
KINDS = {"one object": (1, False, 0), "two objects": (2, False, 10_000), "unseen pair": (1, True, 20_000)}
AT_ONCE = 8  # scenes rendered together


def rows(count: int, kinds: tuple[str, ...], first_seed: int = TEST_SEEDS) -> list[dict[str, Any]]:
    """The first so many rows; those of one kind are the same whatever other kinds stand between them."""
    made = []
    for i in range(count):
        kind = kinds[i % len(kinds)]
        objects, held_out, first = KINDS[kind]
        seed = first_seed + first + i // len(kinds)
        scene = sample_scene(seed, num_objects=objects, held_out=held_out, unnamed_share=0.0)
        prompt = caption(scene, np.random.default_rng(seed), complete=True)
        made.append({"prompt": prompt, "kind": kind, "scene": asdict(scene)})
    for kind in kinds:
        own = [row for row in made if row["kind"] == kind]
        for row, other in zip(own, own[1:] + own[:1], strict=True):
            row["other_scene"] = None if other is row else other["scene"]
    return made


def add_renders(made: list[dict[str, Any]], folder: Path, size: int) -> None:
    """Write a true image of each row's scene, and name it in the row, as in a folder of captioned images."""
    for start in range(0, len(made), AT_ONCE):
        few = made[start : start + AT_ONCE]
        images = render([scene_from(row["scene"]) for row in few], size, samples=2)
        for i, (row, image) in enumerate(zip(few, images, strict=True), start=start):
            row["file_name"] = f"{i:06d}.png"
            save_png(as_image(image), folder / row["file_name"], {"prompt": row["prompt"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/scenes/prompts"))
    parser.add_argument("--count", type=at_least_one, default=200, help="rows, of all kinds together")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--first_seed", type=int, default=TEST_SEEDS, help="another one for other scenes")
    parser.add_argument("--render", type=int, default=None, metavar="SIZE", help="also write true images of this size")
    args = parser.parse_args()
    made = rows(args.count, tuple(args.kinds), args.first_seed)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if args.render is not None:
        add_renders(made, args.output_dir, args.render)
    (args.output_dir / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    print(f"{args.output_dir / 'metadata.jsonl'}: {len(made)} prompts" + (", and their true images" if args.render is not None else ""))


if __name__ == "__main__":
    run_script(main)
