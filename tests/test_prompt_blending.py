"""Embeddings between two prompts: closed forms, and ends that are the prompts themselves."""

import math

import numpy as np
import pytest
import torch

from imagen_diffusers import ImagenCascadePipeline, bundled
from imagen_diffusers.text.blending import lerp, slerp
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.text.weighting import weighted_embeddings

from .conftest import seeded

SHORT, LONG = "a red cube", "a blue sphere left of the green cube"
FRACTIONS = [0.0, 0.3, 0.5, 0.9, 1.0]


def text(tokens: int, seed: int, width: int = 8, padding: int = 0) -> TextEmbedding:
    embeds = torch.randn(1, tokens + padding, width, generator=seeded(seed), dtype=torch.float64)
    mask = torch.arange(tokens + padding)[None] < tokens
    return TextEmbedding(embeds * mask[..., None], mask)


def unit(*values: float) -> TextEmbedding:
    return TextEmbedding(torch.tensor([[values]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool))


def test_lerp_is_on_the_line() -> None:
    a, b = text(4, 0), text(4, 1)
    embeds, mask = lerp(a, b, FRACTIONS)
    for row, t in zip(embeds, FRACTIONS, strict=True):
        torch.testing.assert_close(row, a.embeds[0] + t * (b.embeds[0] - a.embeds[0]), rtol=1e-14, atol=1e-14)
    assert mask.all()


def test_slerp_of_unit_vectors_turns_by_the_fraction_of_the_angle() -> None:
    """Against a rotation in the plane of both, built by Gram and Schmidt."""
    a, b = (torch.nn.functional.normalize(text(5, seed).embeds[0], dim=-1) for seed in (0, 1))
    angle = (a * b).sum(-1, keepdim=True).acos()
    across = torch.nn.functional.normalize(b - (a * b).sum(-1, keepdim=True) * a, dim=-1)
    embeds, _ = slerp(*(TextEmbedding(x[None], torch.ones(1, 5, dtype=torch.bool)) for x in (a, b)), FRACTIONS)
    for row, t in zip(embeds, FRACTIONS, strict=True):
        torch.testing.assert_close(row, torch.cos(t * angle) * a + torch.sin(t * angle) * across, rtol=1e-13, atol=1e-13)


def test_slerp_by_hand() -> None:
    third = slerp(unit(1, 0), unit(0, 2), 1 / 3).embeds.flatten().tolist()
    assert third == pytest.approx([math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)], rel=1e-14)


@pytest.mark.parametrize("b", [(3.0, 0.0), (-3.0, 0.0), (1.0, 1e-5)])
def test_slerp_without_an_arc_is_on_the_line(b) -> None:
    assert torch.equal(slerp(unit(1, 0), unit(*b), 0.25).embeds, lerp(unit(1, 0), unit(*b), 0.25).embeds)


@pytest.mark.parametrize("blend", [lerp, slerp])
def test_the_shorter_prompt_repeats_its_tokens_evenly(blend) -> None:
    a, b = text(2, 0, padding=1), text(5, 1, padding=2)
    embeds, mask = blend(a, b, FRACTIONS)
    assert mask.tolist() == [[True] * 2 + [False] * 3, *([[True] * 5] * 4)]  # as long as the longer prompt, without its padding
    longer = TextEmbedding(a.embeds[:, [0, 0, 0, 1, 1]], torch.ones(1, 5, dtype=torch.bool))
    assert torch.equal(embeds[1:], blend(longer, TextEmbedding(b.embeds[:, :5], b.mask[:, :5]), FRACTIONS).embeds[1:])
    assert not embeds[0, 2:].any()


@pytest.mark.parametrize("blend", [lerp, slerp])
@pytest.mark.parametrize("rules", [{}, {"text_padding": "max_length"}], ids=["longest", "max_length"])
def test_ends_are_the_prompts_to_the_bit(shared_pipe, blend, rules) -> None:
    pipe = ImagenCascadePipeline(**shared_pipe.components, max_sequence_length=12, **rules)
    ends = [weighted_embeddings(pipe, prompt) for prompt in (SHORT, LONG)]
    for t, prompt in enumerate((SHORT, LONG)):
        embeds, _, mask, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
        found = blend(*ends, t)
        assert torch.equal(found.embeds, embeds)
        assert torch.equal(found.mask, mask)
    both = blend(*ends, [1, 0.5, 0])
    embeds, _, mask, _ = pipe.encode_prompt([LONG, SHORT], do_classifier_free_guidance=False)
    assert torch.equal(both.mask[::2], mask)
    torch.testing.assert_close(both.embeds[::2], embeds, rtol=1e-5, atol=1e-5)  # the encoder's rounding, in another batch


def test_half_precision_is_blended_in_float32() -> None:
    a, b = (TextEmbedding(t.embeds.half(), t.mask) for t in (text(3, 0), text(3, 1)))
    exact = lerp(*(TextEmbedding(t.embeds.float(), t.mask) for t in (a, b)), 0.3).embeds
    assert torch.equal(lerp(a, b, 0.3).embeds, exact.half())


def test_a_fraction_of_numpy_is_a_number() -> None:
    a, b = text(3, 0), text(3, 1)
    assert torch.equal(slerp(a, b, np.float32(0.25)).embeds, slerp(a, b, 0.25).embeds)


BAD = [
    ((text(2, 0), text(2, 1), []), r"fractions are \[\]; give one or several in \[0, 1\]"),
    ((text(2, 0), text(2, 1), [0.5, 1.5]), "fractions are"),
    (
        ("a red cube", text(2, 1), 0.5),
        r"the first text is a str; give its embeddings and mask, as weighted_embeddings\(pipe, prompt\) does",
    ),
    ((text(2, 0)[0], text(2, 1), 0.5), "the first text is a Tensor; give"),
    ((text(2, 0), text(2, 1), -0.1), "fractions are -0.1"),
    ((text(2, 0), text(2, 1), math.nan), "fractions are nan"),
    ((text(2, 0), text(2, 1, width=4), 0.5), "the texts are 8 and 4 wide"),
    ((text(0, 0, padding=2), text(2, 1), 0.5), r"the first text .*with a token at least"),
    ((text(2, 0), TextEmbedding(torch.ones(2, 2, 8), torch.ones(2, 2)), 0.5), r"the second text has embeddings \(2, 2, 8\)"),
    ((text(2, 0), TextEmbedding(torch.ones(1, 2, 8), torch.ones(1, 3)), 0.5), r"a mask \(1, 3\)"),
    ((text(2, 0), TextEmbedding(torch.ones(2, 8), torch.ones(2)), 0.5), r"give \(1, tokens, width\) and \(1, tokens\)"),
]


@pytest.mark.parametrize(("given", "said"), BAD, ids=[said for _, said in BAD])
def test_bad_input(given, said) -> None:
    for blend in (lerp, slerp):
        with pytest.raises(ValueError, match=said):
            blend(*given)


@pytest.mark.thorough
@pytest.mark.parametrize("blend", [lerp, slerp])
def test_ends_are_the_prompts_own_images_on_the_bundled_cascade(blend) -> None:
    pipe = ImagenCascadePipeline.from_pretrained(bundled("imagen-scenes"), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    prompts = ["a red sphere", "a small blue rubber cube on a gray floor"]
    ends = [weighted_embeddings(pipe, prompt) for prompt in prompts]
    small = {"stop_at": 1, "num_inference_steps": 2, "output_type": "pt"}
    for t, prompt in enumerate(prompts):
        embeds, mask = blend(*ends, t)
        found = pipe(prompt_embeds=embeds, prompt_attention_mask=mask, generator=seeded(), **small).images
        assert torch.equal(found, pipe(prompt, generator=seeded(), **small).images)
    embeds, mask = blend(*ends, FRACTIONS)
    found = pipe(prompt_embeds=embeds, prompt_attention_mask=mask, generator=[seeded() for _ in FRACTIONS], **small).images
    steps = (found[1:] - found[:-1]).abs().amax((1, 2, 3))
    assert (steps > 0.05).all()  # another image at every fraction
