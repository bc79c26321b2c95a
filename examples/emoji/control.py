"""The control of the language test: a text encoder that has read nothing but captions of emoji.

    python -m examples.emoji.control --folder runs/emoji --output_dir runs/emoji/control-encoder

A BERT as wide and deep as all-MiniLM-L6-v2 learns to guess words that are hidden in captions. Its tokenizer has a token for each word of
them; any other word is unknown to it. `data.py` takes the folder as --encoder.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import trange
from transformers import BertConfig, BertForMaskedLM, BertTokenizer, PreTrainedTokenizerBase

from examples.scenes.device import device_type
from examples.scenes.train_text_encoder import mean_of_known
from imagen_diffusers.finetuning.flags import at_least_one, run_script

from .data import EmojiDataset

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Those of all-MiniLM-L6-v2.
SIZES: dict[str, Any] = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12}
LONGEST = 64  # tokens, as many as the cascade reads
PHRASED = 5000  # captions that surely hold all phrasings
CHOSEN = 0.15  # of the words are to be guessed: most hidden, some unknown, some another word, and the rest as they are
HIDDEN, UNKNOWN, OTHER = 0.7, 0.1, 0.1  # an encoder that never met an unknown word would have noise for it
HELD_OUT = 1  # seed of the captions that it is measured on


def build_tokenizer(dataset: EmojiDataset) -> PreTrainedTokenizerBase:
    """A token for each word that a caption may hold, in small letters and without accents, as all-MiniLM-L6-v2 reads them."""
    split = BertTokenizer(vocab=_numbered(SPECIAL)).backend_tokenizer
    texts = [text for thing in dataset.things for text in (thing.name, *thing.tags, thing.meaning)]
    texts += [dataset.read(i % len(dataset), i // len(dataset)) for i in range(PHRASED)]
    words = {word for text in texts for word, _ in split.pre_tokenizer.pre_tokenize_str(split.normalizer.normalize_str(text))}
    return BertTokenizer(vocab=_numbered((*SPECIAL, *sorted(words))), model_max_length=LONGEST)


def _numbered(words: Iterable[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(words)}


def hidden(ids: Tensor, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Captions (B, L) of a vocabulary of so many tokens as they are shown, and the words to be guessed (B, L), -100 elsewhere."""
    chosen = (ids >= len(SPECIAL)) & (torch.rand(ids.shape, generator=generator) < CHOSEN)
    chance, others = torch.rand(ids.shape, generator=generator), torch.randint(len(SPECIAL), vocabulary, ids.shape, generator=generator)
    shown = torch.where(chosen & (chance < HIDDEN + UNKNOWN + OTHER), others, ids)
    shown = shown.masked_fill(chosen & (chance < HIDDEN + UNKNOWN), SPECIAL.index("[UNK]"))
    shown = shown.masked_fill(chosen & (chance < HIDDEN), SPECIAL.index("[MASK]"))
    return shown, ids.masked_fill(~chosen, -100)


class Reading:
    """Captions of a folder's things, drawn anew for each step, for a model that guesses their hidden words.

    Args:
        dataset: whose seed is that of the captions.
        size: captions at once.
    """

    def __init__(self, dataset: EmojiDataset, tokenizer: PreTrainedTokenizerBase, size: int):
        self.dataset, self.tokenizer, self.size = dataset, tokenizer, size

    def guesses(self, model: BertForMaskedLM, number: int) -> tuple[Tensor, Tensor]:
        """Scores (N, words) for the words to be guessed of the captions of a number, and these words (N,)."""
        generator = torch.Generator().manual_seed(number)
        things = torch.randint(len(self.dataset), (self.size,), generator=generator).tolist()
        captions = [self.dataset.read(thing, number) for thing in things]
        read = self.tokenizer(captions, return_tensors="pt", padding=True, truncation=True)
        shown, words = hidden(read["input_ids"], len(self.tokenizer), generator)
        at = words >= 0
        states = model.bert(shown.to(model.device), attention_mask=read["attention_mask"].to(model.device)).last_hidden_state
        return model.cls(states[at.to(model.device)]), words[at].to(model.device)  # scores are as wide as the vocabulary


def train(model: BertForMaskedLM, reading: Reading, steps: int, learning_rate: float) -> None:
    """The rate rises over a tenth of the steps, and falls to zero over the others."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = max(steps // 10, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min((i + 1) / warm_up, (steps - i) / max(steps - warm_up, 1)))
    model.train()
    progress = trange(steps, desc="captions", mininterval=5)
    for step in progress:
        scores, words = reading.guesses(model, step)
        loss = mean_of_known(scores, words)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            progress.write(f"step {step} loss {loss.item():.3f}")
    model.eval()


@torch.no_grad()
def share_right(model: BertForMaskedLM, reading: Reading, batches: int) -> tuple[float, float]:
    """Of the words to be guessed the share that is guessed right, and the share of the most usual one."""
    found, words = zip(*((scores.argmax(1), words) for scores, words in (reading.guesses(model, i) for i in range(batches))), strict=True)
    found, words = torch.cat(found), torch.cat(words)
    return (found == words).float().mean().item(), (words == words.mode().values).float().mean().item()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where things are")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/emoji/control-encoder"))
    parser.add_argument("--max_train_steps", type=int, default=1300, help="by default 20 minutes of one core")
    parser.add_argument("--train_batch_size", type=at_least_one, default=64)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--count", type=at_least_one, default=2000, help="captions that it has not read, to measure it on")
    args = parser.parse_args(arguments)
    dataset, unread = (EmojiDataset("base", args.folder, seed=seed) for seed in (0, HELD_OUT))
    tokenizer = build_tokenizer(dataset)
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=LONGEST, **SIZES))
    model.to(device_type())  # pyright: ignore[reportArgumentType]
    train(model, Reading(dataset, tokenizer, args.train_batch_size), args.max_train_steps, args.learning_rate)
    right, usual = share_right(model, Reading(unread, tokenizer, args.train_batch_size), -(-args.count // args.train_batch_size))
    model.bert.save_pretrained(args.output_dir)
    tokenizer.save_pretrained(args.output_dir)
    print(f"{args.output_dir}: {len(tokenizer)} words; of hidden ones in captions that were not read {right:.1%} are right, ", end="")
    print(f"and by the most usual word {usual:.1%} would be")


if __name__ == "__main__":
    run_script(main)
