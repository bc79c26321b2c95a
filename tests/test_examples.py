"""Every example script runs: two steps with a checkpoint, then resumed, and its result loads."""

import json
import re
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image

from examples import dreambooth, finetune_domain, finetune_style, train_stage
from imagen_diffusers import ImagenCascadePipeline, ImagenUNet2DConditionModel
from imagen_diffusers.finetuning.flags import ModelSettings
from imagen_diffusers.finetuning.one_stage import load_cascade, noise_curve, null_text
from imagen_diffusers.schedulers.noise import beta_table, log_snr_shift_for, log_snr_table, shift_betas
from imagen_diffusers.text import encoding
from imagen_diffusers.text.encoding import encode
from imagen_diffusers.training.checkpoints import list_checkpoints
from imagen_diffusers.training.text_cache import fingerprint, write_text_cache

from .conftest import SHORT, make_pipeline, seeded
from .test_data import noise_image, tar
from .test_sharing import run_usage


@pytest.fixture(scope="module")
def cascade(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("cascade")
    make_pipeline().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("images")
    lines = []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (80, 72, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": "a red cube" if i % 2 else "a blue sphere"}))
    (path / "metadata.jsonl").write_text("\n".join(lines))
    return str(path)


def measured(images: str | Path, folder: Path, steps: int = 2) -> list[object]:
    """Flags to train on these images, and to measure on a copy of them in a folder."""
    return ["--train_data_dir", images, "--validation_data", copytree(images, folder / "held-out"), "--validation_steps", steps]


def flags(cascade: str, steps: int, output_dir, *more: object) -> list[str]:
    common = ["--pretrained_model_name_or_path", cascade, "--output_dir", output_dir, "--max_train_steps", steps]
    common += ["--train_batch_size", 2, "--checkpointing_steps", 1, "--resume_from_checkpoint", "latest", "--report_to", "none"]
    return [str(f) for f in [*common, *more]]


@pytest.mark.thorough
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_train_stage(cascade, images, tmp_path, stage, capsys) -> None:
    more = ["--train_data_dir", images, "--stage", stage]
    if stage == 1:
        more += ["--validation_steps", 2, "--validation_prompts", "a red cube", "a blue sphere"]
    for steps in (2, 3):
        train_stage.main(flags(cascade, steps, tmp_path, *more))
    assert [p.name for p in list_checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    slot, scheduler_slot = ImagenCascadePipeline.slots(stage)
    kind = type(getattr(make_pipeline(), slot))
    pipe = ImagenCascadePipeline.from_pretrained(cascade, **{slot: kind.from_pretrained(tmp_path, subfolder=slot)})
    assert pipe("a red cube", output_type="pt", generator=seeded()).images.shape == (1, 3, 64, 64)
    assert (tmp_path / scheduler_slot / "scheduler_config.json").exists()
    card = (tmp_path / "README.md").read_text()
    assert f'{kind.__name__}.from_pretrained("{tmp_path}", subfolder="{slot}")' in card
    assert "| `learning_rate` | 0.0001 |" in card
    if stage == 1:
        shown = tmp_path / "validation" / "step-000003.png"
        assert Image.open(shown).width == 2 * 128  # two of 16px, which the grid enlarges
        assert f"step 3: {shown}\n" in capsys.readouterr().out


@pytest.mark.thorough
@pytest.mark.parametrize("more", [["--aspect_buckets", "--dataloader_num_workers", 1], ["--exact_stream"]], ids=["parts", "exact"])
def test_train_stage_on_a_stream(cascade, images, tmp_path, more) -> None:
    place = ["--train_data_dir", images]
    if "--exact_stream" in more:
        for i in range(2):
            tar(tmp_path / "shards" / f"{i}.tar", [noise_image(20, 20, i)] * 2)
        place = ["--data_files", *sorted((tmp_path / "shards").iterdir())]
    for steps in (2, 3):
        train_stage.main(flags(cascade, steps, tmp_path, *place, "--streaming", *more))
    assert [p.name for p in list_checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    assert (tmp_path / "checkpoint-3" / "stream.json").exists() == ("--aspect_buckets" in more)


def test_train_stage_from_scratch_on_cached_text(cascade, images, tmp_path) -> None:
    pipe = load_cascade(ModelSettings(pretrained_model_name_or_path=cascade))
    cache, captions = tmp_path / "cache", ["a red cube", "a blue sphere"]
    list(write_text_cache(cache, captions, pipe.tokenizer, pipe.text_encoder, rules=SHORT))
    assert fingerprint(pipe.tokenizer, pipe.text_encoder, SHORT)
    more = ["--train_data_dir", images, "--from_scratch", "--text_cache", cache, "--prediction_type", "epsilon", "--weighting", "min_snr"]
    train_stage.main(flags(cascade, 2, tmp_path / "out", *more))
    with pytest.raises(ValueError, match="holds captions of up to 12 tokens.*set max_sequence_length to 12"):
        train_stage.main(flags(cascade, 2, tmp_path / "short", *more, "--max_sequence_length", 5))
    trained = ImagenUNet2DConditionModel.from_pretrained(tmp_path / "out", subfolder="unet")
    assert not any(torch.equal(a, b) for a, b in zip(trained.parameters(), pipe.unet.parameters(), strict=True) if a.ndim > 1)
    assert json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())["prediction_type"] == "epsilon"
    shown = run_usage(tmp_path / "out")["pipe"]
    assert pipe.scheduler.config.prediction_type == "sample" and shown.scheduler.config.prediction_type == "epsilon"


@pytest.mark.thorough
def test_finetune_style(cascade, images, tmp_path) -> None:
    more = ["--train_data_dir", images, "--rank", 2, "--sr_crop_size", 32, "--validation_prompts", "a red cube"]
    for steps in (2, 3):
        finetune_style.main(flags(cascade, steps, tmp_path, *more))
    assert [p.name for p in list_checkpoints(tmp_path / "stage-2")] == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    pipe = ImagenCascadePipeline.from_pretrained(cascade)
    before = pipe("a red cube", output_type="pt", generator=seeded()).images
    pipe.load_lora_weights(tmp_path)
    assert {s: len(a) for s, a in pipe.get_list_adapters().items()} == {"unet": 1, "unet_2": 1, "unet_3": 1}
    assert not torch.equal(pipe("a red cube", output_type="pt", generator=seeded()).images, before)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(tmp_path / "stage-2" / "checkpoint-1")
    assert set(pipe.get_list_adapters()) == {"unet_2"} and pipe.unet_2.peft_config["default_0"].lora_alpha == 2
    pipe.unload_lora_weights()
    assert torch.equal(pipe("a red cube", output_type="pt", generator=seeded()).images, before)
    assert (tmp_path / "before_and_after.png").exists()
    assert "load_lora_weights" in (tmp_path / "README.md").read_text()


def test_windows_of_stages_fit_into_all_shapes(cascade, tmp_path) -> None:
    wide = tmp_path / "wide"
    wide.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 120, 3)).astype(np.uint8)).save(wide / "a.png")
    (wide / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "a red cube"}))
    more = ["--train_data_dir", wide, "--rank", 2, "--stages", 2, "--aspect_buckets"]  # by default windows of 256
    finetune_style.main(flags(cascade, 1, tmp_path, *more))
    assert (tmp_path / "pytorch_lora_weights.safetensors").exists()


@pytest.mark.thorough
def test_finetune_domain(cascade, images, tmp_path, monkeypatch) -> None:
    computed_in, read = set(), encoding.last_hidden_state
    monkeypatch.setattr(encoding, "last_hidden_state", lambda encoder, *given: computed_in.add(encoder.dtype) or read(encoder, *given))
    more = ["--train_data_dir", images, "--stages", 1, 2, "--validation_prompts", "a red cube", "--text_encoder_dtype", "bfloat16"]
    for steps in (2, 3):
        finetune_domain.main(flags(cascade, steps, tmp_path, *more))
    assert computed_in == {torch.bfloat16}
    pipe = ImagenCascadePipeline.from_pretrained(tmp_path)
    kept = make_pipeline().text_encoder.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in pipe.text_encoder.state_dict().items())  # saved in float32
    assert pipe.stage_numbers == [1, 2, 3]
    assert not torch.equal(pipe.unet.head.conv.weight, make_pipeline().unet.head.conv.weight)
    assert torch.equal(pipe.unet_3.head.conv.weight, make_pipeline().unet_3.head.conv.weight)


@pytest.mark.thorough
def test_dreambooth(cascade, images, tmp_path) -> None:
    more = ["--instance_data_dir", images, "--instance_prompt", "a red cube", "--with_prior_preservation", "--class_prompt", "a cube"]
    more += ["--class_data_dir", tmp_path / "class", "--num_class_images", 2, "--rank", 2, "--stages", 1, 3]
    for steps in (2, 3):
        dreambooth.main(flags(cascade, steps, tmp_path / "out", *more))
    assert len(list((tmp_path / "class").glob("*.png"))) == 2
    pipe = ImagenCascadePipeline.from_pretrained(cascade)
    pipe.load_lora_weights(tmp_path / "out")
    assert set(pipe.get_list_adapters()) == {"unet", "unet_3"}


@pytest.mark.parametrize(
    ("script", "more", "words"),
    [
        (train_stage, ["--train_data_dir", "x", "--snr_gamma", 0], "positive cap"),
        (finetune_style, ["--train_data_dir", "x", "--snr_gamma", 5.0, "--weighting", "uniform"], "set weighting to min_snr"),
        (finetune_style, ["--train_data_dir", "x", "--crop_size", 32], "this script has no --crop_size (--help"),
        (finetune_style, ["--train_data_dir", "x", "--validation_images", "x"], "this script has no --validation_images"),
        (
            finetune_style,
            ["--train_data_dir", "x", "--validation_epochs=2", "--offload_ema"],
            "no --validation_epochs, --offload_ema; --validation_epochs: --validation_steps of train_stage.py says how often",
        ),
        (finetune_style, ["--train_data_dir", "x", "--num_train_epochs", 1], "max_train_steps is 2 and num_train_epochs 1, and each says"),
        (finetune_style, ["--train_data_dir", "x", "--lr=1e-3"], "this script has no --lr; --lr: give --learning_rate"),
        (train_stage, ["--train_data_dir", "x", "--stage=1", "y"], "this script has no y"),
        (train_stage, ["--text_encoder_dtype", "float16"], 'encoded in "float16"; use one of auto, float32, bfloat16'),
        (train_stage, [], "exactly one of train_data_dir"),
        (train_stage, ["--train_data_dir", ".", "--max_train_samples", -1], "max_train_samples is -1; it must be at least 1"),
        (train_stage, ["--train_data_dir", ".", "--shuffle_buffer", -1], "shuffle_buffer is -1; it must be at least 0"),
        (
            finetune_style,
            ["--train_data_dir", "x", "--validation_steps", 1],
            "validation_steps is 1, and stages trained one after the other",
        ),
        (finetune_style, ["--train_data_dir", "x", "--sr_crop_size", 0], "sr_crop_size is 0; it must be at least 1"),
        (finetune_style, ["--train_data_dir", "x", "--stages", 3, 3], "stages is 3 3; name one or more of the cascade's stages, each once"),
        (dreambooth, ["--instance_data_dir", "x", "--instance_prompt", "x", "--stages", 1, 2, 1], "stages is 1 2 1; name one or more"),
        (dreambooth, ["--instance_data_dir", "x", "--instance_prompt", "x", "--with_prior_preservation"], "needs class_prompt"),
    ],
)
def test_bad_flags_are_refused_in_words(cascade, tmp_path, capsys, script, more, words) -> None:
    with pytest.raises(SystemExit):
        script.main(flags(cascade, 2, tmp_path, *more))
    assert words in capsys.readouterr().err


def test_what_does_not_fit_the_checkpoint_is_refused(cascade, images, tmp_path) -> None:
    with pytest.raises(ValueError, match="this checkpoint says sample"):
        train_stage.main(flags(cascade, 2, tmp_path, "--train_data_dir", images, "--prediction_type", "epsilon"))
    with pytest.raises(ValueError, match=r"holds the stages \[1, 2, 3\]"):
        train_stage.main(flags(cascade, 2, tmp_path, "--train_data_dir", images, "--stage", 4))
    small = tmp_path / "small"
    small.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)).save(small / "a.png")
    (small / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "a cube"}))
    with pytest.raises(ValueError, match="20x20, smaller than the stage's 32x32"):
        train_stage.main(flags(cascade, 2, tmp_path / "out", "--train_data_dir", small, "--stage", 2))


def test_a_stage_is_trained_on_the_noise_it_is_sampled_with() -> None:
    pipe = make_pipeline()
    torch.testing.assert_close(noise_curve(pipe.scheduler), log_snr_table(beta_table("squaredcos_cap_v2")), rtol=1e-5, atol=1e-4)
    from imagen_diffusers import ImagenDDPMScheduler

    shift = log_snr_shift_for(256)
    shifted = log_snr_table(shift_betas(beta_table("squaredcos_cap_v2"), shift))
    torch.testing.assert_close(noise_curve(ImagenDDPMScheduler(log_snr_shift=shift)), shifted, rtol=1e-5, atol=1e-4)


def test_null_text_is_the_checkpoints_own() -> None:
    assert null_text(make_pipeline()) is None
    pipe = make_pipeline(null_text="empty")
    assert torch.equal(null_text(pipe).embeds, encode([""], pipe.tokenizer, pipe.text_encoder, 12).embeds)


@pytest.mark.thorough
def test_the_card_of_a_stages_adapter_loads_it(cascade, images, tmp_path) -> None:
    train_stage.main(flags(cascade, 1, tmp_path, "--train_data_dir", images, "--rank", 2))
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    found: dict = {}
    exec(code, found)
    assert set(found["pipe"].get_list_adapters()) == {"unet"}


def test_scripts_know_bundled_names_and_say_what_is_not_there(tmp_path) -> None:
    assert load_cascade(ModelSettings()).stage_numbers == [1, 2, 3]
    with pytest.raises(ValueError, match='"imagen-moon" is not there.*imagen-scenes'):
        load_cascade(ModelSettings(pretrained_model_name_or_path="imagen-moon"))
