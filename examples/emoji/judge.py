"""A small network that names emoji and their style: it has only ever seen compositions of renderings, and knows nothing of diffusion.

It reads images of 64px, as the base makes them; larger ones are averaged down. `train_judge.py` trains it.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from examples.scenes.oracle import Residual, convolution
from imagen_diffusers.training.folders import in_one_rename

from .things import SOLID

READ_SIZE = 64
WIDTHS = (48, 96, 160, 256)  # channels at each size, the last of them the features
IN_FILE = ("names", "styles", "widths")
BEFORE = {"styles": (SOLID,), "widths": (48, 96, 192, 384)}  # of files that were saved before these could differ
FILE, MEASURED = "judge.safetensors", "measured.md"
CHOSEN = "EMOJI_JUDGE"  # in the environment: a folder
OWN, BUNDLED = Path("runs/emoji/judge"), Path("pipelines/imagen-emoji/judge")


class Judge(nn.Module):
    """Images to a score for each name, and one for each style where there are several.

    Args:
        names, styles: in the order of the scores.
        widths: channels at 32x32, 16x16, 8x8 and 4x4.
    """

    ENDS = ("head", "style_head")  # what Muon leaves to AdamW

    def __init__(self, names: Sequence[str], styles: Sequence[str] = (SOLID,), widths: Sequence[int] = WIDTHS):
        super().__init__()
        self.names, self.styles, self.widths = tuple(names), tuple(styles), tuple(widths)
        finest, finer, coarser, features = self.widths
        self.body = nn.Sequential(
            *(nn.PixelUnshuffle(2), convolution(12, finest, 1), Residual(finest)),
            *(convolution(finest, finer, 2), Residual(finer)),
            *(convolution(finer, coarser, 2), Residual(coarser)),
            convolution(coarser, features, 2),
        )
        self.head = nn.Linear(features, len(self.names))
        self.style_head = nn.Linear(features, len(self.styles)) if len(self.styles) > 1 else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, 3, 64, 64) in [0, 1] to scores (B, names), and (B, styles) where there are several."""
        features = self.features(images)
        return self.head(features), None if self.style_head is None else self.style_head(features)

    def features(self, images: Tensor) -> Tensor:
        """What nearness is taken over: (B, 3, 64, 64) in [0, 1] to (B, features)."""
        maps = self.body(images * 2 - 1)
        return maps.mean((2, 3)) + maps.amax((2, 3))

    @torch.no_grad()
    def best(self, images: Tensor, count: int = 1) -> list[list[str]]:
        """For each image (B, 3, H, W) in [0, 1], H and W at least 64, so many names, likeliest first."""
        scores = torch.cat([self(few)[0] for few in shrunk(images).split(64)])
        return [[self.names[i] for i in row] for row in scores.topk(min(count, len(self.names))).indices.tolist()]

    @torch.no_grad()
    def best_style(self, images: Tensor) -> list[str | None]:
        """For each image, as of `best`, its style; None where the judge knows one style alone."""
        if self.style_head is None:
            return [None] * len(images)
        features = torch.cat([self.features(few) for few in shrunk(images).split(64)])
        return [self.styles[i] for i in self.style_head(features).argmax(1).tolist()]


def shrunk(images: Tensor) -> Tensor:
    """Larger images averaged down to what the judge reads."""
    return images if images.shape[-2:] == (READ_SIZE, READ_SIZE) else F.adaptive_avg_pool2d(images, READ_SIZE)


def usual_folder() -> Path:
    """That which the environment names, of a judge trained here, or else the one of the bundled cascade."""
    if CHOSEN in os.environ:
        return Path(os.environ[CHOSEN])
    return BUNDLED if (BUNDLED / FILE).exists() and not (OWN / FILE).exists() else OWN


def save(judge: Judge, folder: Path) -> None:
    """One file of weights in half precision, with names, styles and widths."""
    halves = {name: value.half() if value.is_floating_point() else value for name, value in judge.state_dict().items()}
    metadata = {part: json.dumps(getattr(judge, part)) for part in IN_FILE}
    with in_one_rename(folder / FILE) as part:
        save_file({name: value.contiguous() for name, value in halves.items()}, part, metadata=metadata)


def load(folder: Path) -> Judge:
    """The judge that `save` wrote.

    Raises:
        OSError: where the folder holds none.
    """
    if not (folder / FILE).exists():
        raise OSError(f"{folder / FILE} is not there; python -m examples.emoji.train_judge --output_dir {folder} trains it")
    with safe_open(folder / FILE, "pt") as file:
        said = BEFORE | {part: json.loads(text) for part, text in file.metadata().items()}
        judge = Judge(*(said[part] for part in IN_FILE))
        judge.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (it is no dictionary)
    return judge.eval()
