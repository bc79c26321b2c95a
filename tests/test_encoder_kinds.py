"""Encoders that differ from the five kinds of test_encoders.py in what a class, a width, a place or a weight file is."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.finetuning.flags import ModelSettings
from imagen_diffusers.finetuning.text_encoding import load_text_encoder as load_for_training
from imagen_diffusers.finetuning.text_encoding import open_text_cache
from imagen_diffusers.text.encoders import class_of, load_text_encoder, readable
from imagen_diffusers.text.encoding import last_hidden_state
from imagen_diffusers.text.prompts import TextRules
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.fingerprints import fingerprint
from imagen_diffusers.training.text_cache import TextCache, write_text_cache

from .conftest import TEXT_DIM
from .encoders import SIZES, make_encoder
from .test_encoders import cascade_of

VOCABULARY = {"vocab_size": 400}
DECODER = {**VOCABULARY, **SIZES, "head_dim": 8, "num_key_value_heads": 1}
IMAGES = {**SIZES, "image_size": 8, "patch_size": 4}
LONG_T5 = {"d_model": TEXT_DIM, "d_kv": 8, "num_heads": 4, "d_ff": 32, "num_layers": 1, "local_radius": 4}
OPT = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}

# By the name of a class: how its configuration is made, where its text encoder is in it, and how many tokens that reads.
KINDS = {
    "LongT5Model": (lambda: transformers.LongT5Config(**VOCABULARY, **LONG_T5), "encoder", 10**6),
    "T5GemmaModel": (lambda: transformers.T5GemmaConfig(encoder=dict(DECODER), decoder=dict(DECODER)), "encoder", 10**6),
    "SiglipModel": (
        lambda: transformers.SiglipConfig(text_config={**VOCABULARY, **SIZES, "max_position_embeddings": 16}, vision_config=dict(IMAGES)),
        "text_model",
        16,
    ),
    "Gemma3ForConditionalGeneration": (
        lambda: transformers.Gemma3Config(text_config=dict(DECODER), vision_config=dict(IMAGES)),
        "model.language_model",
        131072,
    ),
    "XLNetModel": (lambda: transformers.XLNetConfig(**VOCABULARY, d_model=16, n_layer=1, n_head=2, d_inner=16), "", 10**6),
    "IBertModel": (lambda: transformers.IBertConfig(**VOCABULARY, **SIZES, max_position_embeddings=14), "", 12),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_of_a_model_is_found(kind, tmp_path) -> None:
    make_config, part, places = KINDS[kind]
    torch.manual_seed(0)
    whole = getattr(transformers, kind)(make_config()).eval()
    whole.save_pretrained(tmp_path)
    encoder = load_text_encoder(tmp_path, dtype=torch.float32).eval()
    assert readable(10**6, encoder) == places
    ids, attention = torch.tensor([[4, 3, 5, 7, 1]]), torch.tensor([[1, 1, 1, 1, 0]])
    with torch.no_grad():
        expected = whole.get_submodule(part)(input_ids=ids, attention_mask=attention).last_hidden_state
        assert torch.equal(last_hidden_state(encoder, ids, attention), expected)


@pytest.mark.parametrize("config", [transformers.ViTConfig, transformers.Speech2TextConfig, transformers.BartConfig])
def test_a_model_of_images_or_speech_has_no_text_encoder(config) -> None:
    assert class_of(config()) is None


def test_an_encoder_that_lacks_weights_is_named(tmp_path) -> None:
    whole = transformers.T5GemmaModel(KINDS["T5GemmaModel"][0]())
    whole.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({k: w for k, w in load_file(file).items() if k != "encoder.norm.weight"}, file, {"format": "pt"})
    with pytest.raises(OSError, match="lack 1 of T5GemmaEncoderModel's parameters"):
        load_text_encoder(tmp_path)


def test_a_cascade_without_an_encoder_asks_for_one(tmp_path) -> None:
    cascade_of("BERT", text_encoder=None).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no text encoder; give the one that its networks were trained with"):
        load_for_training(ModelSettings(pretrained_model_name_or_path=str(tmp_path)))


def test_the_precision_of_a_part_is_no_part_of_a_fingerprint(tmp_path) -> None:
    transformers.T5GemmaModel(KINDS["T5GemmaModel"][0]()).save_pretrained(tmp_path)
    tokenizer = make_encoder("T5")[0]
    prints = {fingerprint(tokenizer, load_text_encoder(tmp_path, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)}
    assert len(prints) == 1


def mixture() -> PreTrainedModel:
    """Its experts are in one tensor, and in its files one by one."""
    return transformers.MixtralModel(transformers.MixtralConfig(**VOCABULARY, **SIZES, num_key_value_heads=1, num_local_experts=2)).eval()


def test_a_mixture_of_experts_is_saved_and_loaded(tmp_path) -> None:
    made = cascade_of("Gemma", text_encoder=mixture())
    made.save_pretrained(tmp_path)
    loaded = ImagenCascadePipeline.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode_prompt("a red cube")[0], made.encode_prompt("a red cube")[0])


def test_experts_that_lack_are_missed(tmp_path) -> None:
    cascade_of("Gemma", text_encoder=mixture()).save_pretrained(tmp_path)
    file = tmp_path / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    save_file({k: w for k, w in weights.items() if "experts" not in k}, file, {"format": "pt"})
    with pytest.raises(OSError, match="lack 4 of its network's parameters"):
        ImagenCascadePipeline.from_pretrained(tmp_path)


def test_a_width_is_that_of_what_an_encoder_gives_out(tmp_path) -> None:
    encoder = transformers.OPTModel(transformers.OPTConfig(**VOCABULARY, **OPT, word_embed_proj_dim=TEXT_DIM)).eval()
    pipe = cascade_of("Gemma", text_encoder=encoder)
    pipe.save_pretrained(tmp_path / "cascade")
    assert "Prompts are read by a frozen `OPTModel`, 32 wide." in (tmp_path / "cascade" / "README.md").read_text()
    rules = TextRules.of(pipe.config)
    list(write_text_cache(tmp_path / "text", ["a red cube"], pipe.tokenizer, encoder, rules=rules))
    cached = TextCache(tmp_path / "text", fingerprint(pipe.tokenizer, encoder, rules))("a red cube")
    torch.testing.assert_close(cached.float(), pipe.encode_prompt("a red cube")[0][0], rtol=2**-8, atol=1e-5)


def test_a_cache_of_the_cascades_own_class_and_precision_is_taken(tmp_path) -> None:
    tokenizer, encoder = make_encoder("CLIP")
    projecting = transformers.CLIPTextModelWithProjection(encoder.config).eval()
    cascade_of("CLIP", text_encoder=projecting).save_pretrained(tmp_path / "cascade")
    config = tmp_path / "cascade" / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float16"}))  # as files of the Hub have it
    list(write_text_cache(tmp_path / "text", ["a cube"], tokenizer, projecting))
    pipe = ImagenCascadePipeline.from_pretrained(tmp_path / "cascade", text_encoder=None)
    model = ModelSettings(pretrained_model_name_or_path=str(tmp_path / "cascade"))
    assert open_text_cache(pipe, model, DataSettings(train_data_dir=tmp_path, text_cache=tmp_path / "text"))
    assert type(load_for_training(model)) is type(projecting) and load_for_training(model).dtype == torch.float32


def test_heads_and_case_are_part_of_a_fingerprint() -> None:
    tokenizer, encoder = make_encoder("BERT")
    first = fingerprint(tokenizer, encoder)
    encoder.config.num_attention_heads = 2
    assert fingerprint(tokenizer, encoder) != first
    encoder.config.num_attention_heads = 4
    assert fingerprint(tokenizer, encoder) == first
    vocabulary = tokenizer.get_vocab()
    assert fingerprint(type(tokenizer)(vocab=vocabulary, do_lower_case=False, model_max_length=16), encoder) != first


def test_a_decoder_keeps_nothing_to_write_on_from() -> None:
    encoder = make_encoder("Gemma")[1]
    kept = []
    encoder.register_forward_hook(lambda _, args, out: kept.append(out.past_key_values))
    last_hidden_state(encoder, torch.tensor([[4, 3]]), torch.ones(1, 2))
    assert kept == [None]
