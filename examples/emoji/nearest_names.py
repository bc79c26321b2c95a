"""What a text encoder knows of other words by itself: of how many the thing's name is the nearest of all names. No image is made.

    python -m examples.emoji.nearest_names --folder runs/emoji

Words and names stand in the same caption, and are compared by the cosine of the means of their tokens' embeddings. A cascade can hardly
know more words than its encoder does, so this is what to read its score for synonyms beside, and what to choose an encoder by. Words that
its tokenizer takes for the same are one word to it: the last line of each kind is what no training of a cascade on it can exceed.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.scenes.evaluate import share, table
from examples.scenes.train import text_of
from imagen_diffusers.finetuning.flags import run_script
from imagen_diffusers.text.encoding import encode

from .articles import with_article
from .synonyms import chosen, synonyms
from .things import Thing, read_things

CAPTION = "a 3d emoji of {} on a light blue background"
AT_ONCE, AMONG = 64, 5


def _caption(word: str) -> str:
    return CAPTION.format(with_article(word))


@torch.no_grad()
def directions(words: Sequence[str], **text) -> Tensor:
    """Of length one, of the caption of each word: (words, width)."""
    made = []
    for start in range(0, len(words), AT_ONCE):
        captions = [_caption(word) for word in words[start : start + AT_ONCE]]
        embeds, mask = encode(captions, **text, max_length=64)
        weights = mask[..., None].float()
        made.append(F.normalize((embeds.float() * weights).sum(1) / weights.sum(1), dim=-1))
    return torch.cat(made)


def right_at_most(asked: Mapping[str, Collection[Thing]], tokenizer: Callable) -> int:
    """Of how many words a cascade can show the thing: where several read alike, of those that mean the thing which most of them mean."""
    meant: dict[tuple[int, ...], Counter[str]] = defaultdict(Counter)
    for word, things in asked.items():
        meant[tuple(tokenizer(_caption(word))["input_ids"])].update({thing.name for thing in things})
    return sum(max(counted.values()) for counted in meant.values())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where things, tokenizer and text encoder are")
    args = parser.parse_args(arguments)
    text = text_of(args.folder, f"examples.emoji.data --folder {args.folder}")
    things = read_things(args.folder)
    names = directions([thing.name for thing in things], **text)
    known = {}
    for kind in chosen():
        asked = synonyms(kind, things)
        found = (directions(list(asked), **text) @ names.T).topk(min(AMONG, len(things))).indices.tolist() if asked else []
        for count in (1, AMONG):
            right = sum(any(things[i] in meant for i in few[:count]) for few, meant in zip(found, asked.values(), strict=True))
            known[f"{kind}: among the {count} nearest of {len(things)} names"] = share(right, len(asked))
        known[f"{kind}: right at most, by any cascade on this encoder"] = share(right_at_most(asked, text["tokenizer"]), len(asked))
    print(table(known, "known"))


if __name__ == "__main__":
    run_script(main)
