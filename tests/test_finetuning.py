"""Where the parts of a fine-tuning are, and what they start from."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from accelerate import PartialState
from diffusers import UNet2DConditionModel
from PIL import Image

from examples import dreambooth, finetune_domain, finetune_style, train_stage
from imagen_diffusers import ImagenCascadeUpscalePipeline
from imagen_diffusers.finetuning import cascade as cascades
from imagen_diffusers.finetuning.beginning import check_beginning
from imagen_diffusers.finetuning.flags import ModelSettings, StageValidationSettings, run_script
from imagen_diffusers.finetuning.image_sets import image_set, image_settings
from imagen_diffusers.finetuning.one_stage import load_cascade, stages_held
from imagen_diffusers.finetuning.validating import held_out, image_maker
from imagen_diffusers.hub.upload import HubSettings, push_folder, reserve
from imagen_diffusers.images import labelled_grid
from imagen_diffusers.models.lora import add_lora, lora_layers
from imagen_diffusers.training.checkpoints import PROGRESS
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.image_folders import images_in
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.pyramid import ImageSettings, WindowSettings, build_pyramid
from imagen_diffusers.training.run_settings import TrainSettings

from .conftest import TEXT_DIM, make_base, make_pipeline, make_sr
from .test_data import encoded, noise_image
from .test_examples import cascade, flags, images  # noqa: F401 (fixtures)
from .test_losses import TABLE
from .test_sharing import Hub


def devices(pipe) -> set[str]:
    return {m.device.type for m in pipe.components.values() if isinstance(m, torch.nn.Module)}


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_cascade_is_loaded_to_the_device_of_the_process(cascade, monkeypatch, from_scratch) -> None:  # noqa: F811
    PartialState()
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("meta"))
    pipe = load_cascade(ModelSettings(pretrained_model_name_or_path=cascade, from_scratch=from_scratch))
    assert devices(pipe) == {"meta"}


@pytest.mark.parametrize("from_scratch", [False, True])
def test_of_stages_that_are_not_used_no_weights_are_there(cascade, from_scratch) -> None:  # noqa: F811
    model = ModelSettings(pretrained_model_name_or_path=cascade, from_scratch=from_scratch)
    whole, pipe = load_cascade(model), load_cascade(model, stage=2)
    where = {slot: module.device.type for slot, module in pipe.components.items() if isinstance(module, torch.nn.Module)}
    assert where == {"text_encoder": "cpu", "unet": "meta", "unet_2": "cpu", "unet_3": "meta"}
    assert image_settings(pipe, 2, WindowSettings()) == image_settings(whole, 2, WindowSettings())  # which the stage before's size tells
    loaded = [torch.equal(a, b) for a, b in zip(pipe.unet_2.parameters(), whole.unet_2.parameters(), strict=True)]
    assert from_scratch or all(loaded)


def test_images_before_and_after_are_generated_on_one_device(cascade, images, tmp_path, monkeypatch) -> None:  # noqa: F811
    PartialState()
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("meta"))
    seen = []
    monkeypatch.setattr("imagen_diffusers.finetuning.cascade.generate_examples", lambda pipe, *_, **__: seen.append(devices(pipe)) or [])
    monkeypatch.setattr("imagen_diffusers.finetuning.cascade.before_and_after", lambda *_: None)
    monkeypatch.setattr("imagen_diffusers.finetuning.cascade.fit_stages", lambda pipe, *_: pipe.unet.to("meta"))  # as accelerate does
    finetune_domain.main(flags(cascade, 1, tmp_path, "--train_data_dir", images, "--stages", 1, "--validation_prompts", "a red cube"))
    assert seen == [{"meta"}, {"meta"}]


@pytest.mark.filterwarnings("error:image= of ImagenCascadePipeline:FutureWarning")
@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_is_looked_at_alone(pipe, tmp_path, stage) -> None:
    prompts = ["a red cube", "a blue sphere"]
    files = [tmp_path / f"{n}.png" for n in range(len(prompts))] if stage == 2 else []
    for n, file in enumerate(files):
        noise_image(16, 16, n).save(file)
    look = image_maker(pipe, stage, StageValidationSettings(validation_prompts=prompts, validation_images=files), seed=1)
    assert look is not None
    enlarging = ImagenCascadeUpscalePipeline.from_pipe(pipe)
    expected = []
    for n, prompt in enumerate(prompts):
        given = {"generator": torch.Generator().manual_seed(1 + n), "stop_at": stage}
        one = pipe(prompt, **given) if stage == 1 else enlarging(prompt, image=noise_image(16, 16, n), start_at=2, **given)
        expected += one.images
    assert look(pipe.unet_of(stage)).tobytes() == labelled_grid(expected, prompts).tobytes()


def test_images_to_enlarge_are_on_white_where_they_are_transparent_as_those_that_are_trained_on(pipe, tmp_path) -> None:
    looks = []
    for name, image in (("clear", Image.new("RGBA", (16, 16))), ("white", Image.new("RGB", (16, 16), "white"))):
        image.save(tmp_path / f"{name}.png")
        given = StageValidationSettings(validation_prompts=["a red cube"], validation_images=[tmp_path / f"{name}.png"])
        look = image_maker(pipe, 2, given, seed=1)
        assert look is not None
        looks.append(look(pipe.unet_2).tobytes())
    assert looks[0] == looks[1]


@pytest.mark.gpu
def test_one_stage_is_fine_tuned_on_a_gpu(cascade, images, tmp_path) -> None:  # noqa: F811
    more = ["--train_data_dir", images, "--stages", 1, "--rank", 2, "--validation_prompts", "a red cube"]
    finetune_style.main(flags(cascade, 2, tmp_path, *more))
    assert (tmp_path / "before_and_after.png").exists()


def test_first_weights_depend_on_the_seed_alone(cascade) -> None:  # noqa: F811
    def adapter(seed: int) -> list[torch.Tensor]:
        unet = make_base()
        torch.rand(3)
        add_lora(unet, rank=2, seed=seed)
        return list(lora_layers(unet).values())

    def fresh(seed: int) -> list[torch.Tensor]:
        torch.rand(3)
        model = ModelSettings(pretrained_model_name_or_path=cascade, from_scratch=True)
        return [p for p in load_cascade(model, seed=seed).unet_2.parameters() if p.ndim > 1]

    for make in (adapter, fresh):
        one, two = make(1), make(1)
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(one, make(2), strict=True))


def test_new_layers_leave_the_global_state_as_it_was(cascade) -> None:  # noqa: F811
    unet = make_base()
    before = torch.get_rng_state()
    add_lora(unet, rank=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_time_is_limited_for_all_stages_together(cascade, images, tmp_path, monkeypatch, caplog) -> None:  # noqa: F811
    limits = []

    def fit_stage(pipe, stage, dataset, model, train, *_, **__) -> bool:
        limits.append(train.time_limit)
        time.sleep(0.1)
        return stage == 1  # the second stage runs out of time

    monkeypatch.setattr(cascades, "fit_stage", fit_stage)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    given = ["--train_data_dir", images, "--sr_crop_size", 32, "--push_to_hub", "--hub_model_id", "no/one"]
    finetune_domain.main(flags(cascade, 3, tmp_path, *given, "--time_limit", 1000))
    assert len(limits) == 2
    assert limits[1] < limits[0] - 0.1 < 1000
    assert not (tmp_path / "README.md").exists() and not (tmp_path / "model_index.json").exists()
    assert "the time limit was reached before the last step" in caplog.text and "with --resume_from_checkpoint latest" in caplog.text
    finetune_domain.main(flags(cascade, 3, tmp_path / "none", *given, "--time_limit", 0))
    assert len(limits) == 2
    clock = ["--time_limit", 9, "--lr_by_time", "--lr_scheduler", "cosine"]
    with pytest.raises(ValueError, match="lr_by_time gives one stage all the time that there is: name the one"):
        finetune_domain.main(flags(cascade, 3, tmp_path / "none", *given, *clock))


def test_an_unfinished_stage_is_not_shared(cascade, images, tmp_path, capsys) -> None:  # noqa: F811
    train_stage.main(flags(cascade, 3, tmp_path, "--train_data_dir", images, "--time_limit", 0))
    assert "time limit was reached" in capsys.readouterr().out
    assert (tmp_path / "checkpoint-1").exists() and not (tmp_path / "README.md").exists()
    train_stage.main(flags(cascade, 2, tmp_path, "--train_data_dir", images))
    assert (tmp_path / "README.md").exists()


@pytest.mark.thorough
def test_a_stage_whose_steps_were_taken_before_is_finished(cascade, images, tmp_path, capsys) -> None:  # noqa: F811
    """By a run of more steps, or by one in another folder, whose last checkpoint is gone on from."""
    first, second = tmp_path / "first", tmp_path / "second"
    train_stage.main(flags(cascade, 2, first, "--train_data_dir", images))
    (first / "README.md").unlink()
    train_stage.main(flags(cascade, 1, first, "--train_data_dir", images))
    elsewhere = flags(cascade, 2, second, "--train_data_dir", images)
    elsewhere[elsewhere.index("latest")] = str(first / "checkpoint-2")
    train_stage.main(elsewhere)
    assert "time limit" not in capsys.readouterr().out
    assert (first / "README.md").exists() and (second / "README.md").exists() and (second / "unet").is_dir()
    style = ["--train_data_dir", images, "--rank", 2, "--stages", 1]
    for steps in (2, 1):
        finetune_style.main(flags(cascade, steps, tmp_path / "style", *style))
        (tmp_path / "style" / "README.md").unlink()


@pytest.fixture
def folder(tmp_path):
    """Images of 20 and of 40 pixels, one that is cut short and one that is too small, in columns of their own names."""
    files = {f"{i}.png": encoded(noise_image(20 * (1 + i % 2), 20 * (1 + i % 2), i)) for i in range(5)}
    files["1.png"] = files["1.png"][:100]
    files["2.png"] = encoded(noise_image(8, 8))
    place = tmp_path / "folder"
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    lines = [{"file_name": name, "text": "wrong", "told": f"a cube {name[0]}"} for name in files]
    (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return place


def test_held_out_images_are_read_once_as_the_run_reads(folder, tmp_path, caplog) -> None:
    settings = StageValidationSettings(validation_data=folder)
    train = TrainSettings(tmp_path, 1, train_batch_size=3, max_sequence_length=5)
    data = DataSettings(train_data_dir=folder, caption_column="told", cache_dir=tmp_path / "cache")
    given = (make_pipeline(), 1, TABLE, settings, train, LossSettings(prediction_type="sample"))
    found = held_out(*given, data=data)
    assert [example["prompt"] for example in found.examples] == ["a cube 0", "a cube 3", "a cube 4"]
    assert "2 images of validation_data" in caplog.text and "1.png: it cannot be read" in caplog.text and "2.png: it is 8x8" in caplog.text
    assert (found.batch_size, found.text_rules.max_sequence_length) == (3, 5)
    larger = held_out(*given, data=data, crop=WindowSettings(resolution=32))
    assert [tuple(example["pixel_values"].shape) for example in larger.examples] == [(3, 32, 32)]
    expected = build_pyramid(noise_image(40, 40, 3), larger_settings := image_settings(given[0], 1, WindowSettings(resolution=32)))
    assert larger_settings.resolution == 32 and torch.equal(larger.examples[0]["pixel_values"], expected[0])
    with pytest.raises(ValueError, match="validation_data is nowhere, which is no folder"):
        held_out(*given[:3], StageValidationSettings(validation_data=Path("nowhere")), *given[4:], data=data)
    with pytest.raises(ValueError, match="none of the images of validation_data=.* can be used: .*smaller than"):
        held_out(*given, data=data, crop=WindowSettings(resolution=64))


def test_held_out_images_are_read_by_those_that_measure(folder, tmp_path, monkeypatch) -> None:
    data = DataSettings(train_data_dir=folder, caption_column="told", cache_dir=tmp_path / "cache")
    told = StageValidationSettings(validation_data=folder), TrainSettings(tmp_path, 1, train_batch_size=1, max_sequence_length=5)
    monkeypatch.setattr("imagen_diffusers.training.processes.this_process", lambda: SimpleNamespace(is_main_process=False))
    monkeypatch.setattr("imagen_diffusers.training.processes.as_main_says", lambda _: ([0, 3, 4], None))  # main has found them
    monkeypatch.setattr("imagen_diffusers.training.validation.place_in_group", lambda: (1, 2))
    pipe = make_pipeline()
    found = held_out(pipe, 1, TABLE, *told, LossSettings(prediction_type="sample"), data=data)
    found(pipe.unet.eval())
    assert found.examples._kept.keys() == {1} and found.examples[1]["prompt"] == "a cube 3"  # the second of three; in the last round again


def test_a_gray_cascade_reads_gray_images(folder, tmp_path) -> None:
    """Those that are trained on, those of a class, and those that are held out."""
    one = {"in_channels": 1, "out_channels": 1}
    pipe = make_pipeline(unet=make_base(**one), unet_2=make_sr(**one, low_res_channels=1))
    expected = build_pyramid(noise_image(40, 40, 3).convert("L").convert("RGB"), ImageSettings(32, 2))
    data = DataSettings(train_data_dir=folder, cache_dir=tmp_path / "cache")
    for prompt in (None, "a cube"):
        example = image_set(pipe, 2, data, WindowSettings(), prompt=prompt).visit(3, 0)
        for name, level in zip(("pixel_values", "low_res"), expected, strict=True):
            assert torch.equal(example[name], level[:1])
    told = StageValidationSettings(validation_data=folder), TrainSettings(tmp_path, 1, max_sequence_length=5)
    figures = held_out(pipe, 2, TABLE, *told, LossSettings(prediction_type="sample"), data=data)(pipe.unet_2)
    assert all(0 < figure < 100 for figure in figures.values())
    with pytest.raises(ValueError, match=r"images of 4 channels, and image files are read with 1 \(gray\) or 3 \(RGB\)"):
        image_settings(make_pipeline(unet=make_base(in_channels=4, out_channels=4)), 1, WindowSettings())


@pytest.mark.parametrize(
    ("script", "more", "words"),
    [
        (train_stage, ["--validation_prompts", "a red cube"], "do nothing without validation_steps"),
        (train_stage, ["--validation_data", "x"], "do nothing without validation_steps"),
        (train_stage, ["--validation_steps", 1], "nothing without validation_prompts or validation_data"),
        (train_stage, ["--stage", 2, "--validation_images", "x"], "validation_images are enlarged by a super-resolution stage"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(cascade, images, tmp_path, script, more, words) -> None:  # noqa: F811
    with pytest.raises(ValueError, match=words):
        script.main(flags(cascade, 2, tmp_path, "--train_data_dir", images, *more))
    assert not list(tmp_path.rglob("checkpoint-*"))


@pytest.mark.thorough
@pytest.mark.parametrize("streaming", [[], ["--streaming"], ["--streaming", "--exact_stream"]])
def test_images_of_all_stages_are_looked_at_before_the_first_is_trained(cascade, folder, tmp_path, streaming) -> None:  # noqa: F811
    given = ["--train_data_dir", folder, "--sr_crop_size", 32, "--cache_dir", tmp_path / "cache", "--rank", 2, *streaming]
    with pytest.raises(ValueError, match="smaller than the stage's 64x64.*; to train the others without stage 3, give --stages 1 2$"):
        finetune_style.main(flags(cascade, 1, tmp_path / "out", *given))
    assert not list((tmp_path / "out").rglob("checkpoint-*"))


@pytest.mark.thorough
def test_all_stages_that_a_cascade_holds_are_trained_by_default(images, tmp_path) -> None:  # noqa: F811
    make_pipeline(unet_3=None).save_pretrained(tmp_path / "two")
    more = ["--train_data_dir", images, "--rank", 2, "--sr_crop_size", 32]
    finetune_style.main(flags(str(tmp_path / "two"), 1, tmp_path / "out", *more))
    assert [folder.name for folder in sorted((tmp_path / "out").glob("stage-*"))] == ["stage-1", "stage-2"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`stages` | 1, 2" in card
    held = {name: stages_held(ModelSettings(name)) for name in ("imagen-scenes", "imagen-emoji")}
    assert held == {"imagen-scenes": [1, 2, 3], "imagen-emoji": [1, 2]}


def test_a_stage_above_a_network_of_another_kind_can_be_trained() -> None:
    base = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        in_channels=3,
        out_channels=3,
        cross_attention_dim=TEXT_DIM,
        norm_num_groups=8,
        layers_per_block=1,
    )
    settings = image_settings(make_pipeline(unet=base), 2, WindowSettings())
    assert (settings.resolution, settings.low_res_scale) == (32, 2)


def test_a_stage_of_no_whole_enlargement_is_not_trained_on_another_condition() -> None:
    pipe = make_pipeline(unet=make_base(sample_size=24))
    with pytest.raises(ValueError, match="stage 2 makes 32px of 24px; a stage is trained here where its size is a multiple"):
        image_settings(pipe, 2, WindowSettings())


def test_a_resolution_of_nothing_is_not_taken_for_the_stages_own() -> None:
    with pytest.raises(ValueError, match="resolution is 0"):
        image_settings(make_pipeline(), 1, WindowSettings(resolution=0))


def test_images_of_the_class_may_be_of_any_kind(tmp_path, monkeypatch) -> None:
    for name in ("a.jpg", "b.webp", "0001.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    subject = dreambooth.DreamBoothSettings(tmp_path, "x", True, "a cube", tmp_path, num_class_images=5, sample_batch_size=2)
    alone = SimpleNamespace(wait_for_everyone=lambda: None, process_index=0, num_processes=1, is_main_process=True)

    sizes = []

    class Pipe:
        def set_progress_bar_config(self, **_) -> None: ...

        def __call__(self, prompts, generator):
            sizes.append(len(prompts))
            return SimpleNamespace(images=[Image.new("RGB", (8, 8)) for _ in generator])

    for _ in range(2):
        assert dreambooth.generate_class(Pipe(), subject, alone)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["0000.png", "0001.png", "0002.png", "a.jpg", "b.webp"]
    (tmp_path / "0000.png").unlink()
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "b.webp").unlink()
    assert not dreambooth.generate_class(Pipe(), subject, alone, until=0.0)  # which is over
    with monkeypatch.context() as patch:  # another process, whose clock said so a moment earlier
        patch.setattr(dreambooth, "gather_object", lambda own: [*own, False])
        assert not dreambooth.generate_class(Pipe(), subject, alone)
    assert dreambooth.generate_class(Pipe(), subject, alone, until=0.0)  # all are there
    assert sizes == [2, 2, 1]

    def half(image, file, *_) -> None:
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt  # killed here

    there = images_in(tmp_path)
    there.pop().unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Image.Image, "save", half)
        dreambooth.generate_class(Pipe(), subject, alone)
    assert sorted(images_in(tmp_path)) == sorted(there)
    with pytest.raises(ValueError, match="sample_batch_size is 0"):
        dreambooth.DreamBoothSettings(tmp_path, "x", sample_batch_size=0)


OF_CLASS = ["--instance_prompt", "a sks cube", "--with_prior_preservation", "--class_prompt", "a cube"]
FAR = ["--instance_data_dir", "nowhere", "--instance_prompt", "a sks cube"]


@pytest.mark.parametrize(
    ("script", "more", "words"),
    [
        (train_stage, ["--train_data_dir", "nowhere"], "train_data_dir is nowhere, which is no folder"),
        (finetune_style, ["--train_data_dir", "{empty}"], "train_data_dir: no images in .*empty; put images there"),
        (dreambooth, FAR, "instance_data_dir is nowhere, which is no folder"),
        (train_stage, ["--train_data_dir", "{images}", "--output_dir", "{before}"], "holds checkpoint-3 of an earlier run; go on from it"),
        (finetune_domain, ["--train_data_dir", "{images}", "--output_dir", "{stages}"], "holds checkpoint-3 of an earlier run"),
        (
            train_stage,
            ["--train_data_dir", "{data}", "--validation_data", "{data}/held-out"],
            "validation_data is .* and train_data_dir .*beside",
        ),
        (train_stage, ["--train_data_dir", "{data}", "--validation_data", "{data}"], "validation_data is .* and train_data_dir .*beside"),
        (train_stage, ["--train_data_dir", "{data}/held-out", "--validation_data", "{data}"], "validation_data is .* put them beside"),
        (train_stage, ["--train_data_dir", "{data}", "--output_dir", "{data}/out"], "output_dir is .* and train_data_dir .*beside"),
        (
            dreambooth,
            [*OF_CLASS, "--instance_data_dir", "{data}", "--class_data_dir", "{data}/class"],
            "class_data_dir is .* put them beside",
        ),
        (
            finetune_domain,
            ["--train_data_dir", "{images}", "--stages", "1", "2", "--resume_from_checkpoint", "checkpoint-3"],
            "resume_from_checkpoint=checkpoint-3 is of one stage, and several are trained: name its stage",
        ),
        (
            finetune_domain,
            ["--train_data_dir", "{images}", "--stages", "1", "--resume_from_checkpoint", "checkpoint-9"],
            "resume_from_checkpoint=checkpoint-9 is no complete checkpoint",
        ),
        (finetune_style, ["--train_data_dir", "{images}", "--stages", "1", "2", "--resolution", "512"], "resolution is 512, and each"),
        (finetune_style, ["--train_data_dir", "{images}", "--push_to_hub"], 'the repository "new" cannot be made or written .who are you'),
    ],
)
def test_mistakes_are_said_before_anything_is_loaded(images, tmp_path, monkeypatch, script, more, words) -> None:  # noqa: F811
    empty, before = tmp_path / "empty", tmp_path / "stages" / "stage-1"
    empty.mkdir()
    (before / "checkpoint-3").mkdir(parents=True)
    (before / "checkpoint-3" / PROGRESS).write_text("{}")
    for place in ("data", "data/held-out"):
        (tmp_path / place).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / place / "0.png")
    places = {"images": images, "empty": empty, "before": before, "stages": before.parent, "data": tmp_path / "data"}
    monkeypatch.setattr(huggingface_hub, "HfApi", NoEntry)
    given = ["--max_train_steps", "1", "--output_dir", str(tmp_path / "new"), *(flag.format(**places) for flag in more)]
    with pytest.raises(ValueError, match=words):
        script.main(["--pretrained_model_name_or_path", "not-loaded", *given])


class NoEntry(Hub):
    """Knows nobody."""

    def create_repo(self, name, exist_ok):
        raise OSError("who are you\nand more")


class Unreachable(Hub):
    """What httpx raises without a network is no OSError."""

    def create_repo(self, name, exist_ok):
        raise type("ConnectError", (Exception,), {})("who are you")


class CutOff(Hub):
    """Goes away after the training."""

    def upload_folder(self, **told):
        raise type("ReadError", (Exception,), {})("who are you")


@pytest.mark.parametrize("hub", [NoEntry, Unreachable, CutOff])
def test_a_result_that_is_not_uploaded_is_safe(tmp_path, monkeypatch, hub) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    with pytest.raises(OSError, match=f"the result is whole in {tmp_path}, but it could not be uploaded: .*who are you"):
        push_folder(tmp_path, HubSettings(push_to_hub=True))


def test_without_a_network_a_repository_is_not_reserved(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Unreachable)
    with pytest.raises(ValueError, match="cannot be made or written .who are you.; go online, log in"):
        reserve(tmp_path, HubSettings(push_to_hub=True))


@pytest.mark.parametrize("error", [ValueError("train_data_dir is x,\n  no folder"), OSError("full"), FloatingPointError("NaN")])
def test_a_script_ends_in_a_sentence(monkeypatch, error) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert ended.value.code == f"Error: {' '.join(str(error).split())}"  # which the interpreter prints, and exits with 1
    monkeypatch.setattr("sys.argv", ["x.py", "--debug"])
    with pytest.raises(type(error)):
        run_script(main)


def test_what_is_wrong_with_the_program_shows_its_stack() -> None:
    def main() -> None:
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError):
        run_script(main)


def test_flags_are_refused_in_one_line_and_explained_once(capsys) -> None:
    least = ["--output_dir", "x", "--max_train_steps", "1", "--train_data_dir", "x"]
    for more, words in ((["--lr_scheduler", "cosin"], "invalid choice: 'cosin'"), (["--rank", "0"], "rank is 0; it must be at least 1")):
        with pytest.raises(SystemExit):
            finetune_style.main([*least, *more])
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
    with pytest.raises(SystemExit):
        finetune_style.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "The opposite of --use_ema." in said and "(default: True)" in said
    assert "(default: None)" not in said and "--debug" in said


def test_words_that_cannot_be_read_are_said_before_training(cascade, tmp_path, caplog) -> None:  # noqa: F811
    subject = tmp_path / "subject"
    subject.mkdir()
    for n in range(3):
        noise_image(64, 64, n).save(subject / f"{n}.png")
    named = ["--instance_data_dir", subject, "--instance_prompt", "a sks vase", "--rank", 2, "--stages", 1]
    dreambooth.main(flags(cascade, 1, tmp_path / "lora", *named))
    assert caplog.text.count("never saw: sks, vase.") == 1


def test_class_images_are_made_within_the_time_limit(cascade, images, tmp_path, caplog) -> None:  # noqa: F811
    more = ["--instance_data_dir", images, *OF_CLASS, "--class_data_dir", tmp_path / "class", "--time_limit", 0]
    dreambooth.main(flags(cascade, 1, tmp_path / "out", *more))
    assert "before all images of the class were there; the same command makes the others" in caplog.text
    assert not images_in(tmp_path / "class") and not (tmp_path / "out" / "stage-1").exists()


def test_what_was_written_is_said(cascade, images, tmp_path, capsys) -> None:  # noqa: F811
    finetune_style.main(flags(cascade, 1, tmp_path, "--train_data_dir", images, "--rank", 2, "--stages", 1, "--debug"))
    told = capsys.readouterr()
    assert f"written to {tmp_path}" in told.out
    assert "training unet 16px" in told.err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rank": 4, "from_scratch": True}, "from_scratch makes fresh weights"),
        ({"lora_alpha": 4.0}, "lora_alpha and lora_dropout are of an adapter"),
        ({"lora_dropout": 0.1}, "lora_alpha and lora_dropout are of an adapter"),
        ({"rank": 0}, "rank is 0; it must be at least 1 .train_stage and finetune_domain without it train whole networks"),
    ],
)
def test_what_an_adapter_is_not_is_said(given, words) -> None:
    with pytest.raises(ValueError, match=words):
        ModelSettings(**given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"class_prompt": "a cube"}, "with_prior_preservation, which class_prompt would be for, is not asked for"),
        ({"num_class_images": 5, "prior_loss_weight": 2.0}, "which num_class_images and prior_loss_weight would be for, is not asked for"),
        ({"num_class_images": 0}, "num_class_images is 0; it must be at least 1"),
        ({"prior_loss_weight": -1.0}, "prior_loss_weight is -1.0; it must be at least 0"),
    ],
)
def test_what_is_of_the_class_is_asked_about(tmp_path, given, words) -> None:
    with pytest.raises(ValueError, match=words):
        dreambooth.DreamBoothSettings(tmp_path, "x", **given)


@pytest.mark.thorough
def test_held_out_images_of_a_divided_folder_are_apart(cascade, images, tmp_path) -> None:  # noqa: F811
    """Of data/train and data/validation the first alone is trained on, whichever of data and data/train is named."""
    for name in ("train", "validation"):
        shutil.copytree(images, tmp_path / "data" / name)
    measured = ["--validation_data", tmp_path / "data" / "validation", "--validation_steps", 1]
    for i, place in enumerate((tmp_path / "data", tmp_path / "data" / "train")):
        train_stage.main(flags(cascade, 1, tmp_path / f"out-{i}", "--train_data_dir", place, *measured))
        assert (tmp_path / f"out-{i}" / "validation.jsonl").exists()


def test_folders_that_are_not_read_with_others_may_lie_in_them(tmp_path) -> None:
    """Of a folder of shards nothing else is read, and of one with a list of images these alone."""
    for name in ("shards", "listed"):
        (tmp_path / name / "held-out").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "held-out" / "0.png")
    (tmp_path / "shards" / "a.tar").touch()
    Image.new("RGB", (8, 8)).save(tmp_path / "listed" / "0.png")
    (tmp_path / "listed" / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a cube"}')
    for folder in (tmp_path / "shards", tmp_path / "listed"):
        train = TrainSettings(folder / "out", 1)
        check_beginning(train, HubSettings(), [train.output_dir], {"validation_data": folder / "held-out"}, train_data_dir=folder)
    inside = tmp_path / "shards" / "held-out"
    check_beginning(TrainSettings(tmp_path, 1), HubSettings(), [tmp_path], {"validation_data": tmp_path / "shards"}, train_data_dir=inside)


def test_a_cascade_of_one_stage_takes_what_is_of_one(images, tmp_path) -> None:  # noqa: F811
    make_pipeline(unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None).save_pretrained(tmp_path / "base")
    given = ["--train_data_dir", images, "--resolution", 32]
    finetune_domain.main(flags(str(tmp_path / "base"), 1, tmp_path / "out", *given))
    assert (tmp_path / "out" / "model_index.json").exists()
