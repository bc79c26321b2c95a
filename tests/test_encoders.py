"""Any encoder of transformers: saved, loaded, tokenized and encoded as by transformers itself, alone and in batches, and used like T5."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BartConfig,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    T5ForConditionalGeneration,
    T5Model,
    UMT5ForConditionalGeneration,
)
from typer.testing import CliRunner

from examples import finetune_domain
from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.cli import app
from imagen_diffusers.finetuning.flags import ModelSettings
from imagen_diffusers.finetuning.text_encoding import open_text_cache
from imagen_diffusers.models.lora import add_lora, lora_layers, lora_metadata
from imagen_diffusers.text.encoders import class_of, encoding_dtype, load_text_encoder, readable
from imagen_diffusers.text.encoding import encode
from imagen_diffusers.text.weighting import weighted_embeddings
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.fingerprints import fingerprint
from imagen_diffusers.training.text_cache import TextCache, write_text_cache

from .conftest import SHORT, TEXT_DIM, make_pipeline, seeded
from .encoders import MAKERS, make_encoder
from .test_examples import cascade, flags, images  # noqa: F401 (fixtures)
from .test_text_rules import shown, tokens

PROMPTS = ["a red cube left of the sphere", "a blue cube", ""]
LONG = "a red cube left of the green sphere on the right of the blue cube"
WITHOUT_SR = dict.fromkeys(("unet_2", "scheduler_2", "unet_3", "scheduler_3"))


def cascade_of(kind: str, **changes) -> ImagenCascadePipeline:
    tokenizer, encoder = make_encoder(kind)
    return make_pipeline(**{"tokenizer": tokenizer, "text_encoder": encoder, "max_sequence_length": 128, **WITHOUT_SR, **changes})


@pytest.fixture(scope="module", params=MAKERS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    path = tmp_path_factory.mktemp(kind)
    cascade_of(kind).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def loaded(folder) -> ImagenCascadePipeline:
    """Of the folder; tests change nothing in it."""
    pipe = ImagenCascadePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def own(folder, loaded):
    """transformers' own tokenizer and encoder of the folder."""
    return AutoTokenizer.from_pretrained(folder / "tokenizer"), type(loaded.text_encoder).from_pretrained(folder / "text_encoder")


def image(pipe, **given) -> torch.Tensor:
    return pipe(**given, generator=seeded(), num_inference_steps=2, output_type="pt").images


def read_by(encoder: PreTrainedModel) -> list[dict[str, torch.Tensor]]:
    """What an encoder is given from now on."""
    seen: list = []
    encoder.register_forward_pre_hook(lambda _, args, given: seen.append(given), with_kwargs=True)
    return seen


def by_transformers(own, prompts: list[str], **options) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each prompt's tokens and embeddings, without padding, by a tokenizer's and an encoder's own calls."""
    tokenizer, encoder = own
    batch = tokenizer(prompts, padding=True, return_tensors="pt", **options)
    with torch.no_grad():
        hidden = encoder(**batch).last_hidden_state
    keep = batch["attention_mask"].bool()
    return [(ids[m], embeds[m]) for ids, embeds, m in zip(batch["input_ids"], hidden, keep, strict=True)]


def test_saved_and_loaded_it_is_the_same(kind, folder, loaded) -> None:
    made, index = cascade_of(kind), json.loads((folder / "model_index.json").read_text())
    assert index["text_encoder"] == ["transformers", type(made.text_encoder).__name__]
    assert f"Prompts are read by a frozen `{type(made.text_encoder).__name__}`, 32 wide." in (folder / "README.md").read_text()
    assert type(loaded.text_encoder) is type(made.text_encoder)
    prompts = ["a red cube", "a blue sphere on the left"]
    for one, other in zip(made.encode_prompt(prompts), loaded.encode_prompt(prompts), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(image(loaded, prompt="a red cube"), image(made, prompt="a red cube"))
    assert not torch.equal(image(loaded, prompt="a red cube"), image(loaded, prompt="a blue sphere"))


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1], PROMPTS[1:2]], ids=["batch", "alone", "short and alone"])
def test_tokens_and_embeddings_are_transformers_own(kind, loaded, own, prompts) -> None:
    seen = read_by(own_encoder := make_encoder(kind)[1])
    text = encode(prompts, loaded.tokenizer, own_encoder, 128)
    expected = by_transformers(own, prompts)
    for row, (ids, embeds) in enumerate(expected):
        given, attention = seen[0]["input_ids"][row], seen[0]["attention_mask"][row]
        assert given[: len(ids)].tolist() == ids.tolist()  # first its tokens, whatever the side that a tokenizer pads on
        assert attention.tolist() == text.mask[row].tolist() == [1] * len(ids) + [0] * (len(given) - len(ids))
        # On the same side and as long the numbers are the same; on another one a rotation by places rounds otherwise.
        torch.testing.assert_close(text.embeds[row, : len(ids)], embeds, rtol=0, atol=1e-5 if kind == "Gemma" else 0)


def test_a_prompt_in_a_batch_is_what_it_is_alone(loaded) -> None:
    together = tokens(encode(PROMPTS, loaded.tokenizer, loaded.text_encoder, 128))
    for prompt, row in zip(PROMPTS, together, strict=True):
        alone = encode([prompt], loaded.tokenizer, loaded.text_encoder, 128)
        assert alone.mask.all()
        torch.testing.assert_close(row, alone.embeds[0], rtol=0, atol=1e-5)


def test_longer_prompts_are_cut_as_by_transformers(kind, loaded, own, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        text = encode([LONG, "a red cube"], loaded.tokenizer, loaded.text_encoder, 6)
    for row, (_, embeds) in zip(tokens(text), by_transformers(own, [LONG, "a red cube"], truncation=True, max_length=6), strict=True):
        torch.testing.assert_close(row, embeds, rtol=0, atol=1e-5 if kind == "Gemma" else 0)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("The text encoder reads 6 tokens of a prompt; this part was dropped: ")
    assert caplog.messages[0].rstrip('"').replace(" ", "").endswith("ofthebluecube")


@pytest.mark.parametrize(("kind", "places"), [("BERT", 16), ("CLIP", 10)])
def test_an_encoder_reads_as_much_as_it_has_places_for(kind, places, caplog) -> None:
    pipe = cascade_of(kind)
    with caplog.at_level(logging.WARNING):
        embeds = pipe.encode_prompt(f"{LONG} {LONG}")[0]
    assert embeds.shape[1] == places
    assert f"The text encoder reads {places} tokens of a prompt; this part was dropped" in caplog.text
    padded = cascade_of(kind, text_padding="max_length").encode_prompt("a cube")
    assert padded[0].shape[1] == places and padded[2].all()
    weighted = weighted_embeddings(pipe, f"{LONG} (red:2)")  # beyond
    assert torch.equal(weighted.embeds, pipe.encode_prompt(f"{LONG} red")[0])


def test_places_are_counted_as_the_encoder_counts_them() -> None:
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    roberta = RobertaModel(RobertaConfig(**sizes, max_position_embeddings=14)).eval()  # whose padding token is 1
    assert readable(128, roberta) == 12
    assert roberta(input_ids=torch.full((1, 12), 3)).last_hidden_state.shape[1] == 12
    with pytest.raises((IndexError, RuntimeError)):
        roberta(input_ids=torch.full((1, 13), 3))
    assert [readable(128, make_encoder(kind)[1]) for kind in MAKERS] == [128, 128, 16, 10, 64]


def test_a_lora_adapter_works_beside_it(folder, loaded, tmp_path) -> None:
    pipe = ImagenCascadePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    add_lora(pipe.unet, rank=2, seed=0)
    with torch.no_grad():
        for name, parameter in pipe.unet.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    pipe.save_lora_weights(tmp_path, unet_lora_layers=lora_layers(pipe.unet), unet_lora_adapter_metadata=lora_metadata(pipe.unet))
    adapted = image(pipe, prompt="a red cube")
    assert not torch.equal(image(loaded, prompt="a red cube"), adapted)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(tmp_path)
    assert torch.equal(image(pipe, prompt="a red cube"), adapted)


def test_embeddings_take_the_place_of_prompts(folder, loaded) -> None:
    prompts = ["a red cube left of the sphere", "a cube"]
    embeds, _, mask, _ = loaded.encode_prompt(prompts)
    without = ImagenCascadePipeline.from_pretrained(folder, text_encoder=None, tokenizer=None)
    without.set_progress_bar_config(disable=True)
    given = {"prompt_embeds": embeds, "prompt_attention_mask": mask}
    assert torch.equal(image(without, **given), image(loaded, prompt=prompts))


def test_cached_text_is_what_it_says(folder, loaded, tmp_path) -> None:
    captions = ["a red cube left of the sphere", "a blue cube", "a cube"]
    done = list(write_text_cache(tmp_path, captions, loaded.tokenizer, loaded.text_encoder, batch_size=2))
    assert done[-1] == 3
    without = ImagenCascadePipeline.from_pretrained(folder, text_encoder=None)
    data = DataSettings(train_data_dir=tmp_path, text_cache=tmp_path)
    cache = open_text_cache(without, ModelSettings(pretrained_model_name_or_path=str(folder)), data)
    assert cache is not None and without.text_encoder is None
    for caption in captions:
        alone = loaded.encode_prompt(caption)[0][0]
        assert cache(caption).shape == alone.shape
        torch.testing.assert_close(cache(caption).float(), alone, rtol=2**-8, atol=1e-5)  # bfloat16 keeps 8 bits


def test_another_encoders_cache_is_refused(kind, loaded, tmp_path) -> None:
    list(write_text_cache(tmp_path, ["a cube"], loaded.tokenizer, loaded.text_encoder))
    tokenizer, other = make_encoder(kind)
    assert TextCache(tmp_path, fingerprint(tokenizer, other))
    with torch.no_grad():
        next(weight for name, weight in other.named_parameters() if "layer" in name or "block" in name).mul_(1.5)
    with pytest.raises(ValueError, match="written by another text encoder"):
        TextCache(tmp_path, fingerprint(tokenizer, other))


def test_tokens_around_a_text_are_part_of_a_fingerprint() -> None:
    tokenizer, encoder = make_encoder("Gemma")
    other, _ = make_encoder("Gemma")
    other.backend_tokenizer.post_processor = None
    assert fingerprint(tokenizer, encoder) != fingerprint(other, encoder)


def test_a_stage_is_trained_on_what_it_is_sampled_with(kind, tmp_path) -> None:
    pipe = cascade_of(kind)
    embeds = pipe.encode_prompt("A RED cube")[0]
    for row in tokens(shown(pipe, tmp_path, 0.0)):
        torch.testing.assert_close(row, embeds[0], rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_the_command_and_the_scripts_put_it_in_place_of_the_cascades(cascade, images, tmp_path) -> None:  # noqa: F811
    tokenizer, encoder = make_encoder("Gemma")
    tokenizer.save_pretrained(tmp_path / "own")
    encoder.save_pretrained(tmp_path / "own")
    words = ["encode-text", images, "--output", tmp_path / "text", "--model", cascade, "--text-encoder", tmp_path / "own"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    cached = ["--train_data_dir", images, "--text_cache", tmp_path / "text"]
    finetune_domain.main(flags(cascade, 1, tmp_path / "whole", *cached, "--text_encoder", tmp_path / "own", "--stages", 1))
    trained = ImagenCascadePipeline.from_pretrained(tmp_path / "whole")
    embeds = encode(["a red cube"], tokenizer, encoder, 12).embeds
    assert torch.equal(trained.encode_prompt("a red cube")[0], embeds)
    torch.testing.assert_close(
        TextCache(tmp_path / "text", fingerprint(tokenizer, encoder, SHORT))("a red cube").float(), embeds[0], rtol=2**-8, atol=1e-5
    )
    with pytest.raises(ValueError, match="written by another text encoder"):
        finetune_domain.main(flags(cascade, 1, tmp_path / "other", *cached, "--stages", 1))


def test_weights_of_words_hide_them_from_the_others(kind) -> None:
    tokenizer, encoder = make_encoder(kind)
    pipe = cascade_of(kind, text_encoder=encoder.double())
    plain = pipe.encode_prompt("a red cube")[0]
    assert torch.equal(weighted_embeddings(pipe, "a (red:1) cube").embeds, plain)
    ids = tokenizer("a red cube")["input_ids"]
    at = tokenizer.convert_ids_to_tokens(ids).index(next(t for t in tokenizer.convert_ids_to_tokens(ids) if "red" in t))
    nothing = {"T5": 1, "UMT5": 1, "BERT": 3, "CLIP": 1, "Gemma": 0}[kind]  # the end of a text, and Gemma's padding
    given = torch.tensor([[nothing if place == at else token for place, token in enumerate(ids)]])
    with torch.no_grad():
        hidden = encoder(input_ids=given, attention_mask=torch.tensor([[int(p != at) for p in range(len(ids))]])).last_hidden_state
    torch.testing.assert_close(weighted_embeddings(pipe, "a (red:0) cube").embeds, hidden, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weighted_embeddings(pipe, "a (red:2) cube").embeds, 2 * plain - hidden, rtol=1e-12, atol=1e-12)


def larger(kind: str) -> PreTrainedModel:
    """A model that holds an encoder of the kind, as the Hub has them."""
    config = make_encoder(kind)[1].config
    if kind == "CLIP":
        sizes = {
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        }
        return CLIPModel(CLIPConfig(text_config=config.to_dict(), vision_config={**sizes, "patch_size": 4}, projection_dim=8)).eval()
    if kind in ("T5", "UMT5"):
        config.is_encoder_decoder, config.decoder_start_token_id = True, 0
    classes = {"T5": T5ForConditionalGeneration, "UMT5": UMT5ForConditionalGeneration, "BERT": BertForMaskedLM, "Gemma": Gemma2ForCausalLM}
    return classes[kind](config).eval()


def test_the_encoder_of_a_larger_model_is_found_in_its_folder(kind, tmp_path) -> None:
    whole = larger(kind)
    whole.save_pretrained(tmp_path)
    encoder = load_text_encoder(tmp_path, dtype=torch.float32)
    assert type(encoder) is type(make_encoder(kind)[1])
    part = {"CLIP": "text_model", "BERT": "bert", "Gemma": "model"}.get(kind, "encoder")
    ids = torch.tensor([[0, 3, 5, 7, 1]])
    with torch.no_grad():
        expected = getattr(whole, part)(input_ids=ids).last_hidden_state
        assert torch.equal(encoder(input_ids=ids).last_hidden_state, expected)
    assert not any(weight.any() for name, weight in encoder.named_parameters() if "pooler" in name)  # which the larger BERT has not
    tokenizer = make_encoder(kind)[0]
    assert fingerprint(tokenizer, encoder, SHORT) == fingerprint(tokenizer, load_text_encoder(tmp_path), SHORT)


@pytest.mark.parametrize(("has", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_captions_are_encoded_in_bfloat16_where_a_gpu_multiplies_in_it(monkeypatch, has, expected) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or has)
    assert encoding_dtype("auto", "cuda:0") == expected
    assert encoding_dtype("auto", "cpu") == encoding_dtype("auto", "mps") == encoding_dtype("float32", "cuda") == torch.float32
    assert encoding_dtype("bfloat16", "cpu") == torch.bfloat16


def test_weights_of_another_model_are_no_encoder(tmp_path) -> None:
    encoder = make_encoder("BERT")[1]
    encoder.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({k: w for k, w in load_file(file).items() if "layer.1." not in k}, file, {"format": "pt"})
    with pytest.raises(OSError, match=r"lack 16 of BertModel's parameters, encoder\.layer\.1\."):
        load_text_encoder(tmp_path)
    BartConfig().save_pretrained(tmp_path / "bart")
    with pytest.raises(ValueError, match="bart holds no model whose text encoder transformers knows"):
        load_text_encoder(tmp_path / "bart")


def test_code_of_an_encoders_folder_is_not_run(tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.Mine"}}))
    (tmp_path / "configuration_mine.py").write_text("raise SystemExit('this was run')")
    with pytest.raises(ValueError, match="is a model with code of its own, which is not run here"):
        load_text_encoder(tmp_path)


def test_an_encoder_is_found_in_a_subfolder(tmp_path) -> None:
    make_encoder("BERT")[1].save_pretrained(tmp_path / "text_encoder")
    assert type(load_text_encoder(tmp_path, subfolder="text_encoder")).__name__ == "BertModel"


def test_a_clip_saved_under_its_first_names_is_loaded(tmp_path) -> None:
    made = cascade_of("CLIP")
    made.save_pretrained(tmp_path)
    file = tmp_path / "text_encoder" / "model.safetensors"
    first = "text_model."  # which transformers 5.0 writes still
    save_file({f"{first}{name.removeprefix(first)}": weight for name, weight in load_file(file).items()}, file, {"format": "pt"})
    pipe = ImagenCascadePipeline.from_pretrained(tmp_path)
    assert torch.equal(pipe.encode_prompt("a red cube")[0], made.encode_prompt("a red cube")[0])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("BERT", "BertForMaskedLM gives out no last_hidden_state; give a model that encodes text and no more, here BertModel"),
        ("Gemma", "Gemma2ForCausalLM gives out no last_hidden_state; give a model that encodes text and no more, here Gemma2Model"),
        ("CLIP", "CLIPModel reads pixel_values, too; give a model that encodes text and no more, here CLIPTextModel"),
        ("T5", "T5ForConditionalGeneration reads decoder_input_ids, too; give a model that encodes text and no more, here T5EncoderModel"),
    ],
)
def test_a_model_that_is_no_text_encoder_is_refused(kind, said) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        cascade_of(kind, text_encoder=larger(kind)).encode_prompt("a cube")


def test_a_whole_t5_is_refused() -> None:
    whole = T5Model(make_encoder("T5")[1].config)
    with pytest.raises(ValueError, match="T5Model reads decoder_input_ids, too"):
        cascade_of("T5", text_encoder=whole)("a cube")
    assert class_of(BartConfig()) is None


def test_an_encoder_that_overflows_is_told() -> None:
    tokenizer, encoder = make_encoder("Gemma")
    with torch.no_grad():
        encoder.norm.weight.fill_(1e5)
    assert encode(["a cube"], tokenizer, encoder.bfloat16(), 12).embeds.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="Gemma2Model gave NaN or infinite values in float16; load it in bfloat16 or float32"):
        encode(["a cube"], tokenizer, encoder.half(), 12)


def test_a_tokenizer_without_padding_pads_with_its_end_of_text() -> None:
    tokenizer, _ = make_encoder("Gemma")
    tokenizer.pad_token, tokenizer.backend_tokenizer.post_processor = None, None
    encoder = GPT2Model(GPT2Config(vocab_size=len(tokenizer), n_embd=TEXT_DIM, n_layer=2, n_head=4, bos_token_id=2, eos_token_id=1)).eval()
    seen = read_by(encoder)
    together = encode(["a red cube", "a"], tokenizer, encoder, 12)  # of learned places, which padding on the left would move
    torch.testing.assert_close(together.embeds[1, :1], encode(["a"], tokenizer, encoder, 12).embeds[0], rtol=0, atol=1e-5)
    assert seen[0]["input_ids"][1, 1:].eq(tokenizer.eos_token_id).all()
    with pytest.raises(ValueError, match='GemmaTokenizer makes no token of the prompt ""; give one with words'):
        encode(["a", ""], tokenizer, encoder, 12)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="GemmaTokenizer has no padding token and no end of text; set its pad_token"):
        encode(["a"], tokenizer, encoder, 12)
