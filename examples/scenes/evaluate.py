"""How often the images show what the prompts say, read by the oracle, with confidence intervals.

    python -m examples.scenes.evaluate

Prompts come from scenes never trained on, with every attribute named; seeds are fixed and all settings are the
pipeline's defaults. Controls stand beside the scores: true renders of the same scenes and, where prompts name all, images scored against
another image's prompt. Held-out pairs of colour and shape have their own line.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from imagen_diffusers import ImagenCascadePipeline, ImagenCascadeUpscalePipeline
from imagen_diffusers.evaluation.distances import gaussian_distance
from imagen_diffusers.evaluation.figures import Figure
from imagen_diffusers.evaluation.metrics import entries, figure_of
from imagen_diffusers.evaluation.report import markdown
from imagen_diffusers.evaluation.statistics import Statistics
from imagen_diffusers.finetuning.flags import at_least_one, run_script
from imagen_diffusers.hub.places import find
from imagen_diffusers.models.fastest_dtype import fastest_dtype
from imagen_diffusers.schedulers.noise import resize

from .captions import caption, listing
from .classifier import draw_scenes
from .data import TEST_SEEDS
from .device import device_type
from .oracle import ATTRIBUTES, Oracle, load
from .prompts import KINDS
from .raytrace import render
from .scene import FINE_TEXTURES, Object, Scene, Seen, relation, sample_scene

ORACLE = Path("pipelines/imagen-scenes/oracle")  # the bundled one
OF_KIND = {"one": "one object", "two": "two objects", "unseen": "unseen pair"}  # parts, and the kind of prompt that each measures
ENLARGING = {"distance_256": 2, "distance_1024": 3}
PARTS = (*OF_KIND, "listed", "fine", *ENLARGING)
MARGIN = 0.2  # how far apart along the relation's axis two objects must be read, in scene units


def share(right: int, count: int) -> Figure:
    """`right` of `count`, with its 95 % Wilson interval."""
    return figure_of(entries([i < right for i in range(count)] or [None]))


def table(figures: dict[str, Figure], head: str = "right") -> str:
    """A row for each of them."""
    return f"{markdown([(head, figures)])}\n"


def same(o: Object, seen: Seen, attributes=tuple(ATTRIBUTES)) -> bool:
    return all(getattr(o, a) == getattr(seen, a) for a in attributes)


def all_right(scene: Scene, seen: list[Seen]) -> bool:
    """Exactly the prompt's objects, every attribute of each, and every relation to the first."""
    found = told_apart(scene, seen)
    if not found:
        return False
    first = found[0]
    return all(stands_so(relation(scene.objects[0], o), first, s) for o, s in zip(scene.objects[1:], found[1:], strict=True))


def told_apart(scene: Scene, seen: list[Seen], attributes=tuple(ATTRIBUTES)) -> list[Seen]:
    """What is seen in the order of the scene's objects, where it is exactly these by the attributes; otherwise nothing."""
    found = [s for o in scene.objects for s in [s for s in seen if same(o, s, attributes)][:1]]
    return found if len(seen) == len(scene.objects) == len(found) == len({id(s) for s in found}) else []


def stands_so(word: str | None, first: Seen, second: Seen) -> bool:
    """Whether the first of two objects stands to the second as the word says, clearly."""
    dx, dz = second.x - first.x, second.z - first.z
    return {"left of": dx, "right of": -dx, "in front of": dz, "behind": -dz}[word] > MARGIN  # type: ignore[index]


def fine_right(scene: Scene, seen: list[Seen]) -> list[bool]:
    """For each object with a fine texture: is an object of its colour and shape there, with that texture."""
    return [any(same(o, s, ("shape", "color", "texture")) for s in seen) for o in scene.objects if o.texture in FINE_TEXTURES]


def load_cascade(folder: Path | None = None, dtype: torch.dtype | None = None, device: str = "cpu") -> ImagenCascadePipeline:
    """The bundled pipeline, or another by its folder or name, as it draws fastest, without progress bars."""
    wanted = {"default": dtype or fastest_dtype(device), "text_encoder": torch.float32}
    pipe = ImagenCascadePipeline.from_pretrained(find(str(folder or "imagen-scenes"), ("pipelines",)), dtype=wanted).to(device)
    pipe.set_progress_bar_config(disable=True)
    for n in pipe.stage_numbers:
        pipe.unet_of(n).to(memory_format=torch.channels_last)
    return pipe


def draw(pipe: ImagenCascadePipeline, prompts: list[str], batch: int, stop_at: int, *, first_seed: int = 0, quiet: bool = False) -> Tensor:
    """Images in [-1, 1]; image i has the seed that is i after the first."""
    images = []
    for start in tqdm(range(0, len(prompts), batch), desc=f"{stop_at} stages", mininterval=5, disable=quiet):
        few = prompts[start : start + batch]
        generators = [torch.Generator().manual_seed(first_seed + start + i) for i in range(len(few))]
        images.append(pipe(few, generator=generators, stop_at=stop_at, output_type="pt").images.cpu() * 2 - 1)
    return torch.cat(images)


def scenes_and_prompts(count: int, num_objects: int, first_seed: int, held_out: bool = False) -> tuple[list[Scene], list[str]]:
    scenes = [sample_scene(first_seed + i, num_objects=num_objects, held_out=held_out, unnamed_share=0.0) for i in range(count)]
    return scenes, [caption(s, np.random.default_rng(first_seed + i), complete=True) for i, s in enumerate(scenes)]


def score_set(name: str, oracle: Oracle, images: Tensor, scenes: list[Scene]) -> dict[str, Figure]:
    """Everything right, then attributes by themselves, of every object that was asked for."""
    read = [seen for seen, _ in oracle.read(images)]
    others = scenes[1:] + scenes[:1] if len(scenes) > 1 else [None]
    judged: dict[str, list] = {
        f"every attribute{' and relation' if len(scenes[0].objects) > 1 else ''}": list(map(all_right, scenes, read)),
        "the same, prompts shuffled": [other and all_right(other, seen) for other, seen in zip(others, read, strict=True)],
        "number of objects": [len(scene.objects) == len(seen) for scene, seen in zip(scenes, read, strict=True)],
    }
    for more in ((), ("material",), ("size",), ("texture",)):
        alike = [
            [any(same(o, one, ("shape", "color", *more)) for one in seen) for o in s.objects] for s, seen in zip(scenes, read, strict=True)
        ]
        judged[f"an object's {', '.join(('colour', 'shape', *more))}"] = alike
    return {f"{name}: {what}": figure_of(entries(values)) for what, values in judged.items()}


def first_of(figures: dict[str, Figure]) -> dict[str, Figure]:
    """Of `score_set`, whether everything is right."""
    return dict([next(iter(figures.items()))])


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two sets of features (N, D), as Gaussians; of fewer images than features, too."""
    return gaussian_distance(Statistics.of(a), Statistics.of(b))


def super_resolution_distances(
    pipe: ImagenCascadePipeline, oracle: Oracle, count: int, stage: int, batch: int
) -> tuple[float, float, float]:
    """Frechet distances to true renders of (our enlargement, bicubic's, true renders of other scenes), from true small renders.

    At 1024px features are taken over windows of 256 pixels, four an image, so that detail counts.
    """
    size, small = (256, 64) if stage == 2 else (1024, 256)
    enlarging = ImagenCascadeUpscalePipeline.from_pipe(pipe)
    true, ours, plain, other = [], [], [], []
    scenes, prompts = scenes_and_prompts(count, 2, TEST_SEEDS + 50_000)
    others, _ = scenes_and_prompts(count, 2, TEST_SEEDS + 60_000)
    for start in tqdm(range(0, count, batch), desc=f"super-resolution to {size}px", mininterval=5):
        few = scenes[start : start + batch]
        low, high, more = render(few, small, samples=2), _true(few, size), _true(others[start : start + batch], size)
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(few))]
        image = (low + 1) / 2
        given = {"start_at": stage, "stop_at": stage, "generator": generators, "output_type": "pt"}
        drawn = enlarging(prompts[start : start + batch], image=image, **given).images.cpu() * 2 - 1
        for features, images in ((true, high), (ours, drawn), (plain, resize(low, (size, size))), (other, more)):
            features.append(oracle.features(_windows(images)))
    t, o, p, r = (torch.cat(x) for x in (true, ours, plain, other))
    return frechet(t, o), frechet(t, p), frechet(t, r)


def _true(scenes: list[Scene], size: int) -> Tensor:
    """Renders of 256px, or the middle 512 pixels of 1024px, which alone are compared."""
    return render(scenes, size, samples=2, **({} if size == 256 else {"crops": [(256, 256)] * len(scenes), "crop_size": 512}))


def _windows(images: Tensor) -> Tensor:
    """The middle 512 pixels of 1024px images as windows of 256; 256px ones as they are."""
    if images.shape[-1] == 256:
        return images
    middle = images if images.shape[-1] == 512 else images[..., 256:768, 256:768]
    return F.unfold(middle, 256, stride=256).transpose(1, 2).reshape(-1, 3, 256, 256)


def prompts_right(pipe: ImagenCascadePipeline, oracle: Oracle, kind: str, count: int, batch: int) -> dict[str, Figure]:
    """Of prompts of one of `OF_KIND`, 256px images beside true renders of the same scenes."""
    objects, held_out, first = KINDS[OF_KIND[kind]]
    name = "held-out pair, one object" if held_out else OF_KIND[kind]
    scenes, prompts = scenes_and_prompts(count, objects, TEST_SEEDS + first, held_out)
    true = first_of(score_set(f"true renders, {name}", oracle, draw_scenes(scenes), scenes))
    return true | score_set(name, oracle, draw(pipe, prompts, batch, 2), scenes)


def listed_right(pipe: ImagenCascadePipeline, oracle: Oracle, count: int, batch: int) -> dict[str, Figure]:
    """Of prompts such as "a red cube and a blue sphere", 256px images that show these two objects and no third, after true renders."""
    scenes, _ = scenes_and_prompts(count, 2, TEST_SEEDS + 40_000)
    name, figures = "two objects by colour and shape alone, and no third", {}
    shown = {f"true renders, {name}": draw_scenes(scenes), name: draw(pipe, [listing(scene) for scene in scenes], batch, 2)}
    for what, images in shown.items():
        right = [bool(told_apart(s, seen, ("color", "shape"))) for s, (seen, _) in zip(scenes, oracle.read(images), strict=True)]
        figures[what] = share(sum(right), count)
    return figures


def fine_detail_right(pipe: ImagenCascadePipeline, oracle: Oracle, count: int) -> dict[str, Figure]:
    """Of 1024px images whose prompts name a fine texture, those that show it on the object, after true renders."""
    scenes, prompts = scenes_and_prompts(4 * count, 1, TEST_SEEDS + 30_000)
    chosen = [i for i, s in enumerate(scenes) if s.objects[0].texture in FINE_TEXTURES][:count]
    name, figures = "1024px: fine detail named in the prompt", {}
    true = (render([scenes[i]], 1024, samples=2) for i in chosen)  # one by one: many take gigabytes
    images = (draw(pipe, [prompts[i]], 1, 3, first_seed=n, quiet=True) for n, i in enumerate(chosen))
    for what, shown in ((f"true renders, {name}", true), (name, images)):
        read = (oracle.read(image)[0][0] for image in tqdm(shown, desc=what, total=len(chosen), mininterval=5))
        right = [r for i, seen in zip(chosen, read, strict=True) for r in fine_right(scenes[i], seen)]
        figures[what] = share(sum(right), len(right))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="a pipeline's folder or name; imagen-scenes by default")
    parser.add_argument("--oracle", type=Path, default=ORACLE)
    parser.add_argument("--part", choices=PARTS, action="append", help="this alone, or these, if given more than once")
    parser.add_argument("--count", type=at_least_one, default=200, help="prompts of each kind")
    parser.add_argument("--fine_count", type=at_least_one, default=60, help="1024px images of prompts with a fine texture")
    parser.add_argument(
        "--distance_count", type=at_least_one, default=200, help="images of 256px, or windows of 1024px, of a Frechet distance"
    )
    parser.add_argument(
        "--batch_size", type=at_least_one, default=8, help="images at once, of 256px; at most 4 for distances, and 1 of 1024px"
    )
    args = parser.parse_args()
    pipe = load_cascade(args.model, device=device_type())
    oracle = load(args.oracle)

    for part in args.part or PARTS:
        if part in OF_KIND:
            print(table(prompts_right(pipe, oracle, part, args.count, args.batch_size)), flush=True)
        elif part == "listed":
            print(table(listed_right(pipe, oracle, args.count, args.batch_size)), flush=True)
        elif part == "fine":
            print(table(fine_detail_right(pipe, oracle, args.fine_count)), flush=True)
        else:
            stage = ENLARGING[part]
            count = args.distance_count if stage == 2 else -(-args.distance_count // 4)
            ours, bicubic, floor = super_resolution_distances(pipe, oracle, count, stage, min(args.batch_size, 4))
            told = f"bicubic {bicubic:.3f}, ratio {ours / bicubic:.3f}; true renders of other scenes {floor:.3f}"
            print(f"Frechet distance, stage {stage}: {ours:.3f}, {told}", flush=True)


if __name__ == "__main__":
    run_script(main)
