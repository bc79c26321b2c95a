"""How well edits do what they are asked, read by the oracle on true renders: recolouring, removing, extending.

    python -m examples.scenes.edits --output runs/scenes/edits

Renders of scenes never trained on are edited under a mask around one object. A grid of the first ones, before and after, goes to
the output folder. Beside each score stands what the base does from the prompt alone. The mask is a box around the object and its
shadow, which would ask for an object. A recoloured one starts from what lies under the mask, for its shape; an object is removed without
guidance, which would put the object that stays in its place as well.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from imagen_diffusers import ImagenCascadeInpaintPipeline
from imagen_diffusers.finetuning.flags import at_least_one, run_script
from imagen_diffusers.images import labelled_grid
from imagen_diffusers.pipelines.outpainting import outpaint

from .captions import caption
from .data import TEST_SEEDS
from .evaluate import ORACLE, draw, load_cascade, same, share, table
from .oracle import Oracle, load
from .raytrace import as_image, render
from .scene import COLORS, HELD_OUT, Scene, hidden, sample_scene

SIZE = 256
RECOLOUR_SEEDS, REMOVE_SEEDS, EXTEND_SEEDS = (TEST_SEEDS + n for n in (60_000, 70_000, 80_000))
SHOWN = 8
OUT_OF_SIGHT = 1000.0
MARGIN = 6  # pixels between what is removed and the edge of its mask


def recoloured(scene: Scene, seed: int) -> Scene:
    """The scene with its first object in another colour, of a pair with its shape that training holds, and in which its texture is seen."""
    first = scene.objects[0]
    others = [c for c in COLORS if c != first.color and (c, first.shape) not in HELD_OUT and not hidden(first.texture, c)]
    return replace(scene, objects=(replace(first, color=str(np.random.default_rng(seed).choice(others))), *scene.objects[1:]))


def without_second(scene: Scene, seed: int) -> Scene:
    """The scene with its first object alone; nothing of it is left to chance."""
    return replace(scene, objects=scene.objects[:1])


def around_last(scenes: list[Scene], images: Tensor) -> Tensor:
    """Boxes around all that the last object changes in each render (N, 1, SIZE, SIZE): itself, its shadow, its reflections."""
    without = rendered([replace(s, objects=(*s.objects[:-1], replace(s.objects[-1], x=OUT_OF_SIGHT))) for s in scenes])
    masks = torch.zeros(len(scenes), 1, SIZE, SIZE, dtype=torch.bool)
    for mask, changed in zip(masks, ((images - without).abs() > 0.02).any(1), strict=True):
        rows, columns = (torch.nonzero(changed.any(axis)) for axis in (1, 0))
        top, left = (max(int(places.min()) - MARGIN, 0) for places in (rows, columns))
        mask[:, top : int(rows.max()) + MARGIN + 1, left : int(columns.max()) + MARGIN + 1] = True
    return masks


def prompts_of(scenes: list[Scene], seed: int) -> list[str]:
    return [caption(scene, np.random.default_rng(seed + i), complete=True) for i, scene in enumerate(scenes)]


def rendered(scenes: list[Scene]) -> Tensor:
    """(N, 3, SIZE, SIZE) in [-1, 1]."""
    return torch.cat([render(scenes[i : i + 8], SIZE, samples=2) for i in range(0, len(scenes), 8)])


def painted(pipe: ImagenCascadeInpaintPipeline, images: Tensor, masks: Tensor, prompts: list[str], batch: int, **call) -> Tensor:
    """Images (N, 3, SIZE, SIZE) in [-1, 1], painted anew under the masks; image i has seed i."""
    parts = []
    for start in tqdm(range(0, len(prompts), batch), desc="painting", mininterval=5):
        few = slice(start, start + batch)
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(prompts[few]))]
        given = {"generator": generators, "stop_at": 2, "output_type": "pt", **call}
        parts.append(pipe(prompts[few], images[few] / 2 + 0.5, masks[few], **given).images * 2 - 1)
    return torch.cat(parts)


def first_is_there(oracle: Oracle, images: Tensor, scenes: list[Scene]) -> int:
    """In how many images an object of the first one's colour and shape is read."""
    read = [seen for seen, _ in oracle.read(images)]
    return sum(any(same(s.objects[0], o, ("shape", "color")) for o in r) for s, r in zip(scenes, read, strict=True))


def count_is_right(oracle: Oracle, images: Tensor, scenes: list[Scene]) -> int:
    return sum(len(seen) == len(scene.objects) for scene, (seen, _) in zip(scenes, oracle.read(images), strict=True))


@dataclass(frozen=True)
class MeasuredEdit:
    """One kind of edit: what it starts from, what it is asked for, and who says whether it came out.

    Args:
        score: what is counted.
        first_seed, objects: of the scenes, and how many objects each has; the last one is painted over.
        change: the scene that the edited image should show, of a scene and a seed.
        judge: how many of the edited images show the scenes they should.
        call: arguments of the pipeline's call.
    """

    name: str
    score: str
    first_seed: int
    objects: int
    change: Callable[[Scene, int], Scene]
    judge: Callable[[Oracle, Tensor, list[Scene]], int]
    call: dict[str, Any] = field(default_factory=dict)


RECOLOURED = "recoloured: new colour and old shape"
REMOVED = "one of two removed: number of objects"
EDITS = (
    MeasuredEdit("recoloured", RECOLOURED, RECOLOUR_SEEDS, 1, recoloured, first_is_there, {"strength": [0.8, 1.0]}),
    MeasuredEdit("removed", REMOVED, REMOVE_SEEDS, 2, without_second, count_is_right, {"guidance_scale": [1.0, 1.0], "seamless": True}),
)


def border_jump(image: Image.Image, left: int, width: int) -> float:
    """How much larger the steps between neighbours are across the borders of what was known than elsewhere."""
    values = np.asarray(image, np.float32)
    steps = np.abs(np.diff(values, axis=1)).mean((0, 2))
    borders = [left - 1, left + width - 1]
    return float(steps[borders].mean() / np.delete(steps, borders).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="a pipeline's folder or name; imagen-scenes by default")
    parser.add_argument("--oracle", type=Path, default=ORACLE)
    parser.add_argument("--count", type=at_least_one, default=64, help="renders recoloured, and as many with one object removed")
    parser.add_argument("--extend_count", type=int, default=8, help="1024px images extended to 2048x1024")
    parser.add_argument("--jump_n_sample", type=int, default=1, help="how often each step of the base is made")
    parser.add_argument("--batch_size", type=at_least_one, default=8)
    parser.add_argument("--output", type=Path, default=Path("runs/scenes/edits"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    base = load_cascade(args.model)
    pipe = ImagenCascadeInpaintPipeline.from_pipe(base)
    pipe.set_progress_bar_config(disable=True)
    oracle = load(args.oracle)

    for edit in EDITS:
        scenes = [sample_scene(edit.first_seed + i, num_objects=edit.objects, unnamed_share=0.0) for i in range(args.count)]
        wanted = [edit.change(scene, edit.first_seed + i) for i, scene in enumerate(scenes)]
        prompts, images = prompts_of(wanted, edit.first_seed), rendered(scenes)
        call = {"jump_n_sample": [args.jump_n_sample, 1], **edit.call}
        edited = painted(pipe, images, around_last(scenes, images), prompts, args.batch_size, **call)
        alone = draw(base, prompts, args.batch_size, 2)
        judged = {edit.score: edited, "the same prompts without an image": alone}
        print(table({name: share(edit.judge(oracle, some, wanted), args.count) for name, some in judged.items()}), flush=True)
        _grid(images, edited, args.output / f"{edit.name}.png")

    jumps = extended(pipe, args.extend_count, args.jump_n_sample, args.output)
    if jumps:
        middle, span = np.mean(jumps), f"{min(jumps):.2f} to {max(jumps):.2f}"
        print(f"extended: steps at the borders over those elsewhere: {middle:.2f} ({span}), of {len(jumps)}")


def extended(pipe: ImagenCascadeInpaintPipeline, count: int, jump_n_sample: int, output: Path) -> list[float]:
    """Border jumps of 1024px renders that are extended to 2048x1024; the images go to `output`."""
    jumps = []
    for i in range(count):
        scene = sample_scene(EXTEND_SEEDS + i, num_objects=1, unnamed_share=0.0)
        image = as_image(render([scene], 1024, samples=2)[0])
        call = {"generator": torch.Generator().manual_seed(i), "jump_n_sample": [jump_n_sample, 1, 1]}
        wide = outpaint(pipe, None, image, 2048, 1024, **call)  # no words: they would ask for the object once more
        wide.resize((1024, 512)).save(output / f"extended-{i}.png")
        jumps.append(border_jump(wide, 512, 1024))
    return jumps


def _grid(before: Tensor, after: Tensor, path: Path) -> None:
    shown = [x for pair in zip(before[:SHOWN], after[:SHOWN], strict=True) for x in pair]
    labelled_grid([*map(as_image, shown)], ["before", "after"] * (len(shown) // 2), columns=4).save(path)


if __name__ == "__main__":
    run_script(main)
