"""What a run tells of itself: means for the tracker, images, and which training images it passed over."""

import logging
import time
import uuid
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .damaged import tells_of_shard
from .folders import in_one_rename

logger = logging.getLogger(__name__)

# Noise levels whose losses are told apart, by log-SNR, noisiest first: layout is decided in the first, detail in the last.
LEVELS = ((-float("inf"), -4.0), (-4.0, 0.0), (0.0, 4.0), (4.0, float("inf")))

WANDB_ID = "wandb_id.txt"
MOST = 100_000  # passed-over images that are counted and listed


@dataclass
class Meter:
    """Means since the last report; `loss` is the last one's until there are others."""

    losses: list[float] = field(default_factory=list)
    log_snrs: list[float] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    loss: float | None = None
    total: float = 0.0
    count: int = 0

    def add(self, losses: Tensor, log_snr: Tensor) -> None:
        self.losses += losses.tolist()
        self.log_snrs += log_snr.tolist()
        finite = losses[losses.isfinite()]
        self.total, self.count = self.total + float(finite.sum()), self.count + len(finite)
        self.loss = self.total / self.count if self.count else self.loss

    def report(self) -> dict[str, float]:
        """The mean loss, the same for each of `LEVELS`, and examples per second; starts anew. Losses that are not finite are left out."""
        losses, log_snrs, now = np.array(self.losses), np.array(self.log_snrs), time.monotonic()
        told = {"examples_per_second": len(losses) / max(now - self.since, 1e-9)}
        finite = np.isfinite(losses)
        if finite.any():
            told["loss"] = losses[finite].mean()
        for low, high in LEVELS:
            inside = losses[finite & (log_snrs >= low) & (log_snrs < high)]
            if len(inside):
                told[f"loss_by_log_snr/{low:g}_to_{high:g}"] = inside.mean()
        self.losses, self.log_snrs, self.since, self.total, self.count = [], [], now, 0.0, 0
        return {key: float(value) for key, value in told.items()}


class Skipped:
    """Training images, and damaged shards, that the processes of a run passed over.

    They are listed once each in `skipped.txt`, which a resumed run goes on with.
    The processes share the file: what one has listed, those that pass over it later do not list again. Of a set with very many, `MOST`
    are listed, and those beyond them neither counted nor listed: a line takes some 250 bytes of memory.
    """

    def __init__(self, folder: Path):
        self.path = folder / "skipped.txt"
        self.seen = self.listed()

    def add(self, told: list[str]) -> None:
        if len(self.seen) >= MOST or self.seen.issuperset(told):
            return
        self.seen |= self.listed()
        new = list(dict.fromkeys(line for line in told if line not in self.seen))[: max(MOST - len(self.seen), 0)]
        if not new:
            return
        if not self.seen:
            logger.warning(
                f"passed over {'a shard' if tells_of_shard(new[0]) else 'an image'}: {new[0]}. All such are listed in {self.path}"
            )
        self.seen.update(new)
        if len(self.seen) >= MOST:
            logger.warning(f"passed over {MOST} images; {self.path} lists these, and further ones are neither counted nor listed")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in new)

    def counts(self) -> tuple[int, int]:
        """How many images any process has listed, and how many shards that are damaged."""
        listed = self.listed()
        shards = sum(map(tells_of_shard, listed))
        return len(listed) - shards, shards

    def listed(self) -> set[str]:
        """What any process has listed, as far as it is counted."""
        if not self.path.exists():
            return set()
        with open(self.path, encoding="utf-8") as file:
            return {line.removesuffix("\n") for line in islice(file, MOST)}


def say_skipped(folder: Path) -> None:
    """How many images and shards of the run in `folder`, and of those of its stages, were passed over, and where they are listed."""
    for path in [folder / "skipped.txt", *sorted(folder.glob("stage-*/skipped.txt"))]:
        images, shards = Skipped(path.parent).counts()
        told = [f"{images} training images"] * bool(images) + [f"{shards} shards, or the rest of them,"] * bool(shards)
        if told:
            print(f"{' and '.join(told)} were passed over; see {path}")


def warn_of_idle_weights(named: list[tuple[str, torch.nn.Parameter]], optimizer: torch.optim.Optimizer) -> None:
    """Say which weights the optimizer has had no gradient for yet: a network that lost part of itself still trains, only worse.

    Nothing is said of optimizers with other moments, and of weights that are divided among processes.
    """
    kept = {id(p): state.get("exp_avg_sq", state.get("momentum_buffer")) for p, state in optimizer.state.items()}
    moments = {key: moment for key, moment in kept.items() if type(moment) is Tensor}
    idle = [name for name, p in named if id(p) not in moments or not moments[id(p)].any()]
    if moments and idle:
        shown = ", ".join(idle[:5]) + (", ..." if len(idle) > 5 else "")
        logger.warning(
            f"{len(idle)} of {len(named)} weights have had no gradient so far ({shown}); they will stay as they are. If they should "
            "learn, look at how they are used, and try without torch_compile"
        )


def start_tracking(accelerator: Accelerator, project: str, stage: str, settings: dict[str, Any], folder: Path, goes_on: bool) -> None:
    """Begin the run of a stage in the trackers the accelerator was made with; it and the settings are told as plain values.

    Args:
        accelerator, project, stage, settings: of the run.
        folder: the run's, in which the id that wandb knows it by is kept.
        goes_on: from a checkpoint; wandb's run then goes on, too.
    """
    plain = {k: v if isinstance(v, int | float | str) else str(v) for k, v in settings.items()}
    given = {"name": stage}
    if accelerator.is_main_process and "wandb" in map(str, accelerator.log_with):
        given |= {"id": _kept_id(folder / WANDB_ID, goes_on), "resume": "allow"}
    accelerator.init_trackers(project, config={"stage": stage, **plain}, init_kwargs={"wandb": given})


def _kept_id(path: Path, goes_on: bool) -> str:
    if not (goes_on and path.exists()):
        with in_one_rename(path) as part:
            part.write_text(uuid.uuid4().hex)
    return path.read_text()


def say_validated(step: int, figures: dict[str, float] | None, images: Path | None) -> None:
    """What a validation found, and where its images are, in a line above the bar."""
    told = [f"{name} {value:.4g}" for name, value in (figures or {}).items()] + ([] if images is None else [str(images)])
    if told:
        tqdm.write(f"step {step}: {', '.join(told)}")


def show_images(accelerator: Accelerator, folder: Path, grid: Image.Image, step: int) -> Path:
    """Save a validation grid, and hand it to the tracker where it takes images; the file that it is in."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06d}.png"
    grid.save(path)
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            pixels = torch.from_numpy(np.array(grid)).permute(2, 0, 1)[None]
            tracker.log_images({"validation": pixels}, step=step)
        elif tracker.name == "wandb":
            tracker.log_images({"validation": [grid]}, step=step)
    return path
