"""A stage is trained on the text that it is sampled with: cleaned, padded and dropped alike, with an encoder or from a cache."""

from pathlib import Path

import pytest
import torch
from transformers import T5EncoderModel

from examples import finetune_domain, train_stage
from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.finetuning.flags import ModelSettings, StageValidationSettings
from imagen_diffusers.finetuning.one_stage import fit_stage, load_cascade
from imagen_diffusers.finetuning.text_encoding import null_text, open_text_cache, tokens_to_read
from imagen_diffusers.text.cleaning import _warn_once, clean_captions
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.text.prompts import TextRules
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.examples import Example
from imagen_diffusers.training.fingerprints import fingerprint
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.run_settings import TrainSettings
from imagen_diffusers.training.text_cache import TextCache, write_text_cache

from .conftest import SHORT, make_pipeline, make_text_encoder, make_tokenizer
from .test_examples import cascade, flags, images  # noqa: F401 (fixtures)
from .test_training import Squares

PROMPT = "A RED cube"  # its capitals are unknown to the tokenizer


class Told(Squares):
    def __init__(self, cache: TextCache | None = None):
        super().__init__()
        self.cache = cache

    def __getitem__(self, index: int) -> Example:
        example = Example(**{**super().__getitem__(index), "prompt": PROMPT})
        return example if self.cache is None else Example(**example, prompt_embeds=self.cache(PROMPT))


def shown(pipe: ImagenCascadePipeline, folder: Path, text_dropout: float, cache: TextCache | None = None) -> TextEmbedding:
    """What the base network is given in a step."""
    seen = []
    hook = pipe.unet.register_forward_pre_hook(
        lambda _, args, given: seen.append(TextEmbedding(given["encoder_hidden_states"], given["encoder_attention_mask"])),
        with_kwargs=True,
    )
    train = TrainSettings(output_dir=folder, max_train_steps=1, train_batch_size=2, report_to="none")
    loss = LossSettings(text_dropout=text_dropout)
    fit_stage(pipe, 1, Told(cache), ModelSettings(), train, loss, StageValidationSettings(), cache=cache)
    hook.remove()
    return seen[0]


def tokens(text: TextEmbedding) -> list[torch.Tensor]:
    return [row[mask] for row, mask in zip(text.embeds, text.mask, strict=True)]


RULES = [
    {"text_padding": "longest", "clean_caption": False, "null_text": "zeros"},
    {"text_padding": "max_length", "clean_caption": True, "null_text": "empty"},
    {"text_padding": "longest", "clean_caption": True, "null_text": "learned"},
]


@pytest.mark.parametrize("rules", RULES, ids=lambda r: r["null_text"])
def test_training_shows_what_sampling_shows(tmp_path, rules) -> None:
    pipe = make_pipeline(**rules)
    embeds, null_embeds, mask, null_mask = pipe.encode_prompt(PROMPT)
    for place, dropout, expected in (("text", 0.0, (embeds, mask)), ("none", 0.999, (null_embeds, null_mask))):
        for given in tokens(shown(pipe, tmp_path / place, dropout)):
            torch.testing.assert_close(given, tokens(TextEmbedding(*expected))[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rules", RULES, ids=lambda r: r["null_text"])
def test_cached_text_is_read_by_the_same_rules(tmp_path, rules) -> None:
    pipe = make_pipeline(**rules)
    embeds, null_embeds, mask, null_mask = pipe.encode_prompt(PROMPT)
    list(write_text_cache(tmp_path / "cache", [PROMPT, ""], pipe.tokenizer, pipe.text_encoder, rules=TextRules.of(pipe.config)))
    cache = open_text_cache(pipe, ModelSettings(), DataSettings(train_data_dir=tmp_path, text_cache=tmp_path / "cache"))
    pipe.text_encoder = None
    for place, dropout, expected in (("text", 0.0, (embeds, mask)), ("none", 0.999, (null_embeds, null_mask))):
        for row in tokens(shown(pipe, tmp_path / place, dropout, cache)):
            torch.testing.assert_close(row, tokens(TextEmbedding(*expected))[0], rtol=2**-8, atol=2**-8)  # bfloat16 keeps 8 bits


def test_captions_shorter_than_their_padding_in_sampling_are_refused(tmp_path) -> None:
    """Null text of another length would be padded with zeros, which a network that sees all padding takes for text."""
    pipe = make_pipeline(**RULES[1])
    given = (ModelSettings(), TrainSettings(tmp_path, 1, max_sequence_length=11), LossSettings(), StageValidationSettings())
    with pytest.raises(
        ValueError, match="max_sequence_length is 11, and .* see every caption padded to 12 tokens: set max_sequence_length to"
    ):
        fit_stage(pipe, 1, Told(), *given)
    assert [tokens_to_read(asked, TextRules.of(pipe.config)) for asked in (12, 128)] == [12, 12]
    assert tokens_to_read(11, TextRules.of(make_pipeline(**RULES[0]).config)) == 11  # what is cut off is masked in sampling


def test_a_cache_by_other_rules_is_refused(tmp_path) -> None:
    pipe = make_pipeline(text_padding="max_length")
    list(write_text_cache(tmp_path, [PROMPT], pipe.tokenizer, pipe.text_encoder, rules=SHORT))
    with pytest.raises(ValueError, match="or other rules"):
        open_text_cache(pipe, ModelSettings(), DataSettings(train_data_dir=tmp_path, text_cache=tmp_path))


def test_prompts_are_cleaned_once_and_what_is_missing_is_said_once(monkeypatch, caplog) -> None:
    seen = []
    monkeypatch.setattr("imagen_diffusers.text.prompts.clean_captions", lambda texts: seen.append(texts) or clean_captions(texts))
    monkeypatch.setattr("imagen_diffusers.text.cleaning.cleans", lambda: False)
    _warn_once.cache_clear()
    pipe = make_pipeline(clean_caption=True, text_padding="max_length")
    for _ in range(2):
        pipe.encode_prompt(PROMPT, negative_prompt="a cube")
    assert seen == [[PROMPT], ["a cube"]] * 2
    assert [record.name for record in caplog.records] == ["imagen_diffusers.text.cleaning"]
    assert 'pip install "imagen_diffusers[deepfloyd]"' in caplog.text
    assert clean_captions([" A RED cube "]) == ["a red cube"]


def test_whether_captions_were_cleaned_is_part_of_a_fingerprint(monkeypatch) -> None:
    given, prints = (make_tokenizer(), make_text_encoder()), {}
    for here in (False, True):
        monkeypatch.setattr("imagen_diffusers.training.fingerprints.cleans", lambda here=here: here)
        prints |= {(clean, here): fingerprint(*given, SHORT._replace(clean_caption=clean)) for clean in (False, True)}
    assert prints[False, True] == prints[False, False] and len(set(prints.values())) == 3


def test_a_cache_for_a_cascade_without_an_encoder_asks_for_one(tmp_path) -> None:
    make_pipeline(text_encoder=None).save_pretrained(tmp_path / "cascade")
    data = DataSettings(train_data_dir=tmp_path, text_cache=tmp_path / "text")
    model = ModelSettings(pretrained_model_name_or_path=str(tmp_path / "cascade"))
    with pytest.raises(ValueError, match="has no text encoder; give the one that its networks were trained with as text_encoder"):
        open_text_cache(load_cascade(model, text_encoder=False), model, data)


def test_no_text_needs_an_encoder_where_it_is_encoded() -> None:
    with pytest.raises(ValueError, match="load the pipeline with its text_encoder"):
        null_text(make_pipeline(null_text="empty", text_encoder=None, tokenizer=None))
    assert not null_text(make_pipeline(null_text="learned")).mask.any()


def test_a_fingerprint_is_the_same_from_files(tmp_path) -> None:
    encoder = make_text_encoder()
    encoder.save_pretrained(tmp_path / "whole")
    encoder.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    files = [sorted((tmp_path / name).glob("*.safetensors")) for name in ("whole", "shards")]
    assert len(files[1]) > 1
    assert {fingerprint(make_tokenizer(), given, SHORT) for given in (encoder, *files)} == {fingerprint(make_tokenizer(), encoder, SHORT)}
    with pytest.raises(ValueError, match="no T5 encoder in no files"):
        fingerprint(make_tokenizer(), [], SHORT)


@pytest.mark.thorough
def test_with_a_cache_the_text_encoder_is_not_loaded(cascade, images, tmp_path, monkeypatch) -> None:  # noqa: F811
    pipe = make_pipeline()
    list(write_text_cache(tmp_path / "text", ["a red cube", "a blue sphere"], pipe.tokenizer, pipe.text_encoder, rules=SHORT))
    loaded = []
    load = T5EncoderModel.from_pretrained.__func__
    monkeypatch.setattr(T5EncoderModel, "from_pretrained", classmethod(lambda cls, *a, **k: loaded.append(1) or load(cls, *a, **k)))
    more = ["--train_data_dir", images, "--text_cache", tmp_path / "text"]
    train_stage.main(flags(cascade, 1, tmp_path / "stage", *more))
    assert not loaded
    finetune_domain.main(flags(cascade, 1, tmp_path / "whole", *more, "--stages", 1))
    assert len(loaded) == 1  # at the end, since the cascade is saved in whole
    assert ImagenCascadePipeline.from_pretrained(tmp_path / "whole").text_encoder is not None
    loaded.clear()
    train_stage.main(flags(cascade, 1, tmp_path / "shown", *more, "--validation_steps", 1, "--validation_prompts", "a red cube"))
    assert len(loaded) == 1  # images of prompts need it


def test_a_cascade_without_its_encoder_is_loaded_so(cascade) -> None:  # noqa: F811
    pipe = load_cascade(ModelSettings(pretrained_model_name_or_path=cascade), text_encoder=False)
    assert pipe.text_encoder is None
    assert pipe.tokenizer is not None
