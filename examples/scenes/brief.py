"""What brief captions mean: those that leave sizes, materials or the floor open, and those that only list their objects.

The read-outs at nouns (`train_text_encoder.ground`) are taught on captions that name everything, and of "a red cube behind a blue
sphere" the encoder loses at "sphere" where it stands, and now and then that it is blue. So a brief caption is to mean what the captions
that complete it mean, on average: the encoder is its own teacher, and a completion is another one each time. "And" stands in captions
before a third object alone; objects that are only listed are to stand side by side, in the order of the words: "a red cube and a blue
sphere" means what "a red cube left of a blue sphere" does. Captions that name everything are to mean what they did, so that networks
above the encoder need not be trained again.
"""

import copy
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import trange
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from .captions import ANY_RELATION
from .scene import FLOOR_COLORS, FLOOR_PATTERNS, MATERIALS, SHAPES, SIZES

BETWEEN = re.compile(rf" (?:and )?(?:{ANY_RELATION}) ")
SIDE_BY_SIDE = ("left", "of")
LISTED = 0.4  # of captions of several objects, the share that is taught as lists
KEPT = 4.0  # what an error on captions as they were counts where one on brief ones counts 1


class Lesson(NamedTuple):
    """What is taught of one caption.

    Args:
        brief: what the encoder is given.
        full: what its teacher is given; the same where the caption is to mean what it did.
        stands_for: for each word of `brief` the places of those words of `full` that it is to mean, on average.
    """

    brief: str
    full: str
    stands_for: list[list[int]]


def lesson(told: str, rng: np.random.Generator) -> Lesson:
    """Of a caption, or of what is left of it as a list."""
    words, aside, stands_for = told, told, [[n] for n in range(len(told.split()))]
    if BETWEEN.search(told) and rng.random() < LISTED:
        words, aside, stands_for = listed(told)
    full, places = completed(aside, rng)
    return Lesson(words, full, [[places[n] for n in numbers] for numbers in stands_for])


def listed(told: str) -> tuple[str, str, list[list[int]]]:
    """A caption of several objects with "and" in place of each relation; the same with all others right of the first; and which words of
    the latter each word of the former stands for: its own, or, of "and", all those between two objects.
    """
    first, *others = BETWEEN.split(told)
    words, aside = first.split(), first.split()
    stands_for = [[n] for n in range(len(words))]
    for i, other in enumerate(others):
        link = [*(["and"] if i and other is others[-1] else []), *SIDE_BY_SIDE]
        stands_for.append([*range(len(aside), len(aside) + len(link))])
        aside += link
        stands_for += [[len(aside) + n] for n in range(len(other.split()))]
        words += ["and", *other.split()]
        aside += other.split()
    return " ".join(words), " ".join(aside), stands_for


def completed(told: str, rng: np.random.Generator) -> tuple[str, list[int]]:
    """A caption with a size and a material for each object, and a floor, at random where it names none; and each word's place in it.

    Colours, shapes and textures stay open: without them captions were trained on, and no texture means a plain one.
    """
    words, full, places = told.split(), [], []
    nouns = [n for n, word in enumerate(words) if word in SHAPES or word == "object"]
    articles = [max(n for n in range(noun) if words[n] in ("a", "an")) for noun in nouns]
    named = [{*words[article:noun]} for article, noun in zip(articles, nouns, strict=True)]
    without_size = {article for article, said in zip(articles, named, strict=True) if not said & {*SIZES}}
    without_material = {noun for noun, said in zip(nouns, named, strict=True) if not said & {*MATERIALS}}
    for n, word in enumerate(words):
        if n in without_material:
            full.append(str(rng.choice(MATERIALS)))
        places.append(len(full))
        full.append(word)
        if n in without_size:
            full.append(str(rng.choice(SIZES)))
    if words[-1] != "floor":
        pattern = str(rng.choice(FLOOR_PATTERNS))
        full += ["on", "a", str(rng.choice(FLOOR_COLORS)), *([] if pattern == "plain" else [pattern]), "floor"]
    for n, word in enumerate(full):
        if word in ("a", "an"):
            full[n] = "an" if full[n + 1][0] in "aeiou" else "a"
    return " ".join(full), places


def encode(encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Tensor]:
    """States of each text's own tokens, a word each, and of its end: (tokens, D)."""
    inputs = tokenizer(list(texts), padding=True, return_tensors="pt").to(encoder.device)
    states = encoder(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    return [own[mask.bool()] for own, mask in zip(states, inputs["attention_mask"], strict=True)]


def errors(
    encoder: T5EncoderModel, teacher: T5EncoderModel, tokenizer: PreTrainedTokenizerBase, told: Sequence[str], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mean squared errors on brief captions and on those that name everything, as shares of the variance of the teacher's states.

    The former is never zero, since completions differ; both are zero where there is no such caption.
    """
    lessons = [lesson(text, rng) for text in told]
    with torch.no_grad():
        taught = encode(teacher, tokenizer, [each.full for each in lessons])
        wanted = [torch.stack([own[of].mean(0) for of in (*each.stands_for, [-1])]) for own, each in zip(taught, lessons, strict=True)]
    given = encode(encoder, tokenizer, [each.brief for each in lessons])
    by_word = [(own - goal).square().mean(-1) for own, goal in zip(given, wanted, strict=True)]
    brief = [error for error, each in zip(by_word, lessons, strict=True) if each.brief != each.full]
    kept = [error for error, each in zip(by_word, lessons, strict=True) if each.brief == each.full]
    variance = torch.cat(taught).var(0).mean()
    return tuple(torch.cat(part).mean() / variance if part else variance.new_zeros(()) for part in (brief, kept))


def teach(
    encoder: T5EncoderModel,
    tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer,
    captions: Callable[[int], Sequence[str]],
    unseen: Sequence[str],
    steps: int,
) -> None:
    """Train `encoder` in place, and print how far it got.

    Args:
        optimizer: of its weights; its learning rate rises, then falls to nothing.
        captions: those of a step, brief ones among them.
        unseen: captions to measure on.
    """
    teacher = copy.deepcopy(encoder).eval().requires_grad_(False)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / 50, 1 - s / steps))
    progress = trange(steps, desc="brief captions", mininterval=5)
    for step in progress:
        brief, kept = errors(encoder, teacher, tokenizer, captions(step), np.random.default_rng((5, step)))
        optimizer.zero_grad()
        (brief + KEPT * kept).backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            progress.write(f"step {step}: brief captions {brief.item():.4f}, full ones {kept.item():.5f}")
    with torch.no_grad():
        brief, kept = errors(encoder, teacher, tokenizer, unseen, np.random.default_rng(5))
    print(f"on captions never trained on: error of brief ones {brief:.2%} of the variance, of full ones {kept:.3%}", flush=True)
