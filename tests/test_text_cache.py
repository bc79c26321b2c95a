"""Captions encoded once are the captions encoded now, and another encoder's are refused."""

import json
import pickle

import pytest
import torch

from imagen_diffusers.text.encoding import encode
from imagen_diffusers.text.learned_words import add_words, remove_words
from imagen_diffusers.text.prompts import PLAIN_TEXT
from imagen_diffusers.training.batch_text import TextReader
from imagen_diffusers.training.examples import collate
from imagen_diffusers.training.image_datasets import ImageDataset
from imagen_diffusers.training.pyramid import ImageSettings, UnusableError
from imagen_diffusers.training.reading import Columns
from imagen_diffusers.training.text_cache import TextCache, fingerprint, write_text_cache

from .conftest import SHORT, make_text_encoder, make_tokenizer
from .test_unusable_images import given, rows_of

CAPTIONS = ["a red cube", "a blue sphere on the left of a green cube", "cube", "a red sphere", "the green cube"]


def write(folder, captions=CAPTIONS, **changes) -> str:
    tokenizer, encoder = make_tokenizer(), make_text_encoder()
    given = {"rules": SHORT, "batch_size": 2, "captions_per_shard": 3, **changes}
    list(write_text_cache(folder, captions, tokenizer, encoder, **given))
    return fingerprint(tokenizer, encoder, SHORT)


def test_a_cached_caption_is_the_encoded_one(tmp_path) -> None:
    cache = TextCache(tmp_path, write(tmp_path))
    assert len(cache) == 5
    for caption in CAPTIONS:
        tokens = cache(caption)
        alone = encode([caption], make_tokenizer(), make_text_encoder(), 12).embeds[0]
        assert tokens.dtype == torch.bfloat16
        assert tokens.shape == alone.shape  # unpadded
        torch.testing.assert_close(tokens.float(), alone, rtol=2**-8, atol=2**-8)  # bfloat16 keeps 8 bits


def test_a_cache_of_bfloat16_holds_the_very_values_and_is_gone_on_with_in_bfloat16(tmp_path) -> None:
    tokenizer, half = make_tokenizer(), make_text_encoder().bfloat16()
    list(write_text_cache(tmp_path, CAPTIONS[:2], tokenizer, half, rules=SHORT, batch_size=1))
    cache = TextCache(tmp_path, fingerprint(tokenizer, make_text_encoder(), SHORT))
    for caption in CAPTIONS[:2]:
        assert torch.equal(cache(caption), encode([caption], tokenizer, half, 12).embeds[0])
    with pytest.raises(ValueError, match="was encoded in bfloat16, and the text encoder is in float32.*--dtype bfloat16"):
        write(tmp_path)
    list(write_text_cache(tmp_path, CAPTIONS, tokenizer, half, rules=SHORT))
    index = json.loads((tmp_path / "index.json").read_text())
    assert index.pop("dtype") == "bfloat16"
    (tmp_path / "index.json").write_text(json.dumps(index))  # as before types were told, when all were float32
    write(tmp_path)
    with pytest.raises(ValueError, match="was encoded in float32, and the text encoder is in bfloat16"):
        list(write_text_cache(tmp_path, CAPTIONS, tokenizer, half, rules=SHORT))


def test_a_batch_is_padded_and_masked(tmp_path) -> None:
    cache = TextCache(tmp_path, write(tmp_path))
    batch = collate([{"pixel_values": torch.zeros(3, 2, 2), "prompt_embeds": cache(c)} for c in CAPTIONS[:3]])
    together = encode(CAPTIONS[:3], make_tokenizer(), make_text_encoder(), 12)
    read = TextReader(None, None, PLAIN_TEXT, None, torch.device("cpu")).read(batch)
    assert batch["text"].embeds.dtype == torch.bfloat16 and torch.equal(read.mask, together.mask)
    torch.testing.assert_close(read.embeds, together.embeds, rtol=2**-8, atol=2**-8)


def test_writing_goes_on_where_it_stopped(tmp_path) -> None:
    progress = write_text_cache(tmp_path, CAPTIONS, make_tokenizer(), make_text_encoder(), rules=SHORT, batch_size=2, captions_per_shard=3)
    for done in progress:
        if done == 5:
            break
    progress.close()  # killed with the second shard unwritten
    assert json.loads((tmp_path / "index.json").read_text())["shards"] == ["tokens-00000.safetensors"]
    first = (tmp_path / "tokens-00000.safetensors").stat().st_mtime_ns
    cache = TextCache(tmp_path, write(tmp_path, [*CAPTIONS, "a cube on the left"]))
    assert len(cache) == 6
    assert (tmp_path / "tokens-00000.safetensors").stat().st_mtime_ns == first
    assert len(cache("a cube on the left")) == 6


def test_equal_captions_are_kept_once(tmp_path) -> None:
    assert len(TextCache(tmp_path, write(tmp_path, ["a cube"] * 10))) == 1


def test_a_stale_cache_is_refused(tmp_path) -> None:
    write(tmp_path)
    other = make_text_encoder()
    with torch.no_grad():
        other.encoder.block[0].layer[0].SelfAttention.q.weight.mul_(1.5)
    with pytest.raises(ValueError, match="written by another text encoder"):
        TextCache(tmp_path, fingerprint(make_tokenizer(), other, SHORT))
    with pytest.raises(ValueError, match="written by another text encoder"):
        list(write_text_cache(tmp_path, CAPTIONS, make_tokenizer(), other, rules=SHORT))
    with pytest.raises(ValueError, match="another"):
        TextCache(tmp_path, fingerprint(make_tokenizer(), make_text_encoder(), SHORT._replace(max_sequence_length=11)))
    assert fingerprint(make_tokenizer(), make_text_encoder().bfloat16(), SHORT) == fingerprint(make_tokenizer(), make_text_encoder(), SHORT)


def test_other_vectors_of_a_word_are_another_encoder(tmp_path) -> None:
    """Of a large table too few values are looked at for one of them to be a word's."""
    tokenizer, encoder = make_tokenizer(), make_text_encoder()
    encoder.resize_token_embeddings(20_000, mean_resizing=False)
    plain, digests = fingerprint(tokenizer, encoder, SHORT), []
    for value in (1.0, 2.0):
        add_words({"<vase>": torch.full((2, 32), value)}, tokenizer, encoder)
        digests.append(fingerprint(tokenizer, encoder, SHORT))
        encoder.save_pretrained(tmp_path)
        assert fingerprint(tokenizer, [tmp_path / "model.safetensors"], SHORT) == digests[-1]
        remove_words(None, tokenizer, encoder)
    assert len({plain, *digests}) == 3


def test_a_caption_that_was_never_encoded_is_named_and_its_image_passed_over(tmp_path) -> None:
    cache = TextCache(tmp_path, write(tmp_path))
    with pytest.raises(UnusableError, match='lacks "a new caption"'):
        cache("a new caption")
    with pytest.raises(ValueError, match="holds no text cache"):
        TextCache(tmp_path / "nowhere", "")
    rows = rows_of([given(20, 20), {"bytes": b"never read", "path": None}, given(20, 20)], ["cube", "a new caption", "a red cube"])
    images = ImageDataset(rows, Columns("image", "text"), ImageSettings(16), embed=cache)
    example = images[1]
    assert torch.equal(example["prompt_embeds"], cache("a red cube"))
    assert 'row 1: the text cache lacks "a new caption"; `imagen-diffusers encode-text` adds' in example["skipped"][0]
    others = ImageDataset(rows_of([given(20, 20)] * 3, ["1", "2", "3"]), Columns("image", "text"), ImageSettings(16), embed=cache)
    with pytest.raises(ValueError, match='none of the 3 images can be used: row 0: the text cache lacks "1"'):
        others[0]


def test_two_that_write_at_once_are_refused(tmp_path) -> None:
    first = write_text_cache(tmp_path, CAPTIONS, make_tokenizer(), make_text_encoder(), rules=SHORT, batch_size=2)
    next(first)
    with pytest.raises(ValueError, match="another run is writing into"):
        write(tmp_path)
    list(first)
    assert len(TextCache(tmp_path, write(tmp_path))) == 5


def test_a_cache_goes_to_other_processes_after_use(tmp_path) -> None:
    cache = TextCache(tmp_path, write(tmp_path))
    used = cache("cube")
    assert torch.equal(pickle.loads(pickle.dumps(cache))("cube"), used)
    assert torch.equal(cache("cube"), used)
