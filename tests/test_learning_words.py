"""A word is learned from images: gradients reach its vectors alone, and a run that is cut equals one that is not."""

import json

import pytest
import torch
from safetensors.torch import load_file

from examples import textual_inversion
from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.finetuning import textual_inversion as learning
from imagen_diffusers.finetuning.textual_inversion import FILE, WordRun, WordSettings, beginning
from imagen_diffusers.text.encoding import encode
from imagen_diffusers.text.learned_words import input_table
from imagen_diffusers.text.prompts import TextRules, read_prompts
from imagen_diffusers.training.losses import LossSettings, StageLoss, draw, stage_loss
from imagen_diffusers.training.word_vectors import WordVectors

from .conftest import TEXT_DIM, make_pipeline
from .encoders import MAKERS
from .test_encoders import cascade_of
from .test_examples import cascade, flags, images  # noqa: F401 (fixtures)
from .test_training import Scaled, fit

PROMPTS = ["a <vase> on the cube", "a red sphere"]


@pytest.mark.parametrize("kind", MAKERS)
def test_prompts_are_read_as_ever_and_gradients_reach_the_vectors_alone(kind) -> None:
    """The gradient is that of the table's rows, which autograd finds where the table itself is learned."""
    pipe = cascade_of(kind)
    pipe.load_textual_inversion({"<vase>": torch.randn(2, TEXT_DIM, generator=torch.Generator().manual_seed(2))})
    rules, table = TextRules.of(pipe.config), input_table(pipe.text_encoder)
    words = WordVectors("<vase>", pipe.tokenizer, pipe.text_encoder, rules)
    assert [name for name, _ in words.named_parameters()] == ["vectors"]
    text, weight = words(PROMPTS), torch.randn(TEXT_DIM, generator=torch.Generator().manual_seed(3))
    said = read_prompts(PROMPTS, pipe.tokenizer, pipe.text_encoder, rules)
    # A vector is divided by the table's unit and multiplied again: one rounding of float32 each, which norms enlarge a little.
    torch.testing.assert_close(text.embeds, said.embeds, rtol=1e-5, atol=1e-5)
    assert torch.equal(text.mask, said.mask)
    (text.embeds @ weight).sum().backward()
    assert input_table(pipe.text_encoder).weight is table.weight and table.weight.grad is None
    own = words.vectors.grad.clone()

    table.weight.requires_grad_(True)
    plain = encode(PROMPTS, pipe.tokenizer, pipe.text_encoder, rules.max_sequence_length, gradient=True)
    (plain.embeds @ weight).sum().backward()
    torch.testing.assert_close(own, table.weight.grad[words.tokens] * words.unit, rtol=1e-4, atol=1e-5)

    with torch.no_grad():
        words.vectors.add_(0.5)
    words.write()
    torch.testing.assert_close(words(PROMPTS).embeds, read_prompts(PROMPTS, pipe.tokenizer, pipe.text_encoder, rules).embeds)


def word(folder, cascade, steps: int, images, *more) -> list[str]:  # noqa: F811
    asked = ["--train_data_dir", images, "--placeholder_token", "<mine>", "--initializer_token", "cube", "--num_vectors", 2]
    given = ["--pretrained_model_name_or_path", cascade, "--max_train_steps", steps, "--output_dir", folder, "--train_batch_size", 2]
    return [str(part) for part in (*given, *asked, *more)]


@pytest.mark.thorough
def test_a_run_that_is_cut_learns_what_one_that_is_not_does(cascade, images, tmp_path, capsys) -> None:  # noqa: F811
    shown = ["--validation_prompts", "a <mine>", "a red <mine>"]
    textual_inversion.main(word(tmp_path / "whole", cascade, 4, images, "--lr_scheduler", "linear", *shown))
    assert "after.png" in (tmp_path / "whole" / "README.md").read_text() and (tmp_path / "whole" / "after.png").exists()
    cut = tmp_path / "cut"
    textual_inversion.main(word(cut, cascade, 4, images, "--lr_scheduler", "linear", "--checkpointing_steps", 1, "--time_limit", 0))
    assert "--resume_from_checkpoint latest" in capsys.readouterr().out and not (cut / FILE).exists()
    with pytest.raises(ValueError, match="resume_from_checkpoint"):
        textual_inversion.main(word(cut, cascade, 4, images))
    textual_inversion.main(word(cut, cascade, 4, images, "--lr_scheduler", "linear", "--resume_from_checkpoint", cut / "checkpoint-1"))
    whole, resumed = load_file(tmp_path / "whole" / FILE), load_file(cut / FILE)
    assert list(whole) == ["<mine>"] and torch.equal(whole["<mine>"], resumed["<mine>"])
    assert not torch.equal(whole["<mine>"], load_file(cut / "checkpoint-1" / FILE)["<mine>"])

    pipe = ImagenCascadePipeline.from_pretrained(cascade)
    pipe.load_textual_inversion(cut)
    assert torch.equal(input_table(pipe.text_encoder).weight[-2:], whole["<mine>"])
    card = (cut / "README.md").read_text()
    assert (
        f"pipe.load_textual_inversion({json.dumps(str(cut))})" in card and "textual_inversion" in card and "| `placeholder_token` |" in card
    )


@pytest.mark.parametrize("stage", [1, 2])
def test_learning_lowers_the_error_and_changes_no_network(stage, tmp_path, monkeypatch) -> None:
    losses, pipe, like = [], make_pipeline(), make_pipeline()
    monkeypatch.setattr(learning, "draw", lambda shape, *_, **k: draw(shape, range(2), range(2), LossSettings(), **k))  # the same noise

    def kept(*args, **kwargs) -> StageLoss:
        loss = stage_loss(*args, **kwargs)
        losses.append(loss.losses.mean().item())
        return loss

    monkeypatch.setattr(learning, "stage_loss", kept)
    size = 16 * stage
    image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(4)) * 2 - 1
    given = {"pixel_values": image} | ({"low_res": image[:, ::2, ::2]} if stage == 2 else {})
    asked = WordSettings(tmp_path, "<mine>", "cube", templates=["a {}"])
    run = WordRun(tmp_path, max_train_steps=8, train_batch_size=2, learning_rate=0.3, lr_scheduler="constant")
    assert learning.learn_word(pipe, stage, [given], asked, run, LossSettings(text_dropout=0.0))
    assert losses[-1] < losses[0]
    for slot in ("unet", "unet_2", "unet_3"):
        pairs = zip(getattr(pipe, slot).parameters(), getattr(like, slot).parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_a_checkpoint_is_gone_on_from_by_its_folder_and_by_the_same_run_alone(tmp_path) -> None:
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(4)) * 2 - 1

    def learn(steps: int, count: int = 1, pipe=None, **more) -> bool:
        asked = WordSettings(tmp_path, "<mine>", "cube", num_vectors=count)
        run = WordRun(tmp_path, max_train_steps=steps, train_batch_size=2, **more)
        return learning.learn_word(pipe or make_pipeline(), 1, [{"pixel_values": image}], asked, run, LossSettings(text_dropout=0.0))

    learn(1)
    there = str(tmp_path / "checkpoint-1")
    with pytest.raises(ValueError, match="num_vectors=1 there and 2 here; go on with what is there"):
        learn(2, count=2, resume_from_checkpoint="latest")
    with pytest.raises(ValueError, match="seed=0 there and 1 here"):
        learn(2, seed=1, resume_from_checkpoint=there)
    other = make_pipeline()
    next(other.unet.parameters()).data.mul_(1.5)
    with pytest.raises(ValueError, match="the frozen weights of pretrained_model_name_or_path, its revision and variant="):
        learn(2, pipe=other, resume_from_checkpoint=there)
    other = make_pipeline()
    next(other.text_encoder.parameters()).data.mul_(1.5)
    with pytest.raises(ValueError, match="another run: the digest of text_encoder="):
        learn(2, pipe=other, resume_from_checkpoint=there)
    assert learn(2, resume_from_checkpoint=there) and (tmp_path / "checkpoint-2").is_dir()
    with pytest.raises(ValueError, match="checkpoint-2 is of a run that trained no network, but a word; choose another output_dir"):
        fit(tmp_path, 3)
    (tmp_path / "checkpoint-2" / FILE).unlink()
    with pytest.raises(ValueError, match="is of a run that learned no word; choose another output_dir"):
        learn(3, resume_from_checkpoint="latest")


def test_the_scale_of_fp16_is_gone_on_with(tmp_path, monkeypatch) -> None:
    image, scales = torch.zeros(3, 16, 16), []

    class Growing(Scaled):
        def __init__(self, **given) -> None:
            super().__init__(**given)
            self.scaler.set_growth_interval(1)

    monkeypatch.setattr(learning, "Accelerator", Growing)
    for steps in (1, 2):
        run = WordRun(tmp_path, max_train_steps=steps, train_batch_size=1, resume_from_checkpoint="latest")
        learning.learn_word(make_pipeline(), 1, [{"pixel_values": image}], WordSettings(tmp_path, "<mine>", "cube"), run, LossSettings())
        scales.append(json.loads((tmp_path / f"checkpoint-{steps}" / "progress.json").read_text())["scaler"]["scale"])
    assert scales == [8.0, 16.0]


def test_the_word_begins_with_the_initializer(tmp_path) -> None:
    pipe = make_pipeline()
    row = input_table(pipe.text_encoder).weight.detach()
    red, cube = pipe.tokenizer.convert_tokens_to_ids(["red", "cube"])

    def begun(initializer: str, count: int | None = None) -> torch.Tensor:
        return beginning(pipe, WordSettings(tmp_path, "<mine>", initializer, num_vectors=count))

    assert torch.equal(begun("red cube"), row[[red, cube]]) and torch.equal(begun("red cube", 3), row[[red, cube, red]])
    with pytest.raises(ValueError, match='initializer_token is "vase", which the tokenizer does not know'):
        begun("vase")
    with pytest.raises(ValueError, match="a word is learned by a text encoder, and this cascade has none"):
        beginning(ImagenCascadePipeline(), WordSettings(tmp_path, "<mine>", "cube"))
    with pytest.raises(ValueError, match="this cascade has none; give one by text_encoder"):
        asked = (WordSettings(tmp_path, "<mine>", "cube"), WordRun(tmp_path / "run"), LossSettings())
        learning.learn_word(make_pipeline(tokenizer=None, text_encoder=None), 1, [], *asked)
    with pytest.raises(ValueError, match="num_vectors is 0; it must be at least 1"):
        WordSettings(tmp_path, "<mine>", "cube", num_vectors=0)
    with pytest.raises(ValueError, match='templates: "a vase" must have {} once'):
        WordSettings(tmp_path, "<mine>", "cube", templates=["a vase"])
    with pytest.raises(ValueError, match="learning_rate is 0"):
        WordRun(tmp_path, learning_rate=0)
    said = [WordSettings(tmp_path, "<mine>", "cube", learnable_property="style").caption(n) for n in range(4)]
    assert len({*said}) == 4 and all("style of <mine>" in caption for caption in said)
