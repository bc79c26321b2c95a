"""Rendered scenes as training sets, one for each stage; kept on disk so that they are drawn only once.

    python -m examples.scenes.data base 60000

Seeds below 10 million are for training; the oracle, which also sees the pairs kept from training, and evaluation have ranges of their own.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import trange

from imagen_diffusers.finetuning.flags import at_least_one
from imagen_diffusers.schedulers.noise import log_snr_shift_for
from imagen_diffusers.training.examples import Example, VisitedDataset
from imagen_diffusers.training.folders import in_one_rename

from .camera import project, projected_length
from .captions import caption, swapped
from .device import device_type
from .raytrace import render
from .scene import RADIUS, WORLD, Scene, mirrored, sample_scene, scene_from

TRAIN_SEEDS, ORACLE_SEEDS, TEST_SEEDS = 0, 20_000_000, 30_000_000
COMPLETE = 0.6  # share of captions that leave nothing open: they teach most, the others how to fill in


@dataclass(frozen=True)
class View:
    """What a stage is shown.

    Windows of `rendered` pixels of an image of `size` are drawn and kept; of these, windows of `side` pixels are trained
    on, each time another one. A super-resolution stage also gets the same window `scale` times smaller. Noise follows the
    cosine curve with its log-SNR moved by `log_snr_shift`. Its scenes are those of `first_seed` on, of the pairs of colour and shape that
    `held_out` allows; see `sample_scene`.
    """

    size: int
    rendered: int
    side: int
    scale: int | None
    log_snr_shift: float
    first_seed: int = TRAIN_SEEDS
    held_out: bool | None = False
    object_weight: float = 4.0  # what an error in an object's window counts where one on a bare floor counts 1


# What an image shows and where is settled at log-SNR below -2: there text lowers the loss of the base twenty times as much
# as above. Its curve is the one of an image of 256px, so that half of its times are there and not a quarter.
VIEWS = {
    "base": View(64, 64, 64, None, log_snr_shift_for(256)),
    "sr256": View(256, 256, 128, 4, log_snr_shift_for(256)),
    "sr1024": View(1024, 256, 192, 4, log_snr_shift_for(1024), object_weight=1.0),  # grain on a floor is seen as well
    # No stage: whole images for the network that judges. It would read a pair that it never saw as another one.
    "oracle": View(256, 256, 256, None, 0.0, first_seed=ORACLE_SEEDS, held_out=None),
}
SAMPLES = 2


class TimeIsUp(Exception):  # noqa: N818 (no error: the next call goes on from there)
    """Rendering ended before its last image."""


class SceneDataset(VisitedDataset):
    """`count` scenes for one stage, rendered to `folder` on first use, at once or in slices of time.

    Each pass shows other windows, mirrorings and captions. They depend on `seed`, the renders do not.

    Renders and scenes are kept in a folder named after the world they are of, so that no caption is told of another world's render.

    Raises:
        TimeIsUp: where it is `until`, by `time.monotonic`, and not all are rendered; those that are stay, and the next call goes on.
    """

    def __init__(
        self,
        stage: str,
        count: int,
        folder: Path,
        *,
        first_seed: int | None = None,
        seed: int = 0,
        object_weight: float | None = None,
        compile: bool = True,
        until: float = float("inf"),
    ):
        self.view, self.count, self.seed = VIEWS[stage], count, seed
        self.first_seed = first_seed = self.view.first_seed if first_seed is None else first_seed
        self.object_weight = VIEWS[stage].object_weight if object_weight is None else object_weight
        folder = Path(folder) / f"world-{WORLD}" / f"{stage}-{first_seed}-{count}"
        self.scenes = _sampled(folder / "scenes.jsonl", count, first_seed, self.view.held_out)
        self.images, self.low_res = (
            None if scale is None else _rendered(folder, self.view, self.scenes, first_seed, scale=scale, compile=compile, until=until)
            for scale in (1, self.view.scale)
        )

    def __len__(self) -> int:
        return self.count

    def visit(self, index: int, number: int) -> Example:
        rng = np.random.default_rng((self.first_seed + index, number, self.seed))
        scene, view, scale = self.scenes[index], self.view, self.view.scale or 1
        flip = rng.random() < 0.5
        top, left = (int(v) // scale * scale for v in rng.integers(0, view.rendered - view.side + 1, 2))
        where = window(scene, view, self.first_seed + index)
        weight = object_windows(scene, view.size, (where[0] + top, where[1] + left), view.side) * (self.object_weight - 1) + 1
        image = self.images[index, :, top : top + view.side, left : left + view.side]
        example = Example(pixel_values=_tensor(image, flip), pixel_weight=_tensor(weight / weight.mean(), flip))
        if self.low_res is not None:
            side, top, left = view.side // scale, top // scale, left // scale
            example["low_res"] = _tensor(self.low_res[index, :, top : top + side, left : left + side], flip)
        told = mirrored(scene) if flip else scene
        told = swapped(told) if rng.random() < 0.5 else told
        example["prompt"] = caption(told, rng, complete=bool(rng.random() < COMPLETE))
        return example

    def shown(self, index: int) -> Example:
        """The middle of a render as it is, with one complete caption: for validation."""
        view, scale = self.view, self.view.scale or 1
        corner = (view.rendered - view.side) // 2 // scale * scale
        inside = slice(corner, corner + view.side)
        example = Example(pixel_values=_tensor(self.images[index, :, inside, inside], False), prompt=self.complete_caption(index))
        if self.low_res is not None:
            inside = slice(corner // scale, (corner + view.side) // scale)
            example["low_res"] = _tensor(self.low_res[index, :, inside, inside], False)
        return example

    def complete_caption(self, index: int, scene: Scene | None = None) -> str:
        """Of the scene at `index`, or of another one in the same phrases."""
        return caption(scene or self.scenes[index], np.random.default_rng((self.first_seed + index, 0)), complete=True)

    def shown_windows(self, index: int) -> torch.Tensor:
        """One in squares around the objects of `shown`: (side, side)."""
        top, left = window(self.scenes[index], self.view, self.first_seed + index)
        corner = (self.view.rendered - self.view.side) // 2 // (self.view.scale or 1) * (self.view.scale or 1)
        return torch.from_numpy(object_windows(self.scenes[index], self.view.size, (top + corner, left + corner), self.view.side))


def object_windows(scene: Scene, size: int, corner: tuple[int, int], side: int) -> np.ndarray:
    """One in squares around the objects and zero elsewhere, of the window at `corner` (top, left) of an image of `size`: (side, side)."""
    inside = np.zeros((side, side), np.float32)
    for o in scene.objects:
        center = (o.x, 0.9 * RADIUS[o.size], o.z)
        x, y = (place - at for place, at in zip(project(center, size), corner[::-1], strict=True))
        half = 1.25 * projected_length(RADIUS[o.size], center, size)
        top, left = max(int(y - half), 0), max(int(x - half), 0)
        inside[top : max(int(y + half) + 1, 0), left : max(int(x + half) + 1, 0)] = 1
    return inside


def _tensor(values: np.ndarray, flip: bool) -> torch.Tensor:
    return torch.from_numpy((values[..., ::-1] if flip else values).copy())


def _sampled(path: Path, count: int, first_seed: int, held_out: bool | None) -> list[Scene]:
    """Scenes from disk, or sampled now."""
    if path.exists():
        return [scene_from(json.loads(line)) for line in path.read_text().splitlines()]
    scenes = [sample_scene(first_seed + i, held_out=held_out) for i in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(asdict(scene)) + "\n" for scene in scenes))
    part.rename(path)
    return scenes


def _rendered(
    folder: Path, view: View, scenes: list[Scene], first_seed: int, *, scale: int, compile: bool, until: float = float("inf")
) -> np.ndarray:
    """Renders (count, 3, rendered, rendered) uint8, `scale` times smaller, from disk or rendered now, on a GPU where there is one."""
    path = folder / ("images.npy" if scale == 1 else "low_res.npy")
    side = view.rendered // scale
    device = device_type()
    batch = 16 if device == "cpu" else 256
    if not path.exists():
        part, count = path.with_suffix(".part.npy"), path.with_suffix(".count")
        there = int(count.read_text()) if part.exists() and count.exists() else 0
        out = np.lib.format.open_memmap(part, "r+" if there else "w+", np.uint8, (len(scenes), 3, side, side))
        for start in trange(there, len(scenes), batch, desc=f"rendering {path}", mininterval=5):
            if time.monotonic() >= until:
                raise TimeIsUp(f"time is up: {path} has {start} of {len(scenes)} renders; the next call goes on with them")
            few = scenes[start : start + batch]
            crops = [window(scene, view, first_seed + start + i) for i, scene in enumerate(few)]
            crops = [(top // scale, left // scale) for top, left in crops]
            images = render(few, view.size // scale, crops=crops, crop_size=side, samples=SAMPLES, device=device, compile=compile)
            out[start : start + len(few)] = ((images + 1) * 127.5).round().byte().cpu().numpy()
            out.flush()
            with in_one_rename(count) as written:
                written.write_text(str(start + len(few)))
        part.rename(path)
        count.unlink()
    return np.load(path, mmap_mode="r")


def window(scene: Scene, view: View, seed: int) -> tuple[int, int]:
    """Top and left of a rendered window: mostly around an object, since floors teach little; multiples of the scale."""
    if view.rendered == view.size:
        return 0, 0
    rng = np.random.default_rng((seed, 1))
    o = scene.objects[rng.integers(len(scene.objects))]
    center = project((o.x, 0.5, o.z), view.size) if rng.random() < 0.85 else rng.uniform(0, view.size, 2)
    corner = np.asarray(center)[::-1] - view.rendered / 2 + rng.uniform(-0.35, 0.35, 2) * view.rendered
    top, left = (np.clip(corner, 0, view.size - view.rendered) // (view.scale or 1) * (view.scale or 1)).astype(int)
    return int(top), int(left)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=VIEWS)
    parser.add_argument("count", type=at_least_one)
    parser.add_argument("--folder", type=Path, default=Path("runs/scenes"))
    args = parser.parse_args()
    SceneDataset(args.stage, args.count, args.folder)
