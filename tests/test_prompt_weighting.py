"""Weights in prompts: how they are written, which tokens get them, and what they make of the embeddings."""

import logging
import re
from itertools import groupby
from types import SimpleNamespace

import pytest
import torch
from transformers import T5Tokenizer

from imagen_diffusers.text import weight_syntax
from imagen_diffusers.text.prompts import TextRules, read_prompts
from imagen_diffusers.text.weight_syntax import BORDER, WeightedText, cleaned, read_weights, weighted_tokens
from imagen_diffusers.text.weighting import weigh, weighted_embeddings

from .conftest import make_base, make_pipeline, make_text_encoder, make_tokenizer
from .test_text_rules import RULES

# What is written, and its text in runs of one weight.
READ: list[tuple[str, list[tuple[str, float]]]] = [
    ("", []),
    ("a red cube", [("a red cube", 1)]),
    ("a (red:1.3) cube", [("a ", 1), ("red", 1.3), (" cube", 1)]),
    ("(red cube:2)", [("red cube", 2)]),
    ("a (red:.5) cube", [("a ", 1), ("red", 0.5), (" cube", 1)]),
    ("a (red: 1. ) cube", [("a red cube", 1)]),
    ("a (red:0)(blue:2)", [("a ", 1), ("red", 0), ("blue", 2)]),
    ("(a (red:0.5) cube:3)", [("a ", 3), ("red", 1.5), (" cube", 3)]),
    ("(((red:2):2):2)", [("red", 8)]),
    ("a cube (red)", [("a cube (red)", 1)]),
    ("((red) cube:2)", [("(red) cube", 2)]),
    ("((red:2) cube)", [("(", 1), ("red", 2), (" cube)", 1)]),
    (r"a cube \(red:2\)", [("a cube (red:2)", 1)]),
    (r"(a \(red\):2)", [("a (red)", 2)]),
    (r"a \cube", [(r"a \cube", 1)]),
    ("at 12:30, a cube: red", [("at 12:30, a cube: red", 1)]),
    ("(at 12:30:2)", [("at 12:30", 2)]),
]
# What is written, and what is said of it.
UNREAD: list[tuple[object, str]] = [
    ("a (red:1.3 cube", "opens a parenthesis that is never closed"),
    ("a (red", r"opens .*write \\\( for one that is text"),
    ("a red) cube", r"closes a parenthesis that is not open.*write \\\)"),
    ("a red:1.3) cube", "closes a parenthesis that is not open"),
    ("a cube :)", "closes a parenthesis that is not open"),
    ("(a (red:2) cube:2", "never closed"),
    ("(red:)", r"colon without a number, 0 or more, before \); write \(words:1.3\)"),
    ("(red:-1)", "colon without a number"),
    ("(red:much)", "colon without a number"),
    ("(red:nan)", "colon without a number"),
    ("(red:1.2.3)", "colon without a number"),
    ("(red: (blue:2))", "colon without a number"),
    ("(:1.3)", "weights no words"),
    (f"a (red:{'9' * 400}) cube", "weights words by more than a number can be"),
    (f"((red:0):{'9' * 400}) cube", "weights words by more than a number can be"),
    (f"a (red:{'9' * 200}) cube", "weights words by more than a number can be"),
    (f"((a:{'9' * 200}) red:{'9' * 200}) cube", "weights words by more than a number can be"),
    ("a ( :1.3) cube", "weights no words"),
    (f"a {BORDER}", "holds the character"),
    (3, "a prompt is a int"),
    (None, "a prompt is a NoneType"),
]
PLAIN = ("a red cube", "a red cube left of the sphere")


def runs(weighted: WeightedText) -> list[tuple[str, float]]:
    pairs = groupby(zip(*weighted, strict=True), key=lambda pair: pair[1])
    return [("".join(character for character, _ in run), weight) for weight, run in pairs]


def make_pieces() -> T5Tokenizer:
    """T5's own tokenizer, with few pieces of words, some of them with a mark for the space before."""
    pieces = ["▁a", "▁red", "▁re", "d", "▁old", "-f", "ashioned", "▁cube", "s", ",", "▁", *"abcdefghijklmnopqrstuvwxyz-()"]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    return T5Tokenizer(vocab=special + [(piece, -1.0 / len(piece)) for piece in dict.fromkeys(pieces)], extra_ids=0)


def encoded(pipe, ids: list[int], hidden: set[int]) -> torch.Tensor:
    """By hand: with the end of the text in hidden places, which nobody attends to."""
    given = torch.tensor([[1 if place in hidden else i for place, i in enumerate(ids)]])
    attention = torch.tensor([[int(place not in hidden) for place in range(len(ids))]])
    with torch.no_grad():
        return pipe.text_encoder(input_ids=given, attention_mask=attention).last_hidden_state[0]


@pytest.fixture(scope="module")
def exact():
    """A pipeline whose text is encoded in float64."""
    return make_pipeline(text_encoder=make_text_encoder().double())


@pytest.mark.parametrize(("prompt", "expected"), READ, ids=[prompt for prompt, _ in READ])
def test_weights_are_read(prompt, expected) -> None:
    assert runs(read_weights(prompt)) == [(text, pytest.approx(weight, rel=1e-15)) for text, weight in expected]


@pytest.mark.parametrize(("prompt", "said"), UNREAD, ids=[repr(prompt) for prompt, _ in UNREAD])
def test_what_cannot_be_read_is_told(shared_pipe, prompt, said) -> None:
    with pytest.raises(ValueError, match=said):
        weighted_embeddings(shared_pipe, ["a red cube", prompt])
    with pytest.raises(ValueError, match=said):
        weighted_embeddings(shared_pipe, prompt)


@pytest.mark.parametrize(
    "prompt", ["a (red:1.3) cube", "(a red:2) (cubes:0.5),", "an (old:3)-fashioned (red:0)", "(old-fashioned:2) cubes", "a (re:1.5)d cube"]
)
def test_a_token_weighs_what_its_characters_weigh(prompt) -> None:
    """Pieces put together are the text with marks for spaces; so they tell their places without the tokenizer's offsets."""
    tokenizer, weighted = make_pieces(), read_weights(prompt)
    ids, weights = weighted_tokens(weighted, tokenizer, TextRules())
    assert ids == tokenizer(weighted.text)["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)[:-1]
    assert "".join(pieces) == "▁" + weighted.text.replace(" ", "▁")
    at, each = 0, [1.0, *weighted.weights]  # of the mark before the text
    for piece, weight in zip(pieces, weights[:-1], strict=True):
        own = [w for character, w in zip(piece, each[at : at + len(piece)], strict=True) if character != "▁"]
        assert weight == pytest.approx(sum(own) / len(own), rel=1e-15)
        at += len(piece)
    assert weights[-1] == 1


def test_a_token_on_the_border_weighs_the_mean() -> None:
    assert weighted_tokens(read_weights("(re:1.5)d"), make_pieces(), TextRules())[1] == [pytest.approx((1.5 + 1.5 + 1) / 3), 1]


def test_equal_weights_of_tokens_are_equal_to_the_bit() -> None:
    assert set(weighted_tokens(read_weights("(old-fashioned red cubes:1.3)"), make_pieces(), TextRules())[1]) == {1.3, 1.0}


def test_the_text_is_cut_with_its_weights() -> None:
    ids, weights = weighted_tokens(read_weights("a (red:2) cube (left of:3) the"), make_tokenizer(), TextRules(max_sequence_length=5))
    assert ids == make_tokenizer()("a red cube left")["input_ids"]
    assert weights == [1, 2, 1, 3, 1]


def test_tokenizers_without_places_are_refused() -> None:
    with pytest.raises(ValueError, match="SimpleNamespace does not tell where its tokens are"):
        weighted_tokens(read_weights("a (red:2) cube"), SimpleNamespace(is_fast=False), TextRules())


@pytest.mark.parametrize("rules", RULES, ids=lambda r: r["null_text"])
def test_weights_of_one_change_no_bit(rules) -> None:
    pipe = make_pipeline(**rules)
    plain, _, mask, _ = pipe.encode_prompt(list(PLAIN), do_classifier_free_guidance=False)
    for prompts in (
        PLAIN,
        ("a (red:1) cube", "(a (red:1.0) cube:1) left (of:1) the sphere"),
        ("a red (cube:1)", "a ((red:2):0.5) cube left of the sphere"),
    ):
        embeds, same = weighted_embeddings(pipe, list(prompts))
        assert torch.equal(embeds, plain)
        assert torch.equal(same, mask)


@pytest.mark.parametrize("rules", RULES[:2], ids=lambda r: r["text_padding"])
def test_weights_go_along_what_the_words_say(rules) -> None:
    """The formula, with what is left without the words encoded by hand."""
    pipe = make_pipeline(text_encoder=make_text_encoder().double(), **rules)
    ids = pipe.tokenizer("a red cube left of the sphere")["input_ids"]
    plain = encoded(pipe, ids, set())
    without_red, without_both, without_cube = (encoded(pipe, ids, hidden) for hidden in ({1}, {1, 6}, {2}))
    for prompt, expected in (
        ("a (red:0) cube left of the sphere", without_red),
        ("a (red:1.5) cube left of the sphere", plain + 0.5 * (plain - without_red)),
        ("a (red:3) cube left of the (sphere:3)", plain + 2 * (plain - without_both)),
        ("a (red:3) (cube:0.25) left of the (sphere:3)", plain + 2 * (plain - without_both) - 0.75 * (plain - without_cube)),
    ):
        embeds = weighted_embeddings(pipe, prompt).embeds[0, : len(ids)]
        torch.testing.assert_close(embeds, expected, rtol=1e-12, atol=1e-12)


def test_an_encoder_is_enough(exact) -> None:
    rules = TextRules.of(exact.config)
    plain = read_prompts(["a red cube"], exact.tokenizer, exact.text_encoder, rules)
    before = plain.embeds.clone()
    weighted = weigh([read_weights("a (red:2) cube")], plain, exact.tokenizer, exact.text_encoder, rules)
    assert torch.equal(weighted.embeds, weighted_embeddings(exact, "a (red:2) cube").embeds)
    assert torch.equal(plain.embeds, before) and not torch.equal(weighted.embeds, before)


def test_padding_changes_no_prompt(exact) -> None:
    prompts = ["a (red:2) cube", "(a (red:2) cube left:0.5) of the sphere"]
    both = weighted_embeddings(exact, prompts)
    for row, prompt in enumerate(prompts):
        alone = weighted_embeddings(exact, prompt).embeds[0]
        torch.testing.assert_close(both.embeds[row, : len(alone)], alone, rtol=1e-12, atol=1e-12)
    assert both.mask.tolist() == [[True] * 4 + [False] * 4, [True] * 8]
    assert not both.embeds[0, 4:].any()


def test_networks_norm_away_what_scales_a_token(exact) -> None:
    """Why a weight is no factor: what is left of one comes from the small number that layer norm adds to the variance."""
    unet = make_base().double()
    sample = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def change(embeds: torch.Tensor) -> float:
        with torch.no_grad():
            return float((unet(sample, 500, embeds).sample - unet(sample, 500, plain).sample).abs().max())

    plain = weighted_embeddings(exact, "a red cube").embeds
    scaled = plain.clone()
    scaled[:, 1] *= 2
    assert change(scaled) < 1e-3 * change(weighted_embeddings(exact, "a (red:2) cube").embeds)


def test_text_is_cleaned_as_without_weights() -> None:
    pipe = make_pipeline(clean_caption=True)
    expected = weighted_embeddings(make_pipeline(), "a (red:2) cube").embeds
    assert torch.equal(weighted_embeddings(pipe, "A (RED:2) Cube").embeds, expected)


def test_weights_go_through_cleaning(monkeypatch) -> None:
    def clean(prompts: list[str]) -> list[str]:
        """As the real one does where its packages are installed: fewer characters here, more there."""
        return [re.sub(r"\s+", " ", re.sub(r"\S+\.com|[()]", " ", p.lower().replace("&", "and"))).strip() for p in prompts]

    monkeypatch.setattr(weight_syntax, "clean_captions", clean)
    for prompt, expected in (
        (r"A (RED:2)  \(fine\) Cube & (sphere:3) ", [("a ", 1), ("red", 2), (" fine cube and ", 1), ("sphere", 3)]),
        ("see cubes.com, a (Red & BLUE:2) cube", [("see , a ", 1), ("red and blue", 2), (" cube", 1)]),
        ("", []),
    ):
        assert runs(cleaned(read_weights(prompt))) == expected
    for prompt in ("see (cubes:2).com", "a ( red:2) cube", "see (cubes.com:2)a.com"):
        with pytest.raises(ValueError, match='where a weighted part begins or ends; weight words of the cleaned prompt, "'):
            cleaned(read_weights(prompt))


def test_one_warning_tells_what_is_dropped(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        weighted_embeddings(make_pipeline(max_sequence_length=5), "a (red:2) cube left of the sphere")
    assert [record.getMessage().split(": ")[-1] for record in caplog.records] == ['"of the sphere"']


def test_a_call_takes_them(shared_pipe) -> None:
    embeds, mask = weighted_embeddings(shared_pipe, ["a (red:2) cube", "a sphere"])
    given = {"prompt_embeds": embeds, "prompt_attention_mask": mask, "stop_at": 1, "output_type": "pt"}
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    images = shared_pipe(**given, generator=seeds).images
    plain = shared_pipe(
        ["a red cube", "a sphere"], stop_at=1, output_type="pt", generator=[g.manual_seed(s) for s, g in enumerate(seeds)]
    ).images
    assert torch.equal(images[1], plain[1])
    assert not torch.equal(images[0], plain[0])


def test_text_needs_an_encoder() -> None:
    with pytest.raises(ValueError, match="this pipeline has no text encoder"):
        weighted_embeddings(make_pipeline(text_encoder=None, tokenizer=None), "a (red:2) cube")
