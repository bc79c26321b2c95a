"""Teach the bundled cascade to draw in coloured pencil from 40 images, by LoRA, and measure what it learned.

    python -m examples.scenes.style --output_dir runs/style

The images are renders of scenes, redrawn: strokes where it is dark, outlines, paper. `examples/finetune_style.py` does the
teaching. Then, on prompts never trained on, before and after: how many images a classifier calls pencil drawings (it has seen
renders and redrawn renders only), how many show what the prompt says, and whether every bit is as before without the adapter. Drawings
are read by an oracle that has gone on learning, on its own scenes redrawn.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm, trange

from examples import finetune_style
from imagen_diffusers.evaluation.figures import Figure
from imagen_diffusers.finetuning.flags import at_least_one, run_script
from imagen_diffusers.images import labelled_grid
from imagen_diffusers.training.folders import in_one_rename

from . import classifier, oracle
from .captions import caption
from .data import TEST_SEEDS, SceneDataset
from .evaluate import ORACLE, draw, first_of, load_cascade, scenes_and_prompts, score_set, share, table
from .raytrace import as_image, render
from .scene import Scene, sample_scene
from .train import RECIPE

STYLE_SEEDS, CLASSIFIER_SEEDS = 40_000_000, 41_000_000
STROKES = 40  # across the image: six pixels of 256, so that the stage of that size can draw them
DRAWN = 1024  # pixels of the images that are taught
BEFORE, AFTER = "before", "with the adapter"
TEACHING = ("--train_batch_size", 8, "--sr_crop_size", 128, "--mixed_precision", RECIPE["mixed_precision"])
TEACHING += ("--resume_from_checkpoint", "latest", "--checkpoints_total_limit", 1, "--report_to", "none")


def pencil(images: Tensor) -> Tensor:
    """Renders (B, 3, H, W) in [-1, 1] redrawn in coloured pencil: strokes get denser with darkness, edges get a line.

    Smaller ones are drawn at 1024px and resized, as training resizes what it is shown: strokes of another width are another style.
    """
    size = images.shape[-1]
    if size >= DRAWN:
        return stroked(images)
    large = (F.interpolate(few, size=DRAWN, mode="bicubic").clamp(-1, 1) for few in images.split(8))  # memory
    return torch.cat([F.interpolate(stroked(few), size=size, mode="bicubic", antialias=True) for few in large]).clamp(-1, 1)


def stroked(images: Tensor) -> Tensor:
    """The same in the size that they have."""
    shown = (images + 1) / 2
    light = shown.mean(1, keepdim=True)
    size, device = images.shape[-1], images.device
    y, x = torch.meshgrid(torch.arange(size, device=device), torch.arange(size, device=device), indexing="ij")
    stroke = 0.5 + 0.5 * torch.sin(2 * torch.pi * STROKES / size * (x + y + 0.15 * size / STROKES * torch.sin(x * 40 / size)))
    cover = torch.sigmoid(7 * (stroke - 0.75 * light))
    sobel = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]], device=device)
    reach = max(size // 256, 1)  # outlines are as wide at every size
    smooth = F.avg_pool2d(F.pad(light, (reach,) * 4, "replicate"), 2 * reach + 1, 1)
    slopes = F.conv2d(F.pad(smooth, (1,) * 4, "replicate"), torch.stack((sobel, sobel.T))[:, None])
    slope = reach * slopes.square().sum(1, keepdim=True).sqrt()
    # Lines are where it is steeper than around it: a fine texture is steep all over, and would be black.
    outline = (slope - around(slope, size // 24) - 0.12).clamp(0, 0.6)
    paper = torch.tensor([1.0, 0.98, 0.93], device=device)[:, None, None]
    drawn = paper * (1 - cover * (1 - shown) * 1.1) * (1 - outline)
    return drawn.clamp(0, 1) * 2 - 1


def around(values: Tensor, reach: int) -> Tensor:
    """Means of squares of `reach` pixels to each side, (B, 1, H, W) as given."""
    columns = F.avg_pool2d(F.pad(values, (0, 0, reach, reach), "replicate"), (2 * reach + 1, 1), 1)
    return F.avg_pool2d(F.pad(columns, (reach, reach, 0, 0), "replicate"), (1, 2 * reach + 1), 1)


def write_images(folder: Path, count: int) -> None:
    """`count` captioned 1024px drawings, as a folder that `datasets` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in trange(count, desc="drawing with pencil"):
        scene = sample_scene(STYLE_SEEDS + i)
        lines.append({"file_name": f"{i:02d}.png", "text": caption(scene, np.random.default_rng(i))})
        path = folder / f"{i:02d}.png"
        if not path.exists():
            with in_one_rename(path) as part:  # half an image would be kept, and passed over
                as_image(pencil(render([scene], 1024, samples=2))[0]).save(part, "PNG")
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))


def teach(args: argparse.Namespace) -> None:
    """The adapter, by the script that users run."""
    start = time.perf_counter()
    write_images(args.output_dir / "images", args.images)
    flags = ["--train_data_dir", args.output_dir / "images", "--output_dir", args.output_dir, "--max_train_steps", args.max_train_steps]
    flags += ["--stages", *args.stages, "--learning_rate", args.learning_rate]
    finetune_style.main([str(f) for f in (*flags, *TEACHING)])
    print(f"taught in {(time.perf_counter() - start) / 60:.1f} minutes, drawing the images included")


def measure_look(drawn: dict[str, Tensor], count: int) -> dict[str, Figure]:
    """How many images a classifier takes for drawings, true ones first."""
    known = classifier.draw_scenes([sample_scene(CLASSIFIER_SEEDS + i) for i in range(160)])
    judge = classifier.train(known, pencil(known))
    renders = classifier.draw_scenes([sample_scene(TEST_SEEDS + 61_000 + i) for i in range(count)])
    judged = {"true drawings": pencil(renders), "true renders": renders, **drawn}
    return {name: share(judge.count(images), count) for name, images in judged.items()}


def measure_prompts(drawn: dict[str, Tensor], scenes: list[Scene], args: argparse.Namespace) -> dict[str, Figure]:
    """How many images show all their prompt says; drawings are read by an oracle that went on learning, on its own scenes redrawn."""
    of_renders = oracle.load(args.oracle)
    data = SceneDataset("oracle", args.oracle_scenes, args.folder)
    of_drawings = oracle.train(data, args.oracle_steps, 24, oracle=oracle.load(args.oracle), redraw=pencil, learning_rate=1e-3)
    true = classifier.draw_scenes(scenes)
    read = {
        "true renders": (of_renders, true),
        "true drawings": (of_drawings, pencil(true)),
        BEFORE: (of_renders, drawn[BEFORE]),
        AFTER: (of_drawings, drawn[AFTER]),
    }
    right: dict[str, Figure] = {}
    for name, (reader, images) in read.items():
        right |= first_of(score_set(name, reader, images, scenes))
    return right


def read_flags(args: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/style"))
    parser.add_argument("--images", type=at_least_one, default=40)
    parser.add_argument("--count", type=at_least_one, default=100, help="prompts to measure on")
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 3], help="that are taught")
    parser.add_argument("--max_train_steps", type=int, default=300, help="of each of them")
    parser.add_argument("--learning_rate", type=float, default=4e-3)
    parser.add_argument("--oracle", type=Path, default=ORACLE, help="folder of the reader that prompts are scored by, the bundled one")
    parser.add_argument("--oracle_scenes", type=at_least_one, default=4000, help="its first so many, on which it learns to read drawings")
    parser.add_argument("--oracle_steps", type=int, default=400, help="of that learning")
    parser.add_argument("--folder", type=Path, default=Path("runs/scenes"), help="where renders of its scenes are kept")
    parser.add_argument("--grid", type=Path, default=None, help="where to write the image before and after")
    return parser.parse_args(args)


def main() -> None:
    args = read_flags()
    oracle.load(args.oracle)  # where it is not there, that is said before the teaching
    teach(args)

    pipe = load_cascade()
    scenes, prompts = scenes_and_prompts(args.count, 1, TEST_SEEDS + 60_000)
    drawn, shown = {}, {}
    for name in (BEFORE, AFTER):
        if name == AFTER:
            pipe.load_lora_weights(args.output_dir)
        drawn[name] = draw(pipe, prompts, 8, 2)
        shown[name] = [pipe(p, generator=torch.Generator().manual_seed(i)).images[0] for i, p in enumerate(tqdm(prompts[:4]))]
    pipe.unload_lora_weights()
    without = draw(pipe, prompts[:8], 8, 2)
    small = [image.resize((256, 256), Image.Resampling.LANCZOS) for images in shown.values() for image in images]
    labelled_grid(small, [name for name, images in shown.items() for _ in images], columns=4).save(
        args.grid or args.output_dir / "grid.png"
    )

    print(table(measure_look(drawn, args.count), "called drawings"), table(measure_prompts(drawn, scenes, args)), sep="\n")
    print(f"bit-equal without the adapter: {torch.equal(without, drawn[BEFORE][:8])}")


if __name__ == "__main__":
    run_script(main)
