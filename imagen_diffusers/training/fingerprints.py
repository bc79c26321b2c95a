"""A digest of everything that decides what a caption's embeddings are, so that cached ones are never taken for another encoder's.

And one of weights alone, so that what was learned beside some is not gone on with beside others.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from imagen_diffusers.text.cleaning import cleans
from imagen_diffusers.text.encoders import POOLER
from imagen_diffusers.text.learned_words import KEPT, input_table, learned_words, names_of
from imagen_diffusers.text.prompts import PLAIN_TEXT, TextRules

SAMPLED = 512  # values of each weight that go into a fingerprint
PROBE = "A Cube, naïve café"  # tells case, accents, marks and special tokens
IRRELEVANT = ("transformers_version", "architectures", "dtype", "use_cache")  # of a configuration, to what is computed
SHARED, TIED = "shared.weight", "encoder.embed_tokens.weight"  # one weight; files hold it under the first name


def fingerprint(
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: PreTrainedModel | Sequence[Path],
    rules: TextRules = PLAIN_TEXT,
) -> str:
    """A digest that changes with the vocabulary, the rules of reading, the encoder's shape or any of its weight tensors.

    Of encoders without T5's names of weights it changes with their class, their configuration (heads and activations show in no weight),
    and how a text is spelled in tokens, too; pooled outputs, which are not read, have no part in it. Of each weight tensor `SAMPLED`
    values go into it, evenly spaced and rounded to bfloat16, so that T5-XXL takes a second and an encoder loaded in bfloat16 is the same
    one; in float16, which rounds elsewhere, it is another. Of words that it learned all values do: a sample falls between them.

    Args:
        tokenizer: of the encoder.
        text_encoder: or the safetensors files that a T5 is saved in, which are read one tensor at a time.
        rules: how the checkpoint reads captions; what stands for no text has no part in it, and whether the packages of their cleaning
            are here has.
    """
    weights = stored_weights(text_encoder) if isinstance(text_encoder, Sequence) else _decisive(text_encoder)
    digest, sampled = hashlib.blake2b(digest_size=16), dict(_samples(weights))
    kind = sampled[SHARED][0][1] if SHARED in sampled else [*_shape(text_encoder), tokenizer(PROBE)["input_ids"]]
    vocabulary, spelled = sorted(tokenizer.get_vocab().items()), (rules.text_padding, rules.clean_caption)
    told = [] if spelled == (PLAIN_TEXT.text_padding, PLAIN_TEXT.clean_caption) else [*spelled]
    told += ["cleaned"] if rules.clean_caption and cleans() else []
    digest.update(json.dumps([vocabulary, rules.max_sequence_length, kind, *told], sort_keys=True, default=str).encode())
    digest.update(_joined(sampled))
    digest.update(_vectors_of_words(tokenizer, text_encoder))
    return digest.hexdigest()


def digest_of_weights(weights: Iterable[tuple[str, Tensor]]) -> str:
    """One that tells networks apart, by the names of their weights and as many values of each as go into a fingerprint."""
    return hashlib.blake2b(_joined(dict(_samples(weights))), digest_size=4).hexdigest()


def _shape(encoder: Any) -> tuple[str, dict[str, Any]]:
    def relevant(settings: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in settings.items() if name not in IRRELEVANT}
        return {name: relevant(value) if isinstance(value, dict) else value for name, value in kept.items()}

    return type(encoder).__name__, relevant(encoder.config.to_diff_dict())


def _vectors_of_words(tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel | Sequence[Path]) -> bytes:
    """Those that the encoder learned after its training; empty where it learned none."""
    if isinstance(encoder, Sequence):
        config = encoder[0].parent / "config.json"
        kept = json.loads(config.read_text()).get(KEPT) if config.exists() else None
        words: dict[str, int] = kept["words"] if kept else {}
    else:
        words = learned_words(encoder)
    if not words:
        return b""
    stored = isinstance(encoder, Sequence)
    table = next(weight for name, weight in stored_weights(encoder) if name == SHARED) if stored else input_table(encoder).weight
    names = [name for word, number in sorted(words.items()) for name in names_of(word, number)]
    return _bytes(table[tokenizer.convert_tokens_to_ids(names)])


def holds_t5(files: Sequence[Path]) -> bool:
    """Whether safetensors files hold a T5's weights, by their names."""
    for path in files:
        with safe_open(path, "pt") as file:
            if SHARED in file.keys():  # noqa: SIM118 (no dictionary)
                return True
    return False


def stored_weights(files: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """The encoder's weights by name, one after the other; of a whole T5 its encoder's alone.

    Raises:
        ValueError: for files without a T5 encoder.
    """
    names = set()
    for path in files:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (no dictionary)
                if name == SHARED or name.startswith("encoder."):
                    names.add(name)
                    yield name, file.get_tensor(name)
                if name == SHARED and TIED not in names:
                    yield TIED, file.get_tensor(name)
    if SHARED not in names:
        raise ValueError(f"no T5 encoder in {', '.join(map(str, files)) or 'no files'}; give the files of its weights")


def _decisive(encoder: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    return ((name, weight) for name, weight in encoder.state_dict().items() if not name.startswith(POOLER))


def _samples(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, tuple[tuple[int, ...], bytes]]]:
    for name, weight in weights:
        own = weight.detach()
        flat = (own if type(own) is Tensor else own.dequantize()).flatten()  # quantizers' tensors have no view of their values
        yield name, (tuple(weight.shape), _bytes(flat[:: max(flat.numel() // SAMPLED, 1)]))


def _joined(sampled: dict[str, tuple[tuple[int, ...], bytes]]) -> bytes:
    return b"".join(name.encode() + str(shape).encode() + values for name, (shape, values) in sorted(sampled.items()))


def _bytes(values: Tensor) -> bytes:
    return values.detach().to("cpu", torch.float32).bfloat16().view(torch.int16).numpy().tobytes()
