"""The control of emoji's language test: an encoder that has read nothing but captions, on tiny settings."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertForMaskedLM

from examples.emoji import control, data
from examples.emoji.data import EmojiDataset
from examples.emoji.things import Thing, write_things
from imagen_diffusers.text.encoders import load_text_encoder, load_tokenizer
from imagen_diffusers.text.encoding import encode

from .conftest import seeded

THINGS = [
    Thing("violin", "one.png", ("music", "bow"), "objects", meaning="a bowed instrument"),
    Thing("Piñata", "one.png", ("fête",), "objects", styles={"flat": "one.png"}),
    Thing("raised hand", "one.png", (), "people-body", tones=(("dark", "one.png"),), styles={"flat": "one.png"}),
]
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("things")
    Image.new("RGBA", (32, 32), (200, 30, 30, 255)).save(root / "one.png")
    write_things(root / "folder", THINGS, root)
    return root / "folder"


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    monkeypatch.setattr(control, "SIZES", TINY)
    monkeypatch.setattr(control, "PHRASED", 500)


@pytest.mark.thorough
def test_what_is_read_are_captions_as_visits_have_them(folder) -> None:
    dataset = EmojiDataset("base", folder)
    read = [dataset.read(2, number) for number in range(600)]
    shown = [dataset.visit(2, number)["prompt"] for number in range(600)]
    for word in ("flat", "3d", "dark skin tone", "background"):
        assert abs(sum(word in text for text in read) - sum(word in text for text in shown)) < 75, word  # three standard deviations
    assert {*read} != {*shown} and not any("flat" in dataset.read(1, number) for number in range(100))  # the first that has the style
    (kept,) = (name for index, name in dataset.held_out.items() if index == 2)
    assert not any(f" {kept}" in text for text in read)


def test_every_word_of_captions_has_a_token_and_no_other(folder) -> None:
    dataset = EmojiDataset("base", folder)
    tokenizer = control.build_tokenizer(dataset)
    for index in range(3):
        for number in range(100):
            assert tokenizer.unk_token_id not in tokenizer(dataset.visit(index, number)["prompt"])["input_ids"]
    assert tokenizer.tokenize("A pinata, a FETE and a fiddle") == ["a", "pinata", ",", "a", "fete", "[UNK]", "a", "[UNK]"]
    assert tokenizer("violin")["input_ids"] == [tokenizer.cls_token_id, tokenizer.vocab["violin"], tokenizer.sep_token_id]


def test_words_are_hidden_and_asked_for(folder) -> None:
    tokenizer = control.build_tokenizer(EmojiDataset("base", folder))
    ids = tokenizer(["a violin on a red background"] * 4000, return_tensors="pt")["input_ids"]
    shown, words = control.hidden(ids, len(tokenizer), seeded())
    asked = words >= 0
    assert torch.equal(words[asked], ids[asked]) and torch.equal(shown[~asked], ids[~asked])
    assert not asked[:, [0, -1]].any() and asked[:, 1:-1].float().mean() == pytest.approx(0.15, abs=0.01)
    shares = [(shown[asked] == token).float().mean() for token in (tokenizer.mask_token_id, tokenizer.unk_token_id)]
    assert shares == pytest.approx([0.7, 0.1], abs=0.02)
    kept = (shown[asked] == ids[asked]).float().mean()
    assert 0.09 < kept < 0.14  # a tenth, and a few of the other words are the same


@pytest.mark.thorough
def test_the_encoder_learns_captions(folder) -> None:
    dataset = EmojiDataset("base", folder)
    tokenizer = control.build_tokenizer(dataset)
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **TINY)).eval()
    unread = control.Reading(EmojiDataset("base", folder, seed=1), tokenizer, 64)
    before, usual = control.share_right(model, unread, 2)
    control.train(model, control.Reading(dataset, tokenizer, 32), 60, 5e-3)
    after, same = control.share_right(model, unread, 2)
    assert usual == same and before < usual < after - 0.1


def test_the_control_is_an_encoder_of_the_cascade(folder, tmp_path, capsys) -> None:
    made = tmp_path / "control"
    control.main([f"--folder={folder}", f"--output_dir={made}", "--max_train_steps=2", "--train_batch_size=2", "--count=4"])
    assert "words; of hidden ones in captions that were not read" in capsys.readouterr().out
    data.main([f"--folder={folder}", f"--encoder={made}"])
    tokenizer, encoder = (
        load_tokenizer(folder / "tokenizer"),
        load_text_encoder(folder / "text_encoder", variant="fp16", dtype=torch.float32),
    )
    assert len(tokenizer) == encoder.config.vocab_size and encoder.config.hidden_size == 32
    ours = load_text_encoder(made)
    with torch.no_grad():
        ids = tokenizer("a violin on red", return_tensors="pt")
        assert torch.allclose(encoder(**ids).last_hidden_state, ours(**ids).last_hidden_state, atol=1e-2)  # in half precision
    text = {"tokenizer": tokenizer, "text_encoder": encoder}
    violin, fiddle, whirlybird = encode(["a violin", "a fiddle", "a whirlybird"], **text, max_length=64).embeds
    assert torch.equal(fiddle, whirlybird) and not torch.equal(fiddle, violin)  # words that it has not read are one to it


def test_it_is_as_wide_and_deep_as_the_encoder_that_it_stands_beside(monkeypatch) -> None:
    monkeypatch.undo()
    minilm = load_text_encoder(Path("pipelines/imagen-emoji/text_encoder"), variant="fp16").config
    assert {name: getattr(minilm, name) for name in control.SIZES} == control.SIZES
