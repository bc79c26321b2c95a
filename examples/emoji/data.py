"""Emoji as training sets, one for each stage; the command fetches what they are made of.

    python -m examples.emoji.data --folder runs/emoji
    python -m examples.emoji.data --folder runs/emoji --emoji emoji --flat flat --names names    # from folders that are there
    python -m examples.emoji.data --folder runs/other --things runs/emoji --encoder my-encoder    # the same things, another encoder

The folder then holds `things.jsonl`, `images`, `tokenizer` and `text_encoder`, and of emoji `large`, the flat style at 1024px, and their
`NOTICE`. One that holds things already, icons of one's own, keeps them. Every visit shows another composition of a thing: another place,
size and background, mirrored or not, in another skin tone or style, under another caption.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from imagen_diffusers.finetuning.flags import run_script
from imagen_diffusers.schedulers.noise import log_snr_shift_for
from imagen_diffusers.text.encoders import load_text_encoder, load_tokenizer
from imagen_diffusers.training.examples import Example, VisitedDataset

from . import packages
from .captions import caption
from .compositions import BACKGROUNDS, LARGEST, SIZE, compose, layer, open_thing, paint, place
from .flat import with_flat
from .meanings import with_meanings
from .names import named_things
from .things import FLAT, IMAGES, LARGE, LINES, ONE_LINE, SOLID, Thing, copy_things, image_path, read_things, unseen_in_flat, write_things

NOTICE = Path(__file__).with_name("NOTICE")  # of what the packages hold
OF_FLAT = "Images in the flat style:"  # how its paragraph on the flat style begins
ENCODERS_LICENSE = Path("text_encoder") / "LICENSE.txt"  # in a folder; with an ending, since diffusers reads those of all files there
APACHE = Path(__file__).parents[2] / "LICENSE"  # this project's, and that of the encoder which is fetched
TRAINED, SHOWN, READ = 0, 1, 5  # first numbers of the seeds of what is random; those between are other files'
TONED = 1 / 3  # of the visits to a thing that has skin tones: there are five times as many of these images as of all such things
COMPLETE = 0.3  # of captions
HELD_OUT = 100  # things, each of them never trained on one of the backgrounds: validation shows it there


@dataclass(frozen=True)
class View:
    """What a stage is shown: compositions `reduced` so many times, of these windows of `side` pixels, and the same `scale` times smaller.

    A composition has as many pixels as what is visible of the thing's image, within `sizes`. Noise follows the cosine curve with its
    log-SNR moved by `log_snr_shift`. Of the visits to a thing that may be trained in the flat style `flattened` show that. An error in the
    thing's box counts `thing_weight` where one on the background counts 1.
    """

    reduced: int
    side: int
    scale: int | None
    log_snr_shift: float
    sizes: tuple[int, int] = (SIZE, SIZE)
    flattened: float = 1 / 3
    thing_weight: float = 4.0

    @property
    def large(self) -> bool:
        """Whether compositions may be larger than the 3D images, so that it is the flat style's images that they are for."""
        return self.sizes[1] > SIZE


VIEWS = {
    "base": View(4, 64, None, log_snr_shift_for(256)),  # as of 256px: half of the times are where text matters; see examples/scenes
    "sr256": View(1, 128, 4, log_snr_shift_for(256)),
    # The 3D images have 256px. They are shown no larger, so that the stage knows their shades; what is sharp at 1024px is flat. A window is
    # often all thing, or all background, so that weighing one against the other would say little.
    "sr1024": View(1, 192, 4, log_snr_shift_for(1024), sizes=(192, LARGEST), flattened=2 / 3, thing_weight=1.0),
}


class EmojiDataset(VisitedDataset):
    """The things of a folder for one stage; what a visit shows depends on `seed`, the thing and the number of the pass alone.

    With `flattened` that share of the visits to a thing that may be trained in the flat style shows it, and not the view's.

    Raises:
        OSError: for what is no folder of things, and where drawings are too small for the 1024px stage.
    """

    def __init__(self, stage: str, folder: Path, *, seed: int = 0, flattened: float | None = None):
        self.view, self.folder, self.seed = VIEWS[stage], folder, seed
        if flattened is not None:
            self.view = replace(self.view, flattened=flattened)
        self.things = read_things(folder)
        self.held_out = held_out(self.things)
        self.unseen_in_flat = unseen_in_flat(self.things)
        if self.view.large:
            _check_large(folder, self.things)

    def __len__(self) -> int:
        return len(self.things)

    def visit(self, index: int, number: int) -> Example:
        rng = np.random.default_rng((TRAINED, index, number, self.seed))
        background = self._background(index, rng)
        top, left = rng.random(2)
        complete, style = self._told(index, rng)
        return self._example(index, background, rng, (top, left), complete=complete, style=style)[0]

    def read(self, index: int, number: int) -> str:
        """A caption such as visits have, of no image."""
        rng = np.random.default_rng((READ, index, number, self.seed))
        background = self._background(index, rng)
        complete, style = self._told(index, rng)
        tone, _ = _rendering(self.things[index], style, rng)
        return caption(self.things[index], background, rng, tone=tone, style=style, complete=complete)

    def _background(self, index: int, rng: np.random.Generator) -> str:
        return str(rng.choice([name for name in BACKGROUNDS if name != self.held_out.get(index)]))

    def _told(self, index: int, rng: np.random.Generator) -> tuple[bool, str]:
        """Whether a visit's caption is complete, and in which style the thing is shown."""
        complete, may_be_flat = bool(rng.random() < COMPLETE), FLAT in self.things[index].styles and index not in self.unseen_in_flat
        return complete, FLAT if may_be_flat and rng.random() < self.view.flattened else SOLID

    def shown(self, number: int, *, named: int | None = None) -> tuple[Example, torch.Tensor]:
        """For validation: a thing on the background on which it is never trained; and where its box is (side, side).

        It is in 3D and in the middle of the window; but for the 1024px stage the window is anywhere, and things that are there in the flat
        style are shown in it. With `named` the caption has the name of the thing shown at that number in place of its own; all else is the
        same.
        """
        held = list(self.held_out)
        index, other = held[number % len(held)], None if named is None else self.things[held[named % len(held)]]
        rng = np.random.default_rng((SHOWN, number))
        style = FLAT if self.view.large and FLAT in self.things[index].styles else SOLID
        top, left = np.random.default_rng((SHOWN, number, 1)).random(2) if self.view.large else (0.5, 0.5)
        example, box = self._example(index, self.held_out[index], rng, (top, left), complete=True, style=style, named=other)
        del example["pixel_weight"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
        return example, torch.from_numpy(box)

    def _example(
        self,
        index: int,
        background: str,
        rng: np.random.Generator,
        where: tuple[float, float],
        *,
        complete: bool,
        style: str,
        named: Thing | None = None,
    ) -> tuple[Example, np.ndarray]:
        """The window's place, from the top and from the left, is in shares of what the composition has beyond the window's side."""
        thing, view = self.things[index], self.view
        tone, file = _rendering(thing, style, rng)
        image = open_thing(image_path(self.folder, file, large=view.large))
        size = min(max(view.sizes[0], *image.size), view.sizes[1])
        at = place(image, rng, may_mirror=thing.mirrors, size=size)
        color, side = paint(background, rng), view.side * view.reduced
        top, left = (int(share * (size - side + 1)) for share in where)
        over = layer(image, at, size).crop((left, top, left + side, top + side))
        box = at.box((top, left), side, view.reduced)
        weight = box * (view.thing_weight - 1) + 1
        example = Example(
            pixel_values=_pixels(over, color, view.reduced),
            pixel_weight=torch.from_numpy(weight / weight.mean()),
            prompt=caption(named or thing, background, rng, tone=tone, style=style, complete=complete),
        )
        if view.scale is not None:
            example["low_res"] = _pixels(over, color, view.scale)
        return example, box


def _check_large(folder: Path, things: Sequence[Thing]) -> None:
    """See that what is there in the flat style is there larger than 3D emoji are.

    Raises:
        OSError: naming the first that is not, or cannot be read.
    """
    for file in (thing.styles[FLAT] for thing in things if FLAT in thing.styles):
        path = image_path(folder, file, large=True)
        with Image.open(path) as image:
            side = max(image.size)
        if side <= SIZE:
            raise OSError(
                f"{path} has {side} pixels, too few for the 1024px stage; put a larger one in the place of {folder / LARGE / file}, or, of "
                f"emoji that were fetched, remove {folder / LINES} and run `python -m examples.emoji.data --folder {folder}` again"
            )


def _rendering(thing: Thing, style: str, rng: np.random.Generator) -> tuple[str | None, str]:
    """The skin tone that is shown, if any, and the file."""
    if style == SOLID and thing.tones and rng.random() < TONED:
        return thing.tones[rng.integers(len(thing.tones))]
    return None, thing.styles.get(style, thing.file)


def held_out(things: list[Thing]) -> dict[int, str]:
    """Numbers of `HELD_OUT` things, evenly among all, and the background on which each is never trained."""
    names = list(BACKGROUNDS)
    chosen = np.linspace(0, len(things) - 1, min(HELD_OUT, len(things))).astype(int)
    return {int(index): names[i % len(names)] for i, index in enumerate(chosen)}


def _pixels(over: Image.Image, color: np.ndarray, reduced: int) -> torch.Tensor:
    """Each pixel is the mean of `reduced` x `reduced`: (3, side, side) uint8."""
    return torch.from_numpy(compose(over.reduce(reduced) if reduced > 1 else over, color).copy())


def notice(*, flat: bool) -> str:
    """What cascades of emoji are made of, with the flat style or without."""
    paragraphs = NOTICE.read_text("utf-8").split("\n\n")
    return "\n\n".join(text for text in paragraphs if flat or not text.startswith(OF_FLAT))


def holds_emoji(folder: Path) -> bool:
    """Whether a folder's notice is that of emoji, with the flat style or without, and not one that its owner wrote."""
    path, title = folder / NOTICE.name, NOTICE.read_text("utf-8").splitlines()[0]  # the rest depends on what the folder holds
    return path.exists() and path.read_text("utf-8").startswith(title)


def fetch_things(folder: Path, emoji: Path | None, flat: Path | None, names: Path | None, *, with_flat_style: bool) -> None:
    """Emoji as things into a folder, of the packages in these folders, and of those that are fetched in place of what is not given."""
    fetched = folder / "packages"
    emoji = emoji or packages.fetch_from_npm(packages.IMAGES, fetched / "emoji")
    names = names or packages.fetch_from_npm(packages.NAMES, fetched / "names")
    things = with_meanings(named_things(emoji, names))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NOTICE.name).write_text(notice(flat=with_flat_style), "utf-8")  # first: a folder that has it is one of emoji, if not whole
    if with_flat_style:
        flat = flat or packages.fetch_from_npm(packages.FLAT_IMAGES, fetched / "flat")
        things = with_flat(things, flat, folder)
    write_things(folder, things, emoji / "assets")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where all is kept")
    parser.add_argument("--things", type=Path, help="another such folder, whose things are copied")
    parser.add_argument("--emoji", type=Path, help=f"folder of {packages.IMAGES}; fetched by default")
    parser.add_argument("--flat", type=Path, help=f"folder of {packages.FLAT_IMAGES}; fetched by default")
    parser.add_argument("--without_flat", action="store_true", help="leave out the flat style")
    parser.add_argument("--names", type=Path, help=f"folder of {packages.NAMES}; fetched by default")
    parser.add_argument("--encoder", type=Path, help=f"folder of a text encoder and its tokenizer; that of {packages.ENCODER} by default")
    args = parser.parse_args(arguments)
    of_packages = args.emoji or args.flat or args.names
    if args.things and (of_packages or args.without_flat):
        raise ValueError("--things takes all things as they are there; leave out --emoji, --flat, --names and --without_flat, or --things")
    if args.flat and args.without_flat:
        raise ValueError(f"--without_flat leaves out what --flat {args.flat} holds; leave out one of them")
    if args.things and not (args.things / LINES).exists():
        raise OSError(f"{args.things / LINES} is not there, so there are no things to copy; name a folder that holds it")
    if (args.folder / LINES).exists():
        if of_packages or args.things or args.without_flat:
            ignored = "--things, --emoji, --flat, --names and --without_flat change nothing"
            print(f"{args.folder / LINES} is there already and is kept: {ignored}; remove it to have it made anew")
    elif args.things:
        if (args.things / NOTICE.name).exists():
            args.folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(args.things / NOTICE.name, args.folder / NOTICE.name)
        copy_things(args.things, args.folder)
    elif any((args.folder / IMAGES).glob("*")) and not holds_emoji(args.folder):
        raise OSError(
            f"{args.folder / IMAGES} holds images, and {args.folder / LINES} is not there: write it, a line for each ({ONE_LINE}), or name "
            "another folder to fetch emoji into"
        )
    else:
        fetch_things(args.folder, args.emoji, args.flat, args.names, with_flat_style=not args.without_flat)
    things = read_things(args.folder)
    encoder = args.encoder or packages.fetch_encoder(args.folder / "packages" / "encoder")
    load_text_encoder(encoder, dtype=torch.float16).save_pretrained(args.folder / "text_encoder", variant="fp16")
    if args.encoder is None:
        shutil.copyfile(APACHE, args.folder / ENCODERS_LICENSE)
    else:
        (args.folder / ENCODERS_LICENSE).unlink(missing_ok=True)  # of another encoder before
    load_tokenizer(encoder).save_pretrained(args.folder / "tokenizer")
    toned, flat = sum(len(thing.tones) for thing in things), sum(FLAT in thing.styles for thing in things)
    print(f"{args.folder}: {len(things)} things, {toned} images of them in skin tones, and {flat} in the flat style")


if __name__ == "__main__":
    run_script(main)
