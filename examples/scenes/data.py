"""Rendered scenes as training sets, one for each stage; kept on disk so that they are drawn only once.

    python -m examples.scenes.data base 60000

Seeds below 10 million are for training; evaluation and the oracle have their own ranges.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import trange

from imagen_diffusers.schedulers.noise import log_snr_shift_for
from imagen_diffusers.training.data import Example

from .captions import caption, swapped
from .raytrace import EYE, TARGET, VIEW_WIDTH, render
from .scene import Scene, sample_scene

TRAIN_SEEDS, ORACLE_SEEDS, TEST_SEEDS = 0, 20_000_000, 30_000_000
PHRASINGS = 8  # each picture is met under this many captions
COMPLETE = 0.5  # share of captions that leave nothing open: they teach most, the others how to fill in


@dataclass(frozen=True)
class View:
    """What a stage is shown.

    Windows of `rendered` pixels of a picture of `size` are drawn and kept; of these, windows of `side` pixels are trained
    on, each time another one. A super-resolution stage also gets the same window `scale` times smaller. Noise follows the
    cosine curve with its log-SNR moved by `log_snr_shift`.
    """

    size: int
    rendered: int
    side: int
    scale: int | None
    log_snr_shift: float


# What a picture shows and where is settled at log-SNR below -2: there text lowers the loss of the base twenty times as much
# as above. Its curve is the one of a picture of 256px, so that half of its times are there and not a quarter.
VIEWS = {
    "base": View(64, 64, 64, None, log_snr_shift_for(256)),
    "sr256": View(256, 256, 128, 4, log_snr_shift_for(256)),
    "sr1024": View(1024, 256, 192, 4, log_snr_shift_for(1024)),
}
SAMPLES = 2


class SceneDataset(Dataset):
    """`count` scenes for one stage, rendered to `folder` on first use, `PHRASINGS` captions each."""

    def __init__(self, stage: str, count: int, folder: Path, *, first_seed: int = TRAIN_SEEDS, compile: bool = True):
        self.view, self.count, self.first_seed = VIEWS[stage], count, first_seed
        folder = Path(folder) / f"{stage}-{first_seed}-{count}"
        self.pictures = _rendered(folder / "pictures.npy", self.view, count, first_seed, scale=1, compile=compile)
        self.low_res = (
            None
            if self.view.scale is None
            else _rendered(folder / "low_res.npy", self.view, count, first_seed, scale=self.view.scale, compile=compile)
        )

    def __len__(self) -> int:
        return self.count * PHRASINGS

    def __getitem__(self, index: int) -> Example:
        scene, phrasing = index % self.count, index // self.count
        seed = self.first_seed + scene
        told = sample_scene(seed)
        rng = np.random.default_rng((seed, phrasing))
        told = swapped(told) if rng.random() < 0.5 else told
        example = Example(prompt=caption(told, rng, complete=rng.random() < COMPLETE))
        view, scale = self.view, self.view.scale or 1
        top, left = (int(v) // scale * scale for v in rng.integers(0, view.rendered - view.side + 1, 2))
        example["pixel_values"] = _cut(self.pictures[scene], top, left, view.side)
        if self.low_res is not None:
            example["low_res"] = _cut(self.low_res[scene], top // scale, left // scale, view.side // scale)
        return example


def _cut(picture: np.ndarray, top: int, left: int, side: int) -> torch.Tensor:
    return torch.from_numpy(picture[:, top : top + side, left : left + side].copy())


def _rendered(path: Path, view: View, count: int, first_seed: int, *, scale: int, compile: bool) -> np.ndarray:
    """Pictures (count, 3, rendered, rendered) uint8, `scale` times smaller, from disk or drawn now, on a GPU where there is one."""
    side = view.rendered // scale
    device, batch = ("cuda", 256) if torch.cuda.is_available() else ("cpu", 16)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        out = np.lib.format.open_memmap(part, "w+", np.uint8, (count, 3, side, side))
        for start in trange(0, count, batch, desc=f"rendering {path}", mininterval=5):
            scenes = [sample_scene(first_seed + i) for i in range(start, min(start + batch, count))]
            crops = [window(scene, view, first_seed + start + i) for i, scene in enumerate(scenes)]
            crops = [(top // scale, left // scale) for top, left in crops]
            pictures = render(scenes, view.size // scale, crops=crops, crop_size=side, samples=SAMPLES, device=device, compile=compile)
            out[start : start + len(scenes)] = ((pictures + 1) * 127.5).round().byte().cpu().numpy()
        out.flush()
        part.rename(path)
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


def project(point: tuple[float, float, float], size: int) -> tuple[float, float]:
    """Where a point of the scene is in the picture: (x, y) in pixels."""
    eye, target = np.array(EYE), np.array(TARGET)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.array((1.0, 0.0, 0.0))
    up = np.cross(forward, right)
    ray = np.array(point) - eye
    pixel = VIEW_WIDTH / np.linalg.norm(target - eye) / size * (ray @ forward)
    return size / 2 + ray @ right / pixel, size / 2 - ray @ up / pixel


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=VIEWS)
    parser.add_argument("count", type=int)
    parser.add_argument("--folder", type=Path, default=Path("runs/scenes"))
    args = parser.parse_args()
    SceneDataset(args.stage, args.count, args.folder)
