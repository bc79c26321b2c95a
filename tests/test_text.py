"""Prompts to embeddings."""

import logging

import pytest
import torch

from imagen_diffusers.text.encoding import TextEmbedding, encode, null_embedding, pad_to, pad_together
from imagen_diffusers.text.words import known_words, unknown_words

from .conftest import TEXT_DIM, make_pipeline, make_text_encoder, make_tokenizer


@pytest.fixture(scope="module")
def encoder():
    return make_tokenizer(), make_text_encoder()


def test_shapes_masks_and_zero_padding(encoder) -> None:
    text = encode(["a red cube", "a"], *encoder, 12)
    assert text.embeds.shape == (2, 4, TEXT_DIM)
    assert text.mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert not text.embeds[1, 2:].any()


def test_padding_does_not_change_a_prompt(encoder) -> None:
    alone = encode(["a"], *encoder, 12).embeds
    beside = encode(["a", "a red cube left of the sphere"], *encoder, 12).embeds[:1, :2]
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-5)


def test_a_long_prompt_is_cut_and_the_warning_quotes_what_was_dropped(encoder, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        text = encode(["a red cube left of the green sphere"], *encoder, 6)
    assert text.embeds.shape[1] == 6
    assert 'dropped: "the green sphere"' in caplog.text
    short = encode(["a red cube left of"], *encoder, 6)
    assert torch.equal(text.embeds, short.embeds)


def test_null_text_is_zeros_under_the_same_mask(encoder) -> None:
    text = encode(["a red cube", "a"], *encoder, 12)
    null = null_embedding(text)
    assert not null.embeds.any()
    assert torch.equal(null.mask, text.mask)


def test_pad_together() -> None:
    one = TextEmbedding(torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool))
    two = TextEmbedding(torch.ones(1, 4, 3), torch.ones(1, 4, dtype=torch.bool))
    padded, same = pad_together(one, two)
    assert padded.mask.tolist() == [[True, True, False, False]]
    assert torch.equal(same.embeds, two.embeds)


def test_unknown_words(encoder) -> None:
    assert unknown_words("a red dragon", encoder[0]) == ["dragon"]
    assert "red" in known_words(encoder[0])
    assert "<pad>" not in known_words(encoder[0])


def test_unknown_words_are_said_in_a_call(pipe, caplog) -> None:
    pipe("a red dragon left of a wyvern, a dragon", stop_at=1, num_inference_steps=1)
    assert 'The text encoder never saw: dragon, wyvern, ",". It knows: ' in caplog.text
    caplog.clear()
    pipe("a red cube", stop_at=1, num_inference_steps=1)
    assert not caplog.text


def test_text_is_never_cut_by_padding() -> None:
    text = TextEmbedding(torch.ones(1, 4, 2), torch.ones(1, 4, dtype=torch.bool))
    assert pad_to(text, 6).mask.tolist() == [[True] * 4 + [False] * 2]
    with pytest.raises(ValueError, match="text of 4 tokens cannot be padded to 3"):
        pad_to(text, 3)


def test_words_are_looked_for_as_the_tokenizer_is_given_them(caplog) -> None:
    pipe = make_pipeline(clean_caption=True)
    pipe("Red CUBE", stop_at=1, num_inference_steps=1)
    assert "never saw" not in caplog.text
