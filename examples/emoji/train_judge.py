"""Train the judge of emoji; run it again to go on from where it was, in slices of `--time_limit` seconds where that is given.

    python -m examples.emoji.train_judge --folder runs/emoji --output_dir runs/emoji/judge

It is trained on compositions on backgrounds of every colour, as blurred and resampled as generated images are, and then measured on
compositions that it was not trained on: plain ones on the backgrounds that prompts name, and the same ones blurred and resampled, which
`measured.md` in its folder keeps. Of things in two styles it sees both equally often, and tells them apart.
"""

import argparse
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm, trange

from examples.scenes.device import device_type
from imagen_diffusers.evaluation.figures import Figure
from imagen_diffusers.evaluation.metrics import entries, figure_of
from imagen_diffusers.evaluation.report import markdown
from imagen_diffusers.finetuning.flags import at_least_one, run_script
from imagen_diffusers.models.fastest_dtype import fastest_dtype
from imagen_diffusers.training.folders import in_one_rename
from imagen_diffusers.training.muon import MuonWithAdamW
from imagen_diffusers.training.optimizers import split_for_muon
from imagen_diffusers.training.processes import StopFlag

from .compositions import BACKGROUNDS, SIZE, compose, layer, open_thing, paint, place
from .data import TONED
from .judge import FILE, MEASURED, READ_SIZE, Judge, save
from .things import IMAGES, SOLID, Thing, read_things

TRAINED, MEASURED_ON = 2, 3  # first numbers of the seeds of what is random; `data.py` has those before
LEAST = 0.6  # of the side that a thing takes: generated ones may be smaller than any that the cascade is trained on
STATE = "training.pt"


def styles_of(things: Sequence[Thing]) -> tuple[str, ...]:
    """All that these are shown in."""
    return SOLID, *sorted({style for thing in things for style in thing.styles})


def composition(thing: Thing, folder: Path, rng: np.random.Generator, *, trained: bool, style: str = SOLID) -> np.ndarray:
    """A thing in a style that it has, in 3D in any of its skin tones, on a plain background: (3, 64, 64) uint8.

    Half of what is trained on has a background of any colour, so that the judge does not lean on those with names.
    """
    file = thing.styles.get(style, thing.file)
    if style == SOLID and thing.tones and rng.random() < TONED:
        file = str(rng.choice([file for _, file in thing.tones]))
    image = open_thing(folder / IMAGES / file)
    at = place(image, rng, may_mirror=thing.mirrors, **({"least": LEAST} if trained else {}))
    color = rng.uniform(0, 255, 3) if trained and rng.random() < 0.5 else paint(str(rng.choice(list(BACKGROUNDS))), rng)
    return compose(layer(image, at).reduce(SIZE // READ_SIZE), color.astype(np.float32))


def as_generated(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images (B, 3, 64, 64) in [0, 1] with the faults of generated ones, each with its own: blurred, uneven, grainy, off in colour."""
    count, generator = len(images), torch.Generator().manual_seed(int(rng.integers(2**31)))
    side, mode = int(rng.integers(32, READ_SIZE)), str(rng.choice(["bilinear", "bicubic"]))
    small = F.interpolate(images, (side, side), mode=mode, antialias=True)
    blurred = F.interpolate(small, (READ_SIZE, READ_SIZE), mode=mode)
    images = images.lerp(blurred, torch.rand(count, 1, 1, 1, generator=generator))
    uneven = F.interpolate(torch.randn(count, 3, 5, 5, generator=generator), (READ_SIZE, READ_SIZE), mode="bicubic")
    grain = torch.randn(images.shape, generator=generator)
    strength = torch.rand(3, count, 1, 1, 1, generator=generator) * torch.tensor([0.04, 0.04, 0.06]).reshape(3, 1, 1, 1, 1)
    gain = 1 + strength[2] * torch.randn(count, 3, 1, 1, generator=generator)
    return (images * gain + strength[0] * uneven + strength[1] * grain).clamp(0, 1)


def batch(things: Sequence[Thing], folder: Path, number: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """What one step is trained on, which its number alone decides: images in [0, 1], which things they show, and in which style."""
    rng = np.random.default_rng((TRAINED, number))
    chosen = rng.integers(0, len(things), size)
    every = styles_of(things)
    styles = [str(rng.choice([SOLID, *things[i].styles])) if things[i].styles else SOLID for i in chosen]
    shown = [composition(things[i], folder, rng, trained=True, style=style) for i, style in zip(chosen, styles, strict=True)]
    images = as_generated(torch.from_numpy(np.stack(shown)).float() / 255, rng)
    return images, torch.from_numpy(chosen), torch.tensor([every.index(style) for style in styles])


def held_out_composition(things: Sequence[Thing], folder: Path, number: int, style: str = SOLID) -> Tensor:
    """One of those that nothing is trained on, of the thing of that number, as often as there are numbers: (3, 64, 64) in [0, 1]."""
    rng = np.random.default_rng((MEASURED_ON, number))
    return torch.from_numpy(composition(things[number % len(things)], folder, rng, trained=False, style=style)).float() / 255


def accuracy(judge: Judge, things: Sequence[Thing], folder: Path, count: int) -> dict[str, Figure]:
    """The shares of held-out compositions whose first name, or one of the first five, is right, and whose style is."""
    right: dict[str, list[bool]] = {}
    shown = [(number, style) for number in range(count) for style in (SOLID, *things[number % len(things)].styles)]
    for start in trange(0, len(shown), 64, desc="measuring the judge", mininterval=5):
        few = shown[start : start + 64]
        plain = torch.stack([held_out_composition(things, folder, number, style) for number, style in few])
        rngs = [np.random.default_rng((MEASURED_ON, number)) for number, _ in few]
        faulty = torch.cat([as_generated(image[None], rng) for image, rng in zip(plain, rngs, strict=True)])
        for kind, images in (("held-out compositions", plain), ("the same, blurred and resampled", faulty)):
            read = zip(few, judge.best(images, 5), judge.best_style(images), strict=True)
            for (number, style), names, found in read:
                name, of_style = things[number % len(things)].name, "" if style == SOLID else f"{style}: "
                right.setdefault(of_style + kind, []).append(names[0] == name)
                right.setdefault(f"{of_style}{kind}, among five names", []).append(name in names)
                if found is not None:
                    right.setdefault(f"{of_style}{kind}, the style", []).append(found == style)
    return {kind: figure_of(entries(values)) for kind, values in right.items()}


class Batches(Dataset):
    """What the steps are trained on, by their numbers, as `batch` has it."""

    def __init__(self, things: Sequence[Thing], folder: Path, size: int):
        self.things, self.folder, self.size = things, folder, size

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        return batch(self.things, self.folder, number, self.size)


class Training:
    """A judge with its optimizer, which go on from the state in a folder where there is one.

    Args:
        things, folder: what is named, and the folder of its images.
        output_dir: where the state is kept, and the judge put at last.
        steps, size: of the whole training, and images of each step.
        workers: processes that make compositions beside the training; a GPU needs several.
    """

    def __init__(
        self, things: Sequence[Thing], folder: Path, output_dir: Path, steps: int, size: int, learning_rate: float, workers: int = 0
    ):
        self.things, self.output_dir, self.steps, self.size, self.workers = things, output_dir, steps, size, workers
        self.batches = Batches(things, folder, size)
        self.device, self.learning_rate, self.warm_up = device_type(), learning_rate, max(min(100, steps // 10), 1)
        torch.manual_seed(0)
        self.judge = Judge([thing.name for thing in things], styles_of(things)).to(self.device, memory_format=torch.channels_last)
        # In 150 steps of 32 images of 200 things Muon taught the judge 34 %, and AdamW 6 %, of the names of compositions it had not seen.
        self.optimizer = MuonWithAdamW(*split_for_muon(self.judge), lr=learning_rate, adamw_lr=learning_rate, weight_decay=0.02)
        self.step = 0
        if (output_dir / STATE).exists():
            self._load(torch.load(output_dir / STATE, map_location=self.device, weights_only=True))

    def run(self, time_limit: float) -> bool:
        """Train until all steps are done, or time is up or a signal comes; whether all are done."""
        self.judge.train()
        with StopFlag(Accelerator(), time_limit) as stop:
            left = DataLoader(self.batches, batch_size=None, sampler=range(self.step, self.steps), num_workers=self.workers)
            progress = tqdm(left, initial=self.step, total=self.steps, desc="judge", mininterval=5)
            for shown in progress:
                loss, share = self._one_step(*shown)
                if self.step % 100 == 0:
                    progress.write(f"step {self.step} loss {loss:.3f}, right of what was trained on {share:.1%}")
                ended = stop.raised()
                if ended or self.step % 500 == 0 or self.step == self.steps:
                    self._save()
                if ended:
                    break
            stop.leave_if_signalled(f"run the command again to go on from step {self.step}")
        self.judge.eval()
        return self.step == self.steps

    def _one_step(self, *shown: Tensor) -> tuple[float, float]:
        images, chosen, styles = (part.to(self.device) for part in shown)
        warm, cooled = min((self.step + 1) / self.warm_up, 1), 0.5 + 0.5 * math.cos(math.pi * self.step / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * warm * cooled
        with torch.autocast(self.device, torch.bfloat16, enabled=fastest_dtype(self.device) == torch.bfloat16):
            scores, of_styles = self.judge(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(scores.float(), chosen, label_smoothing=0.05)
        if of_styles is not None:
            loss = loss + F.cross_entropy(of_styles.float(), styles)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.item(), (scores.argmax(1) == chosen).float().mean().item()

    def _save(self) -> None:
        state = {"judge": self.judge.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step, "of": self._asked()}
        with in_one_rename(self.output_dir / STATE) as part:
            torch.save(state, part)

    def _load(self, state: dict) -> None:
        if state["of"] != self._asked():
            raise ValueError(
                f"{self.output_dir} holds a training of {state['of']}, and this one is of {self._asked()}; choose another folder"
            )
        self.judge.load_state_dict(state["judge"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def _asked(self) -> dict[str, str | float | list[int]]:
        images = sum(len(thing.files) + len(thing.styles) for thing in self.things)
        named = json.dumps([(thing.name, thing.file) for thing in self.things])  # the order is that of the judge's answers
        return {
            "things": len(self.things),
            "names and files": hashlib.sha256(named.encode()).hexdigest()[:12],
            "images": images,
            "widths": list(self.judge.widths),
            "steps": self.steps,
            "images a step": self.size,
            "learning rate": self.learning_rate,
        }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where things are")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/emoji/judge"))
    parser.add_argument("--max_train_steps", type=int, default=5000)
    parser.add_argument("--train_batch_size", type=at_least_one, default=64)
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--dataloader_num_workers", type=int, default=0, help="processes that make compositions beside the training")
    parser.add_argument("--time_limit", type=float, default=math.inf, help="in seconds; run again for the rest")
    parser.add_argument("--count", type=at_least_one, default=2000, help="compositions that are not trained on, to measure it on")
    args = parser.parse_args(arguments)
    things = read_things(args.folder)
    sizes = (args.max_train_steps, args.train_batch_size, args.learning_rate)
    training = Training(things, args.folder, args.output_dir, *sizes, args.dataloader_num_workers)
    before = training.step
    if not training.run(args.time_limit):
        print(f"time is up at step {training.step} of {training.steps}; run the same command for the rest")
        return
    judge = training.judge.to("cpu", memory_format=torch.contiguous_format)
    if before < training.steps or not (args.output_dir / FILE).exists():
        save(judge, args.output_dir)
    measured = markdown([("right", accuracy(judge, things, args.folder, args.count))])
    (args.output_dir / MEASURED).write_text(measured + "\n", "utf-8")
    print(measured)


if __name__ == "__main__":
    run_script(main)
