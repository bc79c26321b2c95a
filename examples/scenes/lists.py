"""What captions mean that only list their objects: "a red cube and a blue sphere".

"And" stands in captions before a third object alone, and a base that reads it anywhere else generates a third one, and colours that go
astray. So the text encoder is taught that objects which are only listed stand side by side, in the order of the words: it is its own
teacher, and "a red cube and a blue sphere" is to mean what "a red cube left of a blue sphere" does. All other captions are to mean what
they did, so that networks above it need not be trained again.
"""

import copy
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from tqdm import trange
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from .captions import ANY_RELATION

BETWEEN = re.compile(rf" (?:and )?(?:{ANY_RELATION}) ")
SIDE_BY_SIDE = ("left", "of")
KEPT = 4.0  # what an error on captions as they were counts where one on lists counts 1


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


def encode(encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Tensor]:
    """States of each text's own tokens, a word each, and of its end: (tokens, D)."""
    inputs = tokenizer(list(texts), padding=True, return_tensors="pt").to(encoder.device)
    states = encoder(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    return [own[mask.bool()] for own, mask in zip(states, inputs["attention_mask"], strict=True)]


def errors(
    encoder: T5EncoderModel, teacher: T5EncoderModel, tokenizer: PreTrainedTokenizerBase, told: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Mean squared errors of lists, and of the captions that they are made of, as shares of the variance of the teacher's states."""
    with torch.no_grad():
        as_they_were = torch.cat(encode(teacher, tokenizer, told))
    kept = torch.cat(encode(encoder, tokenizer, told)) - as_they_were
    variance = as_they_were.var(0).mean()
    several = [listed(text) for text in told if BETWEEN.search(text)]
    if not several:  # as in a small batch
        return kept.new_zeros(()), kept.square().mean() / variance
    lists, aside, stands_for = zip(*several, strict=True)
    with torch.no_grad():
        taught = encode(teacher, tokenizer, aside)
        wanted = [own[of].mean(0) for own, words in zip(taught, stands_for, strict=True) for of in (*words, [-1])]
    new = torch.cat(encode(encoder, tokenizer, lists)) - torch.stack(wanted)
    return new.square().mean() / variance, kept.square().mean() / variance


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
        captions: those of a step; one of them at least of several objects.
        unseen: captions to measure on.
    """
    teacher = copy.deepcopy(encoder).eval().requires_grad_(False)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / 50, 1 - s / steps))
    progress = trange(steps, desc="lists", mininterval=5)
    for step in progress:
        of_lists, kept = errors(encoder, teacher, tokenizer, captions(step))
        optimizer.zero_grad()
        (of_lists + KEPT * kept).backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            progress.write(f"step {step}: lists {of_lists.item():.4f}, other captions {kept.item():.5f}")
    with torch.no_grad():
        of_lists, kept = errors(encoder, teacher, tokenizer, unseen)
    print(f"on captions never trained on: error of lists {of_lists:.2%} of the variance, of other captions {kept:.3%}", flush=True)
