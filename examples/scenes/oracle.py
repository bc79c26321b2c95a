"""A reader of images: which objects are there, with which attributes, and where they stand.

    python -m examples.scenes.oracle --output_dir runs/scenes/oracle

A small convolutional network marks the centre of each object on a 32x32 grid and names its attributes there. It reads
256px images (larger ones are averaged down) and knows nothing of diffusion: it has only ever seen renders.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import trange

from imagen_diffusers.finetuning.flags import at_least_one, run_script
from imagen_diffusers.models.fastest_dtype import fastest_dtype
from imagen_diffusers.training.folders import in_one_rename

from .camera import project
from .data import SceneDataset
from .device import device_type
from .raytrace import HALF_HEIGHT
from .scene import COLORS, FLOOR_COLORS, FLOOR_PATTERNS, MATERIALS, RADIUS, SHAPES, SIZES, TEXTURES, Scene, Seen, mirrored

GRID, READ_SIZE = 32, 256
ATTRIBUTES = {"shape": SHAPES, "color": (*COLORS, None), "material": MATERIALS, "size": SIZES, "texture": TEXTURES}
FLOOR = {"floor_color": FLOOR_COLORS, "floor_pattern": FLOOR_PATTERNS}
WIDTHS = [len(v) for v in ATTRIBUTES.values()]
FEATURES = 160
SOFTEST = 1.7
APART = 7  # cells: a centre is the strongest within 3 to each side


def convolution(wide: int, to: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(wide, to, 3, stride, 1, bias=False), nn.BatchNorm2d(to), nn.ReLU())


class Residual(nn.Module):
    """Two convolutions, added to what they read."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(channels, channels, 1), nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Oracle(nn.Module):
    """256px images to a heat map of centres, attribute scores at every cell, the place, and the floor."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            convolution(3, 24, 2), convolution(24, 48, 2), Residual(48), convolution(48, 112, 2), Residual(112), Residual(112)
        )  # 32x32
        self.wide = nn.Sequential(convolution(112, FEATURES, 2), Residual(FEATURES), Residual(FEATURES))  # 16x16
        self.down = nn.Conv2d(FEATURES, 112, 1)
        self.joint = nn.Sequential(Residual(112), convolution(112, FEATURES, 1))
        self.heads = nn.Conv2d(FEATURES, 1 + 2 + sum(WIDTHS), 1)
        self.floor = nn.Linear(FEATURES, sum(len(v) for v in FLOOR.values()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, 256, 256) in [-1, 1] to maps (B, 3 + attributes, 32, 32), floor scores, and features (B, FEATURES)."""
        fine = self.fine(images)
        wide = self.wide(fine)
        joint = self.joint(fine + F.interpolate(self.down(wide), scale_factor=2.0))
        pooled = wide.mean((2, 3))
        return self.heads(joint), self.floor(pooled), torch.cat((pooled, joint.amax((2, 3))), 1)

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As a call, of images (B, 3, H, W) in [-1, 1], H and W at least 256, few at once.

        Maps and floor scores are means of those of the image and of its mirror image, which misread half as often; features are the
        image's own.
        """
        maps, floors, features = zip(*(self._look_twice(few) for few in _shrink(images).split(16)), strict=True)
        return torch.cat(maps), torch.cat(floors), torch.cat(features)

    def _look_twice(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps, floors, features = self(images)
        other_maps, other_floors, _ = self(images.flip(-1))
        other_maps = other_maps.flip(-1)
        other_maps[:, 1] *= -1  # how far to the right
        return (maps + other_maps) / 2, (floors + other_floors) / 2, features

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What Frechet distances are taken over: (B, 2 FEATURES)."""
        return torch.cat([self(few)[2] for few in _shrink(images).split(16)])

    def read(self, images: Tensor) -> list[tuple[list[Seen], dict[str, str]]]:
        """For each image, as in `look`: its objects, surest first, and its floor."""
        maps, floors, _ = self.look(images)
        return objects_and_floors(maps, floors)


def objects_and_floors(maps: Tensor, floors: Tensor, threshold: float = 0.4) -> list[tuple[list[Seen], dict[str, str]]]:
    """Of each image that an oracle looked at: its objects, surest first, and its floor."""
    read, heat = (
        [],
        maps[:, 0].sigmoid() + 1e-6 * torch.arange(GRID, device=maps.device),
    )  # of two cells that are exactly alike one is a centre
    peaks = (heat == F.max_pool2d(heat[:, None], APART, 1, APART // 2)[:, 0]) & (heat > threshold)
    for i, floor in enumerate(floors):
        cells = peaks[i].nonzero().tolist()
        cells.sort(key=lambda cell, i=i: -heat[i, cell[0], cell[1]].item())
        names = dict(zip(FLOOR, (s.argmax().item() for s in floor.split([len(v) for v in FLOOR.values()])), strict=True))
        read.append(([_seen(maps[i, :, r, c]) for r, c in cells], {k: FLOOR[k][v] for k, v in names.items()}))
    return read


def _shrink(images: Tensor) -> Tensor:
    """Larger images averaged down to what the oracle reads."""
    return images if images.shape[-2:] == (READ_SIZE, READ_SIZE) else F.adaptive_avg_pool2d(images, READ_SIZE)


def _seen(values: Tensor) -> Seen:
    best = [scores.argmax().item() for scores in values[3:].split(WIDTHS)]
    names = {k: options[i] for (k, options), i in zip(ATTRIBUTES.items(), best, strict=True)}
    return Seen(**names, x=values[1].item(), z=values[2].item())


def cell_of(o, size: int = GRID) -> tuple[int, int]:
    """Row and column of an object's centre."""
    x, y = project((o.x, HALF_HEIGHT[o.shape] * RADIUS[o.size], o.z), size)
    return int(np.clip(y, 0, size - 1)), int(np.clip(x, 0, size - 1))


def oracle_loss(oracle: Oracle, images: Tensor, scenes: list[Scene]) -> Tensor:
    maps, floor, _ = oracle(images)
    heat = torch.zeros(len(scenes), GRID, GRID, device=images.device)
    places = [(i, *cell_of(o), o) for i, scene in enumerate(scenes) for o in scene.objects]
    i, row, column = (torch.tensor([p[k] for p in places], device=images.device) for k in range(3))
    heat[i, row, column] = 1
    weight = 1 + 30 * heat  # few cells are centres
    loss = F.binary_cross_entropy_with_logits(maps[:, 0], heat, weight=weight)
    at = maps[i, :, row, column]
    loss = loss + 0.3 * F.smooth_l1_loss(at[:, 1:3], torch.tensor([[p[3].x, p[3].z] for p in places], device=images.device))
    for scores, (name, options) in zip(at[:, 3:].split(WIDTHS, 1), ATTRIBUTES.items(), strict=True):
        loss = loss + F.cross_entropy(scores, torch.tensor([options.index(getattr(p[3], name)) for p in places], device=images.device))
    for scores, (name, options) in zip(floor.split([len(v) for v in FLOOR.values()], 1), FLOOR.items(), strict=True):
        loss = loss + F.cross_entropy(scores, torch.tensor([options.index(getattr(s, name)) for s in scenes], device=images.device))
    return loss


def softened(images: Tensor) -> Tensor:
    """Every second image with less detail than a render has, as super-resolution may leave it: up to `SOFTEST` times smaller, and back.

    So generated images are read for what they show. Fine textures can still be told apart in them.
    """
    made = images.clone()
    for i, share in zip(range(0, len(images), 2), torch.rand(len(images)).tolist(), strict=False):
        side = images.shape[-1]
        small = F.interpolate(images[i : i + 1], size=round(side / (1 + (SOFTEST - 1) * share)), mode="bilinear", antialias=True)
        made[i] = F.interpolate(small, size=side, mode="bicubic").clamp(-1, 1)[0]
    return made


def train(
    data: SceneDataset,
    steps: int,
    batch_size: int,
    *,
    oracle: Oracle | None = None,
    redraw: Callable[[Tensor], Tensor] = lambda images: images,
    learning_rate: float = 3e-3,
    chances: np.ndarray | None = None,
) -> Oracle:
    """On renders and their mirror images, with noise, so that it does not lean on single pixels.

    With `oracle` one goes on learning, with `redraw` it learns to read renders in another look, and `chances` (count,), which sum to 1,
    say how often it is shown each scene.
    """
    device = device_type()
    torch.manual_seed(0)
    oracle = (oracle or Oracle()).train().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(oracle.parameters(), lr=learning_rate, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    rng = np.random.default_rng(0)
    progress = trange(steps, desc="oracle", mininterval=5)
    for step in progress:
        chosen = np.sort(rng.choice(data.count, batch_size, p=chances))
        images = redraw(torch.from_numpy(data.images[chosen]).to(device).float() / 127.5 - 1)
        scenes = [data.scenes[i] for i in chosen]
        if rng.random() < 0.5:
            images, scenes = images.flip(-1), [mirrored(s) for s in scenes]
        images = images + 0.1 * torch.rand(len(images), 1, 1, 1, device=device) * torch.randn_like(images)
        with torch.autocast(device, torch.bfloat16, enabled=fastest_dtype(device) == torch.bfloat16):
            loss = oracle_loss(oracle, images.contiguous(memory_format=torch.channels_last), scenes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            progress.write(f"step {step} loss {loss.item():.3f}")
    return oracle.eval().to("cpu", memory_format=torch.contiguous_format)  # as safetensors asks


def misread(oracle: Oracle, data: SceneDataset) -> np.ndarray:
    """Which scenes an oracle reads something else in than they hold, but for places: (count,) of bools."""

    def looks(objects: Iterable[Seen]) -> Counter:
        return Counter(tuple(getattr(o, name) for name in ATTRIBUTES) for o in objects)

    found = np.zeros(data.count, bool)
    for start in trange(0, data.count, 16, desc="reading renders", mininterval=5):
        images = torch.from_numpy(data.images[start : start + 16]).float() / 127.5 - 1
        for i, (seen, _) in enumerate(oracle.read(images), start):
            found[i] = looks(seen) != looks(data.scenes[i].objects)
    return found


def load(folder: Path) -> Oracle:
    oracle = Oracle()
    oracle.load_state_dict(load_file(folder / "oracle.safetensors"))
    return oracle.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/scenes/oracle"))
    parser.add_argument("--scenes", type=at_least_one, default=14000, help="of its own, with every pair of colour and shape")
    parser.add_argument("--folder", type=Path, default=Path("runs/scenes"))
    parser.add_argument("--max_train_steps", type=int, default=5000)
    parser.add_argument("--train_batch_size", type=at_least_one, default=24)
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--pretrained", type=Path, help="folder of an oracle that goes on learning")
    parser.add_argument("--first_seed", type=int, help="of its scenes: others than those that a pretrained oracle saw")
    parser.add_argument(
        "--mistakes", type=float, default=1.0, help="show what the pretrained oracle misreads so many times as often as the rest"
    )
    parser.add_argument("--soften", action="store_true", help="let every second image have less detail than a render has")
    args = parser.parse_args()
    if args.mistakes != 1 and args.pretrained is None:
        parser.error("--mistakes are those of an oracle that goes on learning: name it by --pretrained, or leave --mistakes out")
    if args.mistakes < 1:
        parser.error(f"--mistakes is {args.mistakes}; what is misread is shown at least as often as the rest, 1 time")
    data, oracle = SceneDataset("oracle", args.scenes, args.folder, first_seed=args.first_seed), args.pretrained and load(args.pretrained)
    given: dict[str, Any] = {"redraw": softened} if args.soften else {}
    if oracle is not None and args.mistakes > 1:
        wrong = misread(oracle, data)
        print(f"{wrong.sum()} of {len(wrong)} scenes are misread")
        given["chances"] = (weights := np.where(wrong, args.mistakes, 1.0)) / weights.sum()
    oracle = train(data, args.max_train_steps, args.train_batch_size, oracle=oracle, learning_rate=args.learning_rate, **given)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in oracle.state_dict().items()}
    with in_one_rename(args.output_dir / "oracle.safetensors") as part:  # by which make.py knows that it is trained
        save_file(halves, part)


if __name__ == "__main__":
    run_script(main)
