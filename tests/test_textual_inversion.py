"""Words that a text encoder learned after its training: read, weighed, saved and taken away, by encoders of several kinds."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers.loaders import TextualInversionLoaderMixin
from safetensors.torch import save_file

from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.text.encoding import last_hidden_state
from imagen_diffusers.text.learned_words import input_table, learned_words
from imagen_diffusers.text.weighting import weighted_embeddings

from .conftest import TEXT_DIM, make_pipeline
from .encoders import MAKERS, make_encoder
from .test_encoders import cascade_of

PLAIN = ["a red cube", "left of the sphere"]


def vectors(count: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(count, TEXT_DIM, generator=torch.Generator().manual_seed(seed))


def read(pipe: ImagenCascadePipeline, prompt: str | list[str]) -> torch.Tensor:
    return pipe.encode_prompt(prompt, do_classifier_free_guidance=False)[0]


def encoded(pipe: ImagenCascadePipeline, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return last_hidden_state(pipe.text_encoder, torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))


@pytest.mark.parametrize("kind", MAKERS)
def test_words_are_rows_of_the_table_and_all_else_stays_to_the_bit(kind, tmp_path: Path) -> None:
    """Of one vector and of three; without the words the encoder is what it was, in a folder, too."""
    pipe = cascade_of(kind)
    before, rows, state = read(pipe, PLAIN), input_table(pipe.text_encoder).num_embeddings, torch.get_rng_state()
    pipe.text_encoder.requires_grad_(False)
    pipe.load_textual_inversion([{"<vase>": vectors(1)[0]}, {"<look>": vectors(3, 8)}])
    assert torch.equal(torch.get_rng_state(), state)
    table = input_table(pipe.text_encoder).weight
    assert not table.requires_grad and torch.equal(table[-4:], torch.cat([vectors(1), vectors(3, 8)]))
    assert torch.equal(read(pipe, PLAIN), before)
    vase, look = pipe.tokenizer.convert_tokens_to_ids(["<vase>", "<look>"])
    ids = pipe.tokenizer("a <vase> on <look>")["input_ids"]
    place = ids.index(look)
    said = encoded(pipe, [*ids[:place], look, look + 1, look + 2, *ids[place + 1 :]])
    assert (look, vase in ids) == (len(table) - 3, True) and torch.equal(read(pipe, "a <vase> on <look>"), said)

    pipe.save_pretrained(tmp_path)
    again = ImagenCascadePipeline.from_pretrained(tmp_path)
    assert torch.equal(read(again, "a <vase> on <look>"), said)
    again.unload_textual_inversion("<vase>")  # and the other one moves up
    assert learned_words(again.text_encoder) == {"<look>": 3} and "<vase>" not in again.tokenizer.get_vocab()
    assert torch.equal(read(again, "a red <look>"), read(pipe, "a red <look>"))
    again.unload_textual_inversion()
    assert input_table(again.text_encoder).num_embeddings == rows == again.text_encoder.config.vocab_size
    assert again.tokenizer.get_vocab() == make_encoder(kind)[0].get_vocab()
    assert torch.equal(read(again, PLAIN), before)


@pytest.mark.parametrize("kind", ["T5", "BERT", "CLIP"])
def test_a_file_says_the_same_by_the_methods_of_diffusers(kind, tmp_path: Path) -> None:
    save_file({"<vase>": vectors(2)}, tmp_path / "learned_embeds.safetensors")
    pipe = cascade_of(kind)
    pipe.load_textual_inversion(tmp_path, token="<pot>")

    class Stock(TextualInversionLoaderMixin):
        hf_device_map, components = None, {}

    tokenizer, encoder = make_encoder(kind)
    Stock().load_textual_inversion(str(tmp_path), "<pot>", tokenizer, encoder)
    prompt = Stock().maybe_convert_prompt("a red <pot>", tokenizer)
    theirs = encoded(SimpleNamespace(text_encoder=encoder), tokenizer(prompt)["input_ids"])
    assert torch.equal(read(pipe, "a red <pot>"), theirs)


def test_a_table_with_rows_to_spare_keeps_its_length() -> None:
    """T5's has 28 rows beyond its tokenizer's tokens; cut to these, its files would say another vocabulary."""
    pipe = cascade_of("BERT")
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer) + 5, mean_resizing=False)
    pipe.load_textual_inversion({"<vase>": vectors(2)})
    assert input_table(pipe.text_encoder).num_embeddings == len(pipe.tokenizer) + 3
    pipe.unload_textual_inversion()
    assert input_table(pipe.text_encoder).num_embeddings == len(pipe.tokenizer) + 5


def test_a_word_is_weighed_with_all_its_vectors() -> None:
    pipe = make_pipeline()
    pipe.load_textual_inversion({"<vase>": vectors(3)})
    plain = read(pipe, "a <vase> cube")
    assert plain.shape[1] == 6  # a, three vectors, cube and the end
    assert torch.equal(weighted_embeddings(pipe, "a (<vase>:1.0) cube").embeds, plain)
    stressed = weighted_embeddings(pipe, "a (<vase>:1.5) cube")
    assert stressed.mask.all() and (stressed.embeds != plain).any(-1).all()


def test_a_call_makes_of_a_word_what_it_makes_of_one_with_the_same_row() -> None:
    pipe = make_pipeline()
    cube = input_table(pipe.text_encoder).weight[pipe.tokenizer.convert_tokens_to_ids("cube")].detach()
    pipe.load_textual_inversion(cube, token="<mine>")
    one, other = (pipe(f"a red {word}", generator=torch.Generator().manual_seed(1), output_type="pt").images for word in ("cube", "<mine>"))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("words", "token", "says"),
    [
        ({"cube": vectors(1)}, None, "already"),
        ({"<my vase>": vectors(1)}, None, 'is no word: give one without spaces, such as "<vase>"'),
        ({"<vase>": torch.ones(1, 8)}, None, f"are 8 wide, and this text encoder takes {TEXT_DIM}; load the .* it is --model"),
        ({"<vase>": torch.full((1, TEXT_DIM), torch.nan)}, None, "are not finite"),
        ([{"<vase>": vectors(1)}] * 2, ["<a>", "<a>"], "give each a name of its own"),
        ([{"<vase>": vectors(1)}, {"cube": vectors(1)}], None, "already"),  # and neither is learned
        ([{"<vase>": vectors(1)}, {"<vase>": vectors(1, 8)}], None, '"<vase>" is given 2 times; give each a name of its own by token'),
        ([{"<vase>": vectors(1)}, {"<vase>_1": vectors(1)}], None, '"<vase>" and "<vase>_1" would be read as one word'),
        ([{"<vase>": vectors(2)}, {"<vase>_1": vectors(1)}], None, '"<vase>" and "<vase>_1" would be read as one word'),
        ({"<vase>": vectors(1)[:0]}, None, rf"are a tensor \(0, {TEXT_DIM}\); give \({TEXT_DIM},\)"),
        ({"<vase>": torch.tensor(1.0)}, None, r"are a tensor \(\); give"),
        ([], None, "no words are given"),
    ],
)
def test_bad_words_are_refused(shared_pipe, words, token, says) -> None:
    size = len(shared_pipe.tokenizer)
    with pytest.raises(ValueError, match=says):
        shared_pipe.load_textual_inversion(words, token)
    assert (len(shared_pipe.tokenizer), learned_words(shared_pipe.text_encoder)) == (size, {})


def test_a_word_is_not_read_as_part_of_another(pipe) -> None:
    for first, second in (("<pot>", "<pot>_1"), ("<jug>_1", "<jug>")):
        pipe.load_textual_inversion(vectors(1), token=first)
        with pytest.raises(ValueError, match=f'"{first[:5]}" and "{first[:5]}_1" would be read as one word of several vectors'):
            pipe.load_textual_inversion(vectors(1), token=second)


def test_a_folder_without_the_file_and_a_damaged_one_are_named(shared_pipe, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"{tmp_path} holds no learned_embeds.safetensors"):
        shared_pipe.load_textual_inversion(tmp_path)
    (tmp_path / "learned_embeds.safetensors").write_bytes(b"cut short")
    with pytest.raises(OSError, match="learned_embeds.safetensors is damaged or cut short; fetch it again"):
        shared_pipe.load_textual_inversion(tmp_path)


def test_what_cannot_learn_or_forget_says_so(shared_pipe) -> None:
    with pytest.raises(ValueError, match="no text encoder that could learn words"):
        ImagenCascadePipeline().load_textual_inversion({"<vase>": vectors(1)})
    with pytest.raises(ValueError, match="the text encoder learned no <vase>; it learned none"):
        shared_pipe.unload_textual_inversion("<vase>")
    with pytest.raises(ValueError, match='this checkpoint cleans prompts, "<Vase>" to "'):
        make_pipeline(clean_caption=True).load_textual_inversion({"<Vase>": vectors(1)})
    with pytest.raises(ValueError, match="has no table of input embeddings"):
        shared_pipe.load_textual_inversion({"<vase>": vectors(1)}, text_encoder=torch.nn.Linear(1, 1))
    pipe = make_pipeline()
    pipe.text_encoder.to("meta")
    with pytest.raises(ValueError, match=r"load words before enable_sequential_cpu_offload\(\)"):
        pipe.load_textual_inversion({"<vase>": vectors(1)})
