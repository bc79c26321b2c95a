"""Pretrain a small T5 on captions by span corruption, ground its nouns, and probe that relations can be read out of it.

    python -m examples.scenes.train_text_encoder --output_dir pipelines/imagen-scenes

A document is a caption and facts that follow from it: "a red cube left of a blue sphere . the sphere is right of the red
cube . the cube is red". The span that hides the facts hides all of them, so the encoder sees the caption alone, as it will
in the cascade; and the decoder has a single layer, one look at the encoder, so what it must say of "the sphere" has to
stand at that word already. A caption by itself teaches nothing of the kind: its attributes are independent. Only the
encoder is kept. At last it learns what brief captions mean (brief.py).
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from tqdm import trange
from transformers import AutoTokenizer, PreTrainedTokenizerFast, T5Config, T5EncoderModel, T5ForConditionalGeneration

from imagen_diffusers.finetuning.flags import at_least_one, run_script
from imagen_diffusers.models.fastest_dtype import fastest_dtype

from . import brief
from .captions import caption, facts, swapped
from .device import device_type
from .scene import COLORS, MATERIALS, RELATIONS, SHAPES, SIZES, TEXTURES, Scene, relation, sample_scene

SENTINELS = [f"<extra_id_{i}>" for i in range(24)]
MAX_LENGTH = 64
NOISE_DENSITY = 0.1  # of random spans, besides what the facts tell
PROBE_SEEDS = 40_000_000  # scenes from here on are for the probe alone


def build_tokenizer(scenes: int = 5000) -> PreTrainedTokenizerFast:
    """One token a word of so many scenes' captions: with a vocabulary this small, an unknown word is known to be unknown."""
    rng = np.random.default_rng(0)
    words = sorted({w for seed in range(scenes) for w in caption(described(seed), rng).split()} | {",", "."})
    vocabulary = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", *words, *SENTINELS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_LENGTH, additional_special_tokens=SENTINELS, **names)


def described(seed: int) -> Scene:
    """A scene of any pair of colour and shape: what is held out of the images is not held out of the language.

    A T5 that has read the whole Web has met "red cone", too. One that has not mistakes the cone for the shapes that it knows in red.
    """
    scene = sample_scene(seed, held_out=None)
    return swapped(scene) if seed % 2 else scene


def build_model(tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=128,
        d_kv=32,
        num_heads=4,
        d_ff=384,
        num_layers=4,
        num_decoder_layers=1,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=48,
        relative_attention_max_distance=64,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    model = T5ForConditionalGeneration(config)
    # T5's own start, near zero, leaves word order unheard for thousands of steps; heads that differ in where they look
    # tell "A left of B" from "B left of A" at once.
    nn.init.normal_(model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight, std=1.5)
    return model


def load(encoder: nn.Module, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The weights of a saved encoder, the embedding word by word, since vocabularies grow."""
    saved = T5EncoderModel.from_pretrained(folder / "text_encoder", variant="fp16", dtype=torch.float32).encoder.state_dict()
    rows, words = saved.pop("embed_tokens.weight"), AutoTokenizer.from_pretrained(folder / "tokenizer").get_vocab()
    embedding = encoder.embed_tokens.weight
    with torch.no_grad():
        for word, i in tokenizer.get_vocab().items():
            if word in words:
                embedding[i] = rows[words[word]]
    encoder.load_state_dict(saved | {"embed_tokens.weight": embedding})


def build_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW, with the position biases 30 times faster: they must travel several units before a word hears its neighbour."""
    biases = [p for name, p in model.named_parameters() if "relative_attention_bias" in name]
    others = [p for name, p in model.named_parameters() if "relative_attention_bias" not in name]
    groups = [{"params": biases, "lr": 30 * learning_rate, "weight_decay": 0.0}, {"params": others}]
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98))


def document(seed: int, rng: np.random.Generator) -> list[tuple[str, bool]]:
    """A caption and up to four facts it implies, in pieces, each with whether to hide it."""
    scene = described(seed)
    told = caption(scene, rng, complete=bool(rng.random() < 0.6))
    return [(told, False), (" . ".join(facts(scene, rng)[:4]), True)]


def corrupt(pieces: list[tuple[list[int], bool]], rng: np.random.Generator, sentinels: list[int]) -> tuple[list[int], list[int]]:
    """T5's span corruption: a span becomes a sentinel in the source, and the target lists what each one hid.

    Besides the pieces to hide, short spans at random elsewhere.
    """
    source, target, used = [], [], 0
    for tokens, hide in pieces:
        i = 0
        while i < len(tokens):
            length = len(tokens) if hide else int(rng.integers(1, 4))
            if used < len(sentinels) and (hide or rng.random() < NOISE_DENSITY / 2):
                source.append(sentinels[used])
                target += [sentinels[used], *tokens[i : i + length]]
                used, i = used + 1, i + length
            source += tokens[i : i + 1]
            i += 1
    return source, target


def batch(size: int, step: int, tokenizer: PreTrainedTokenizerFast) -> dict[str, Tensor]:
    rng = np.random.default_rng((17, step))
    sentinels, end = tokenizer.convert_tokens_to_ids(SENTINELS), tokenizer.eos_token_id
    pairs = []
    for i in range(size):
        pieces = [(tokenizer(text, add_special_tokens=False)["input_ids"], hide) for text, hide in document(step * size + i, rng)]
        pairs.append([[*side, end] for side in corrupt(pieces, rng, sentinels)])
    source, target = (nn.utils.rnn.pad_sequence([torch.tensor(p[i]) for p in pairs], True, (0, -100)[i]) for i in (0, 1))
    return {"input_ids": source, "attention_mask": (source != 0).long(), "labels": target}


def train(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace) -> T5ForConditionalGeneration:
    device = device_type()
    model.to(device)
    optimizer = build_optimizer(model, args.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * s / args.max_train_steps))
    )
    progress = trange(args.max_train_steps, desc="span corruption", mininterval=5)
    for step in progress:
        inputs = {k: v.to(device) for k, v in batch(args.train_batch_size, step, tokenizer).items()}
        with torch.autocast(device, torch.bfloat16, enabled=fastest_dtype(device) == torch.bfloat16):
            out = model(**inputs)
        loss = out.loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            known = inputs["labels"] >= 0
            accuracy = (out.logits.argmax(-1) == inputs["labels"])[known].float().mean()
            progress.write(f"step {step} loss {loss.item():.3f} token accuracy {accuracy.item():.3f}")
        if step and step % 300 == 0:
            progress.write(f"step {step} {_percent(probe(model.encoder, tokenizer))}")
    return model


OPPOSITE_INDEX = (1, 0, 3, 2)  # of RELATIONS
LOOKS = {"shape": SHAPES, "color": (*COLORS, None), "size": SIZES, "material": MATERIALS, "texture": TEXTURES}
TOLD_AT_NOUNS = {**LOOKS, "relation": RELATIONS}


def nouns(seeds: range, phrasing: int, tokenizer: PreTrainedTokenizerFast) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Complete captions, where their shape nouns are (N,), and what holds at each noun (N, 6), in `TOLD_AT_NOUNS`' order.

    The relation is to the first object; the first object's own is to the second, or -100 where it stands alone.
    """
    texts, answers = [], []
    rng = np.random.default_rng((phrasing, seeds.start))
    for seed in seeds:
        scene = described(seed)
        texts.append(caption(scene, rng, complete=True))
        first, *others = scene.objects
        words = [RELATIONS.index(relation(first, o)) for o in others]
        stands = [words[0] if words else -100, *(OPPOSITE_INDEX[w] for w in words)]
        for o, word in zip(scene.objects, stands, strict=True):
            looks = [options.index(getattr(o, k)) for k, options in LOOKS.items()]
            answers.append([*looks, word])
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    inputs = {k: encoded[k] for k in ("input_ids", "attention_mask")}
    at = torch.isin(encoded["input_ids"], torch.tensor(tokenizer.convert_tokens_to_ids(list(SHAPES))))
    return inputs, at, torch.tensor(answers)


def ground(encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerFast, steps: int, batch_size: int, learning_rate: float) -> None:
    """Teach the encoder to have, at each noun, what the caption says of it.

    Span corruption asks for much else besides, and in a few hundred steps has not bound attributes to objects (the probe
    printed before and after says how far each got); this asks for nothing else.
    """
    device = encoder.get_input_embeddings().weight.device
    heads = nn.Linear(encoder.config.d_model, sum(len(v) for v in TOLD_AT_NOUNS.values())).to(device)
    optimizer = build_optimizer(nn.ModuleList((encoder, heads)), learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / 50, 1 - s / steps))
    progress = trange(steps, desc="grounding", mininterval=5)
    for step in progress:
        inputs, at, answers = nouns(range(step * batch_size, (step + 1) * batch_size), 1, tokenizer)
        hidden = encoder(**{k: v.to(device) for k, v in inputs.items()}).last_hidden_state[at.to(device)]
        scores = heads(hidden).split([len(v) for v in TOLD_AT_NOUNS.values()], dim=-1)
        losses = [mean_of_known(s, answers[:, i].to(device)) for i, s in enumerate(scores)]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            told = " ".join(f"{k} {loss.item():.3f}" for k, loss in zip(TOLD_AT_NOUNS, losses, strict=True))
            progress.write(f"grounding {step}: {told}")


def mean_of_known(scores: Tensor, answers: Tensor) -> Tensor:
    """The mean cross-entropy where there is an answer (N,); zero where there is none, as of relations where every object stands alone."""
    return nn.functional.cross_entropy(scores, answers, reduction="sum") / (answers >= 0).sum().clamp(min=1)


def probe(encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerFast, count: int = 3000) -> dict[str, float]:
    """How well a linear read-out of a noun alone, on captions never trained on, tells what the caption says of it."""
    inputs, at, answers = nouns(range(PROBE_SEEDS, PROBE_SEEDS + count), 2, tokenizer)
    device = encoder.get_input_embeddings().weight.device
    with torch.no_grad():
        x = encoder(**{k: v.to(device) for k, v in inputs.items()}).last_hidden_state[at.to(device)].float()
    x, half, accuracy = (x - x.mean(0)) / (x.std(0) + 1e-6), len(x) // 2, {}
    for (name, options), y in zip(TOLD_AT_NOUNS.items(), answers.to(device).unbind(-1), strict=True):
        linear = nn.Linear(x.shape[1], len(options)).to(device)
        optimizer = torch.optim.Adam(linear.parameters(), lr=1e-2, weight_decay=1e-4)
        for _ in range(200):
            optimizer.zero_grad()
            nn.functional.cross_entropy(linear(x[:half]), y[:half]).backward()
            optimizer.step()
        known = y[half:] >= 0
        accuracy[name] = (linear(x[half:]).argmax(-1) == y[half:])[known].float().mean().item()
    return accuracy


def captions_of(seeds: range, phrasing: int) -> list[str]:
    """One of each scene: brief ones, complete ones, and those that images are trained on, in thirds."""
    rng = np.random.default_rng((phrasing, seeds.start))
    kinds = ({"brief": True}, {"complete": True}, {})
    return [caption(described(seed), rng, **kinds[rng.integers(3)]) for seed in seeds]


def teach_brief(encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerFast, steps: int, batch_size: int, learning_rate: float) -> None:
    """Teach the encoder what brief captions mean."""

    def captions(step: int) -> list[str]:
        return captions_of(range(step * batch_size, (step + 1) * batch_size), 3)

    unseen = captions_of(range(PROBE_SEEDS, PROBE_SEEDS + 500), 4)
    brief.teach(encoder, tokenizer, build_optimizer(encoder, learning_rate), captions, unseen, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="the pipeline folder to write text_encoder/ and tokenizer/ in")
    parser.add_argument("--max_train_steps", type=int, default=300, help="of span corruption")
    parser.add_argument("--train_batch_size", type=at_least_one, default=64)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--grounding_steps", type=int, default=600)
    parser.add_argument("--brief_steps", type=int, default=800, help="of what captions mean that leave much open, or only list objects")
    parser.add_argument("--pretrained", type=Path, help="a pipeline folder whose text encoder is trained on; new words start at random")
    args = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    if args.pretrained is not None:
        load(model.encoder, tokenizer, args.pretrained)
    print("untrained", _percent(probe(model.encoder, tokenizer)), flush=True)
    if args.max_train_steps:
        model = train(model, tokenizer, args)
    print("after span corruption", _percent(probe(model.encoder, tokenizer)), flush=True)
    if args.grounding_steps:
        ground(model.encoder, tokenizer, args.grounding_steps, args.train_batch_size, args.learning_rate / 2)
    print("after grounding", _percent(probe(model.encoder, tokenizer)), flush=True)
    encoder = T5EncoderModel(model.config).to(model.device)
    encoder.load_state_dict(model.state_dict(), strict=False)
    if args.brief_steps:
        teach_brief(encoder, tokenizer, args.brief_steps, args.train_batch_size, args.learning_rate / 4)
    encoder.half().save_pretrained(args.output_dir / "text_encoder", variant="fp16")
    tokenizer.save_pretrained(args.output_dir / "tokenizer")


def _percent(accuracy: dict[str, float]) -> str:
    return "probe: " + ", ".join(f"{k} {v:.1%}" for k, v in accuracy.items())


if __name__ == "__main__":
    run_script(main)
