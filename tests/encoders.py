"""Small random encoders of each kind, with tokenizers of transformers' own classes over the words of the tiny cascade."""

from collections.abc import Callable

import torch
from tokenizers import processors
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from .conftest import TEXT_DIM, WORDS

Encoder = tuple[PreTrainedTokenizerBase, PreTrainedModel]

T5_SIZES = {"d_model": TEXT_DIM, "d_kv": 8, "num_heads": 4, "d_ff": 32, "num_layers": 2}
SIZES = {"hidden_size": TEXT_DIM, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def make_t5() -> Encoder:
    tokenizer = _unigram()
    return tokenizer, T5EncoderModel(T5Config(vocab_size=len(tokenizer), **T5_SIZES))


def make_umt5() -> Encoder:
    tokenizer = _unigram()
    return tokenizer, UMT5EncoderModel(UMT5Config(vocab_size=len(tokenizer), **T5_SIZES))


def make_bert() -> Encoder:
    vocabulary = _numbered(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s"])
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=16)
    return tokenizer, BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=16, **SIZES))


def make_clip() -> Encoder:
    vocabulary, merges = _pairs(["<|startoftext|>", "<|endoftext|>"], [[*word[:-1], f"{word[-1]}</w>"] for word in WORDS])
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=10)
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return tokenizer, CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=10, **SIZES, **ends))


def make_gemma() -> Encoder:
    """A decoder: no token knows what comes after it, nothing ends a prompt, and its tokenizer pads on the left."""
    spelled = [[*word] for word in WORDS] + [[*f"{word}▁"] for word in WORDS]
    vocabulary, merges = _pairs(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], spelled)
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=merges)
    begins = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = begins  # as in Gemma's files
    config = Gemma2Config(vocab_size=len(tokenizer), head_dim=8, num_key_value_heads=2, max_position_embeddings=64, **SIZES)
    return tokenizer, Gemma2Model(config)


MAKERS: dict[str, Callable[[], Encoder]] = {
    "T5": make_t5,
    "UMT5": make_umt5,
    "BERT": make_bert,
    "CLIP": make_clip,
    "Gemma": make_gemma,
}


def make_encoder(kind: str) -> Encoder:
    torch.manual_seed(3)
    tokenizer, encoder = MAKERS[kind]()
    return tokenizer, encoder.eval()


def _unigram() -> T5Tokenizer:
    words = [(f"▁{word}", -2.0) for word in WORDS]
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), *words], extra_ids=0)


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def _pairs(special: list[str], spelled: list[list[str]]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of byte pairs that make each word, spelled by symbols, one token."""
    tokens, merges = [*special, *(symbol for word in spelled for symbol in word)], []
    for word in spelled:
        for end in range(1, len(word)):
            merges.append(("".join(word[:end]), word[end]))
            tokens.append("".join(word[: end + 1]))
    return _numbered(tokens), list(dict.fromkeys(merges))
