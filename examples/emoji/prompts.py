"""Prompts for emoji, as an evaluation reads them: by their names, by words that no caption holds, in colours that they do not have,
and in a style that they are not trained in.

    python -m examples.emoji.prompts --folder runs/emoji --count 500 --output runs/emoji/prompts.jsonl

Each row holds a prompt, of which kind it is, the names of all things that it may mean, those of another row of its kind, the style that it
asks for, and the colour, if any. Kinds take turns, so that any first rows hold all of them.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from imagen_diffusers.finetuning.flags import at_least_one, run_script

from .captions import caption
from .colors import HUES, color_shares
from .compositions import BACKGROUNDS, SIZE, compose, layer, open_thing, place
from .synonyms import synonyms, words_of
from .things import FLAGS, FLAT, IMAGES, SOLID, SYMBOLS, Thing, read_things, unseen_in_flat

UNSEEN_STYLE = "unseen style"
KINDS = ("name", "synonym", "scientific name", "another color", UNSEEN_STYLE)
PROMPTED = 4  # first number of the seeds of what is random
COLORED = 0.6  # share of a thing's pixels that have its colour, at least
FOREIGN = 0.05  # share that have one that it is asked for in, at most
NEUTRAL = ("white", "gray")  # backgrounds of prompts that name a thing's colour
ASKED = tuple(name for name in HUES if name != "orange")  # brown has orange's hue


class Asked(NamedTuple):
    """What a prompt asks for: in which words, which things these may mean, in which colours they may be asked for, and in which style."""

    words: str
    things: list[Thing]
    colors: tuple[str, ...] = ()
    style: str = SOLID


def rows(folder: Path, count: int, kinds: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The first so many rows; those of one kind are the same whatever other kinds stand between them.

    Args:
        kinds: by default all that some thing can be asked for by.

    Raises:
        ValueError: for a kind that none of the folder's things can be asked for by.
    """
    things = read_things(folder)
    asked = {kind: _asked(kind, things, folder) for kind in kinds or KINDS}
    if kinds is None:
        kinds = [kind for kind in KINDS if asked[kind]]
    for kind in kinds:
        if not asked[kind]:
            raise ValueError(f'none of the {len(things)} things of {folder} can be asked for by "{kind}"; leave it out of --kinds')
    by_kind = {kind: _rows_of(kind, asked[kind], -(-count // len(kinds))) for kind in kinds}
    return [by_kind[kinds[i % len(kinds)]][i // len(kinds)] for i in range(count)]


def _rows_of(kind: str, there: Sequence[Asked], count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng((PROMPTED, KINDS.index(kind)))
    order = rng.permutation(len(there))
    made = [_row(kind, there[order[i % len(order)]], rng) for i in range(count)]
    for row, other in zip(made, made[1:] + made[:1], strict=True):
        row["other_things"] = None if set(row["things"]) & set(other["things"]) else other["things"]
    return made


def _row(kind: str, asked: Asked, rng: np.random.Generator) -> dict[str, Any]:
    color = str(rng.choice(asked.colors)) if asked.colors else None
    shown = replace(asked.things[0], name=f"{color} {asked.words}" if color else asked.words, tags=())
    prompt = caption(shown, str(rng.choice(NEUTRAL if color else list(BACKGROUNDS))), rng, style=asked.style, complete=True)
    names = [thing.name for thing in asked.things]
    return {"prompt": prompt, "kind": kind, "things": names, "style": asked.style, "color": color}


def _asked(kind: str, things: Sequence[Thing], folder: Path) -> list[Asked]:
    if kind == "name":
        return [Asked(thing.name, [thing]) for thing in things]
    if kind == UNSEEN_STYLE:
        return [Asked(things[number].name, [things[number]], style=FLAT) for number in sorted(unseen_in_flat(things))]
    if kind == "another color":
        colors = [(thing, foreign_colors(thing, folder)) for thing in things]
        return [Asked(thing.name, [thing], foreign) for thing, foreign in colors if foreign]
    return [Asked(word, shown) for word, shown in synonyms(kind, things).items()]


def foreign_colors(thing: Thing, folder: Path) -> tuple[str, ...]:
    """Those that a thing of one colour does not have; none of things of several, and where a colour is in the name or makes the thing."""
    if thing.group in (FLAGS, SYMBOLS) or thing.tones or words_of(thing.name) & {*BACKGROUNDS, *HUES}:
        return ()
    image = open_thing(folder / IMAGES / thing.file)
    gray = np.array(BACKGROUNDS["gray"], np.float32)
    shown = compose(layer(image, place(image, np.random.default_rng(0), may_mirror=False)).reduce(SIZE // 64), gray)
    shares = color_shares(torch.from_numpy(shown).float() / 255)
    return tuple(name for name in ASKED if shares[name] <= FOREIGN) if max(shares.values()) >= COLORED else ()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where things are")
    parser.add_argument("--output", type=Path, default=Path("runs/emoji/prompts.jsonl"))
    parser.add_argument("--count", type=at_least_one, default=500, help="rows, of all kinds together")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="all that the folder has things for by default")
    args = parser.parse_args(arguments)
    made = rows(args.folder, args.count, args.kinds)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text("".join(json.dumps(row) + "\n" for row in made))
    print(f"{args.output}: {len(made)} prompts")


if __name__ == "__main__":
    run_script(main)
