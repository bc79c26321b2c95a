"""Is a generated emoji a copy of a training image: beside each image its nearest ones, with a figure of how near they are.

    python -m examples.emoji.nearest runs/emoji/report/own-settings/images --output runs/emoji/nearest.png

The nearest is looked for by pixels, in all sizes and places that training images have (`gallery.py`), and by what the judge makes of it.
The table says what these distances mean: of compositions that were not trained on, of things that were, the same search finds the thing
itself, and what is left is what a copy has; their nearest image of another thing is as far as one thing is from another.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor

from imagen_diffusers.evaluation.figures import Figure
from imagen_diffusers.evaluation.metrics import entries, figure_of
from imagen_diffusers.evaluation.report import markdown
from imagen_diffusers.evaluation.super_resolution import square
from imagen_diffusers.finetuning.flags import at_least_one, run_script
from imagen_diffusers.images import labelled_grid, read_image

from .compositions import BACKGROUNDS, SIZE, Place
from .gallery import SIDE, Gallery, Near, color_behind
from .judge import Judge, load, shrunk, usual_folder
from .things import read_things
from .train_judge import held_out_composition

SHOWN = 256  # pixels of a tile in the grid
NAMED = 26  # letters of a name that fit above it


class Alike(NamedTuple):
    """The rendering that the judge finds most alike: its number, and the cosine of both images' features."""

    number: int
    cosine: float


def gallery_features(gallery: Gallery, judge: Judge) -> Tensor:
    """What the judge makes of every rendering, in the middle of a gray image: (N, features), each of length 1."""
    gray = np.array(BACKGROUNDS["gray"])
    found = []
    for number in range(len(gallery.renderings)):
        with torch.no_grad():
            found.append(judge.features(shrunk(gallery.shown(number, middle(gallery, number), gray)[None])))
    return F.normalize(torch.cat(found))


def middle(gallery: Gallery, number: int) -> Place:
    thing = gallery.open(number)
    width, height = (max(round(length * 0.875 * SIZE / max(thing.size)), 1) for length in thing.size)
    return Place((SIZE - width) // 2, (SIZE - height) // 2, width, height, mirrored=False)


@torch.no_grad()
def most_alike(features: Tensor, judge: Judge, images: Tensor) -> list[Alike]:
    """Of each image (B, 3, H, W) in [0, 1], by `gallery_features`."""
    cosines, numbers = (F.normalize(judge.features(shrunk(images))) @ features.T).max(1)
    return [Alike(*pair) for pair in zip(numbers.tolist(), cosines.tolist(), strict=True)]


def figures(near: Sequence[Near], copies: Sequence[Near], alike: Sequence[Alike] = ()) -> dict[str, Figure]:
    """How near images are, and which share of them is as near as nineteen in twenty of the copies."""
    most = float(np.quantile([one.distance for one in copies], 0.95))
    found = {
        "distance of the nearest by pixels, in levels": figure_of(entries([one.distance for one in near])),
        f"share within {most:.1f} levels, as copies are": figure_of(entries([one.distance <= most for one in near])),
    }
    if alike:
        found["cosine of the nearest by the judge"] = figure_of(entries([one.cosine for one in alike]))
    return found


def grid(images: Tensor, near: Sequence[Near], alike: Sequence[Alike], gallery: Gallery) -> Image.Image:
    """Each image, its nearest by pixels as it would stand there, and its nearest by the judge, beside one another."""
    tiles, labels = [], []
    for i, (image, one, other) in enumerate(zip(images, near, alike, strict=True)):
        behind = color_behind(image)
        tiles += [image, gallery.shown(one.number, one.at, behind), gallery.shown(other.number, middle(gallery, other.number), behind)]
        names = [gallery.renderings[found.number].thing.name[:NAMED] for found in (one, other)]
        labels += [f"image {i}", f"{names[0]}: {one.distance:.1f}", f"{names[1]}: {other.cosine:.2f}"]
    shown = [VaeImageProcessor.numpy_to_pil(tile.permute(1, 2, 0)[None].numpy())[0].resize((SHOWN, SHOWN)) for tile in tiles]
    return labelled_grid(shown, labels, columns=6 if len(images) > 1 else 3)


def read_images(folder: Path, count: int) -> Tensor:
    """The first images of a folder, of 256px where they are that large, and else of 64px: (B, 3, H, W) in [0, 1].

    Raises:
        OSError: for a folder without PNG files.
    """
    paths = sorted(folder.glob("*.png"))[:count]
    if not paths:
        raise OSError(f"{folder} holds no PNG; give a folder of generated images, as `imagen-diffusers evaluate --save-images` writes it")
    size = SIZE if min(read_image(paths[0]).size) >= SIZE else SIDE
    return torch.cat([square(path, size) for path in paths])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="a folder of generated images")
    parser.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where things are")
    parser.add_argument("--judge", type=Path, default=usual_folder())
    parser.add_argument("--output", type=Path, default=Path("runs/emoji/nearest.png"))
    parser.add_argument("--count", type=at_least_one, default=32, help="images, the first of the folder")
    parser.add_argument("--controls", type=at_least_one, default=32, help="compositions that were not trained on")
    args = parser.parse_args(arguments)
    things, judge, images = read_things(args.folder), load(args.judge), read_images(args.images, args.count)
    gallery = Gallery(things, args.folder)
    features = gallery_features(gallery, judge)
    near, alike = gallery.nearest(shrunk(images)), most_alike(features, judge, images)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    grid(images, near, alike, gallery).save(args.output)
    chosen = np.random.default_rng(0).choice(len(things), min(args.controls, len(things)), replace=False)
    true = torch.stack([held_out_composition(things, args.folder, int(i)) for i in chosen])
    copies = gallery.nearest(true)
    columns = [
        ("generated", figures(near, copies, alike)),
        ("trained things, composed anew", figures(copies, copies, most_alike(features, judge, true))),
    ]
    if len({thing.name for thing in things}) > 1:
        others = gallery.nearest(true, [things[i].name for i in chosen])
        columns.append(("their nearest other things", figures(others, copies)))
    print(markdown(columns))


if __name__ == "__main__":
    run_script(main)
