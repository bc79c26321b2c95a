"""What is looked at before a pipeline is loaded: variants, formats, damage; and what is said meanwhile."""

import os
import pickle
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from imagen_diffusers import (
    ImagenCascadePipeline,
    ImagenDDPMScheduler,
    ImagenEfficientUNet2DConditionModel,
    ImagenUNet2DConditionModel,
    bundled,
)
from imagen_diffusers.finetuning import text_encoding
from imagen_diffusers.finetuning.flags import ModelSettings
from imagen_diffusers.finetuning.one_stage import load_cascade
from imagen_diffusers.models.weight_files import sole_variant, weight_files

from .conftest import make_base, make_pipeline, seeded
from .test_deepfloyd import base_network

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cascade")
    make_pipeline().save_pretrained(path)
    return path


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """To be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "cascade"))


class Code:
    """A pickle of this writes a file when it is opened."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_the_bundled_cascade_loads_without_naming_its_variant() -> None:
    plain, named = (ImagenCascadePipeline.from_pretrained(bundled("imagen-scenes"), **more) for more in ({}, {"variant": "fp16"}))
    for slot in ("text_encoder", "unet", "unet_2", "unet_3"):
        for one, two in zip(getattr(plain, slot).parameters(), getattr(named, slot).parameters(), strict=True):
            assert torch.equal(one, two)
    alone = ImagenUNet2DConditionModel.from_pretrained(bundled("imagen-scenes"), subfolder="unet")
    assert all(torch.equal(one, two) for one, two in zip(alone.parameters(), named.unet.parameters(), strict=True))


def test_a_dtype_may_be_given_by_its_name(folder) -> None:
    assert ImagenCascadePipeline.from_pretrained(folder, dtype="float16").dtype == torch.float16
    assert ImagenCascadePipeline.from_pretrained(folder, torch_dtype="bfloat16").dtype == torch.bfloat16
    assert ImagenCascadePipeline.from_pretrained(folder, dtype="torch.float16").dtype == torch.float16
    with pytest.raises(ValueError, match='dtype="half precision" is none of torch; give one, such as torch.bfloat16'):
        ImagenCascadePipeline.from_pretrained(folder, dtype="half precision")


def test_of_several_variants_one_must_be_chosen(tmp_path) -> None:
    for variant in ("fp16", "bf16"):
        make_pipeline().save_pretrained(tmp_path, variant=variant)
    with pytest.raises(ValueError, match="variants bf16, fp16; choose one with variant="):
        ImagenCascadePipeline.from_pretrained(tmp_path)
    assert ImagenCascadePipeline.from_pretrained(tmp_path, variant="bf16").stage_numbers == [1, 2, 3]


def test_plain_weights_go_before_variants(folder) -> None:
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"never read")
    assert ImagenCascadePipeline.from_pretrained(folder).stage_numbers == [1, 2, 3]


def mix(folder: Path) -> dict[str, torch.Tensor]:
    """Leave the text encoder as float16 alone; give the base such weights beside its own, which they are not. The base's own."""
    pipe = make_pipeline()
    pipe.text_encoder.save_pretrained(folder / "text_encoder", variant="fp16")
    (folder / "text_encoder" / "model.safetensors").unlink()
    own = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    pipe.unet.half().save_pretrained(folder / "unet", variant="fp16")
    return own


def test_plain_weights_go_before_a_variant_that_another_component_needs(folder, monkeypatch) -> None:
    own = mix(folder)
    pipe = ImagenCascadePipeline.from_pretrained(folder)
    assert all(torch.equal(value, own[name]) for name, value in pipe.unet.state_dict().items())
    assert pipe.stage_numbers == [1, 2, 3]
    assert pipe.text_encoder is not None
    named = ImagenCascadePipeline.from_pretrained(folder, variant="fp16")
    assert not all(torch.equal(value, own[name]) for name, value in named.unet.state_dict().items())
    given = make_pipeline().unet_3
    assert ImagenCascadePipeline.from_pretrained(folder, unet_3=given, unet_2=None).unet_3 is given


def test_training_begins_with_the_weights_that_sampling_loads(folder) -> None:
    """Whatever other folders hold, such as a judge's."""
    own = mix(folder)
    (folder / "judge").mkdir()
    (folder / "judge" / "model.bf16.safetensors").write_bytes(b"never read")
    model = ModelSettings(pretrained_model_name_or_path=str(folder))
    pipe = load_cascade(model)
    assert all(torch.equal(value, own[name]) for name, value in pipe.unet.state_dict().items())
    assert [path.name for path in text_encoding._encoder_files(model)] == ["model.fp16.safetensors"]
    shutil.copy(folder / "text_encoder" / "model.fp16.safetensors", folder / "text_encoder" / "model.safetensors")
    assert [path.name for path in text_encoding._encoder_files(model)] == ["model.safetensors"]


def test_of_a_hub_id_both_kinds_are_fetched_where_both_are_needed(folder, monkeypatch) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    own = mix(folder)
    files = [str(path.relative_to(folder)) for path in folder.rglob("*.*")]
    asked = []
    monkeypatch.setattr(HfApi, "list_repo_files", lambda self, repo_id, **_: files)
    monkeypatch.setattr(ImagenCascadePipeline, "download", lambda place, **kwargs: asked.append(kwargs) or str(folder))
    pipe = ImagenCascadePipeline.from_pretrained("me/new")
    assert all(torch.equal(value, own[name]) for name, value in pipe.unet.state_dict().items())
    assert [given["variant"] for given in asked] == [None, "fp16"]
    assert "unet" not in asked[0]
    assert asked[0]["text_encoder"] is None


def test_names_of_weight_files() -> None:
    told = {
        "diffusion_pytorch_model.safetensors": (None, False),
        "diffusion_pytorch_model.fp16.safetensors": ("fp16", False),
        "model.fp16-00001-of-00002.safetensors": ("fp16", False),
        "model-00001-of-00002.fp16.safetensors": ("fp16", False),
        "pytorch_model-00001-of-00002.bin": (None, True),
        "pytorch_model.non_ema.bin": ("non_ema", True),
        "model.no-ema-00001-of-00002.safetensors": ("no-ema", False),
        "diffusion_pytorch_model.ema.fp16.safetensors": ("ema.fp16", False),
    }
    others = ["config.json", "model.safetensors.index.json", "pytorch_lora_weights.safetensors", "spiece.model"]
    assert {f.name: (f.variant, f.pickled) for f in weight_files([*told, *others])} == told
    assert sole_variant({"unet": ["model.fp16.safetensors"], "text_encoder": ["model.safetensors"]}) == "fp16"
    assert sole_variant({"unet": ["model.fp16.safetensors", "model.safetensors"]}) is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def shard(path: Path) -> None:
    network = ImagenUNet2DConditionModel.from_pretrained(path)
    (path / WEIGHTS).unlink()
    network.save_pretrained(path, max_shard_size="10KB")
    next(path.glob("*-00002-of-*.safetensors")).unlink()


DAMAGE = {
    "weights cut short": (lambda d: cut(d / "unet_2" / WEIGHTS), rf"unet_2/{WEIGHTS} is damaged or cut short"),
    "weights overwritten": (lambda d: (d / "unet_3" / WEIGHTS).write_text("hello"), rf"unet_3/{WEIGHTS} is damaged"),
    "weights missing": (lambda d: (d / "unet_2" / WEIGHTS).unlink(), rf"unet_2 holds no weights: {WEIGHTS} is missing"),
    "encoder missing": (lambda d: (d / "text_encoder/model.safetensors").unlink(), "text_encoder holds no weights: model.safetensors"),
    "encoder cut short": (lambda d: cut(d / "text_encoder/model.safetensors"), "text_encoder/model.safetensors is damaged"),
    "a shard missing": (lambda d: shard(d / "unet"), "unet/diffusion_pytorch_model-00002-of-.* is missing"),
    "a pointer of git-lfs": (
        lambda d: (d / "unet" / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "unet/.* is a pointer of git-lfs",
    ),
    "configuration cut short": (lambda d: cut(d / "unet_2/config.json"), "unet_2/config.json is damaged"),
    "configuration missing": (lambda d: (d / "unet_2/config.json").unlink(), "unet_2/config.json is missing"),
    "scheduler cut short": (lambda d: cut(d / "scheduler_3/scheduler_config.json"), "scheduler_3/scheduler_config.json is damaged"),
    "tokenizer cut short": (lambda d: cut(d / "tokenizer/tokenizer.json"), "tokenizer/tokenizer.json is damaged"),
    "a folder missing": (lambda d: shutil.rmtree(d / "scheduler_2"), "scheduler_2 is missing"),
    "index cut short": (lambda d: cut(d / "model_index.json"), "model_index.json"),
    "index missing": (lambda d: (d / "model_index.json").unlink(), "model_index.json"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_pipeline_names_the_damaged_file(folder, kind) -> None:
    damage, words = DAMAGE[kind]
    damage(folder)
    with pytest.raises(OSError, match=words) as raised:
        ImagenCascadePipeline.from_pretrained(folder)
    assert ".bin" not in str(raised.value)


def test_what_is_left_out_or_given_is_not_looked_at(folder) -> None:
    cut(folder / "unet_2" / WEIGHTS)
    cut(folder / "unet_3" / WEIGHTS)
    assert ImagenCascadePipeline.from_pretrained(folder, unet_2=None, unet_3=make_pipeline().unet_3).stage_numbers == [1, 3]


def leave_out(path: Path, kind: str) -> str:
    """Save a file of weights without the first one of this kind; its name."""
    weights = load_file(path)
    first = next(name for name in weights if kind in name)
    save_file({name: value for name, value in weights.items() if name != first}, path, metadata={"format": "pt"})
    return first


@pytest.mark.parametrize("more", [{}, {"low_cpu_mem_usage": False}])
def test_weights_without_some_are_refused_and_none_are_made_up(folder, more) -> None:
    first = leave_out(folder / "unet" / WEIGHTS, "conv1.weight")
    with pytest.raises(OSError, match=f"unet lack 1 of its network's parameters, {first}"):
        ImagenCascadePipeline.from_pretrained(folder, **more)
    with pytest.raises(OSError, match=f"unet lack 1 of its network's parameters, {first}"):
        ImagenUNet2DConditionModel.from_pretrained(folder, subfolder="unet", **more)
    whole, info = ImagenEfficientUNet2DConditionModel.from_pretrained(folder, subfolder="unet_2", output_loading_info=True, **more)
    assert (type(whole), info["missing_keys"]) == (ImagenEfficientUNet2DConditionModel, [])


def test_what_a_changed_configuration_adds_begins_as_in_a_new_network(folder) -> None:
    changes = {"detail_channels": 8, "noisy_skip": True}
    same = {"sample_size": make_base().config["sample_size"]}
    with pytest.raises(
        ValueError, match=r"^detail_channels, noisy_skip of the configuration changed, .* give low_cpu_mem_usage=False, too"
    ):
        ImagenUNet2DConditionModel.from_pretrained(folder, subfolder="unet", **changes, **same)
    torch.manual_seed(7)
    given = {"subfolder": "unet", "low_cpu_mem_usage": False, "output_loading_info": True}
    grown, info = ImagenUNet2DConditionModel.from_pretrained(folder, **given, **changes)
    drawn = torch.rand(())
    torch.manual_seed(7)
    assert torch.rand(()) == drawn
    torch.manual_seed(7)
    new, saved = ImagenUNet2DConditionModel.from_config(grown.config), make_base().state_dict()
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"detail", "noisy_path"}
    expected = new.state_dict() | saved
    assert all(torch.equal(value, expected[name]) for name, value in grown.state_dict().items())
    leave_out(folder / "unet" / WEIGHTS, "conv1.weight")
    for more in ({}, changes, {"sample_size": grown.config["sample_size"]}):
        with pytest.raises(OSError, match="unet lack 1 of its network's parameters"):
            ImagenUNet2DConditionModel.from_pretrained(folder, **given, **more)


@pytest.mark.parametrize("more", [{}, {"low_cpu_mem_usage": False}])
@pytest.mark.parametrize("name", ["unet", "text_encoder"])
def test_networks_of_other_libraries_lack_no_weights_either(tmp_path, name, more) -> None:
    make_pipeline(unet=base_network(), unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None).save_pretrained(tmp_path)
    assert ImagenCascadePipeline.from_pretrained(tmp_path, **more).stage_numbers == [1]
    first = leave_out(
        tmp_path / name / ("model.safetensors" if name == "text_encoder" else WEIGHTS),
        "to_q.weight" if name == "unet" else "SelfAttention.q",
    )
    with pytest.raises(OSError, match=f"{name} lack 1 of its network's parameters, {first}"):
        ImagenCascadePipeline.from_pretrained(tmp_path, **more)


@pytest.mark.parametrize(
    ("component", "safe", "name"),
    [("unet_2", WEIGHTS, "diffusion_pytorch_model.bin"), ("text_encoder", "model.safetensors", "pytorch_model.bin")],
)
def test_a_pickle_with_code_is_not_opened(folder, tmp_path, component, safe, name) -> None:
    (folder / component / safe).unlink()
    (folder / component / name).write_bytes(pickle.dumps(Code(tmp_path / "it ran")))
    with pytest.raises(OSError, match=rf"{component} holds its weights as a pickle \({name}\)"):
        ImagenCascadePipeline.from_pretrained(folder)
    if component == "unet_2":
        with pytest.raises(OSError, match="holds its weights as a pickle"):
            type(make_pipeline().unet_2).from_pretrained(folder, subfolder="unet_2")
    with pytest.raises((OSError, ValueError, pickle.UnpicklingError)):
        ImagenCascadePipeline.from_pretrained(folder, use_safetensors=False)  # opened, but as weights alone
    assert not (tmp_path / "it ran").exists()


def test_pickles_of_weights_load_when_asked_for_by_name(tmp_path) -> None:
    made = make_pipeline()
    made.save_pretrained(tmp_path, safe_serialization=False)
    shutil.rmtree(tmp_path / "text_encoder")  # transformers no longer writes pickles
    made.text_encoder.save_pretrained(tmp_path / "text_encoder")
    given = {"text_encoder": made.text_encoder}
    with pytest.raises(OSError, match="pickle"):
        ImagenCascadePipeline.from_pretrained(tmp_path, **given)
    loaded = ImagenCascadePipeline.from_pretrained(tmp_path, use_safetensors=False, **given)
    assert all(torch.equal(a, b) for a, b in zip(loaded.unet.parameters(), made.unet.parameters(), strict=True))


def test_a_hub_id_of_one_variant_is_fetched_as_such(monkeypatch, tmp_path) -> None:
    from huggingface_hub import HfApi

    make_pipeline().save_pretrained(tmp_path, variant="fp16")
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    asked: dict = {}

    def download(place, **kwargs):
        asked.update(place=place, **kwargs)
        return str(tmp_path)

    monkeypatch.setattr(HfApi, "list_repo_files", lambda self, repo_id, **_: files)
    monkeypatch.setattr(ImagenCascadePipeline, "download", download)
    pipe = ImagenCascadePipeline.from_pretrained("me/new", revision="main")
    assert (asked["place"], asked["variant"], asked["revision"], asked["use_safetensors"]) == ("me/new", "fp16", "main", True)
    assert pipe.config["_name_or_path"] == "me/new"


def test_a_call_shows_one_line_over_all_its_steps(pipe, monkeypatch) -> None:
    bars = []
    make_bar = pipe.progress_bar

    def progress_bar(**given):
        bars.append(make_bar(**given))
        return bars[-1]

    monkeypatch.setattr(pipe, "progress_bar", progress_bar)
    pipe.set_progress_bar_config(disable=False)
    pipe("a red cube", generator=seeded(), output_type="pt")
    assert [(bar.total, bar.n) for bar in bars] == [(7, 7)]
    assert bars[0].desc == "unet_3 64x64: "
    pipe.set_progress_bar_config(desc="mine")
    pipe("a red cube", stop_at=1, num_inference_steps=1)
    assert bars[1].desc == "mine"


def test_bundled_pipelines_load_by_their_names(tmp_path, monkeypatch) -> None:
    none = dict.fromkeys(("unet", "unet_2", "unet_3", "text_encoder"))
    assert ImagenCascadePipeline.from_pretrained("imagen-scenes", **none).config["num_inference_steps"] == [16, 12, 2]
    monkeypatch.chdir(tmp_path)
    make_pipeline(num_inference_steps=(5, 4, 3)).save_pretrained("imagen-scenes")  # a folder here goes first
    assert ImagenCascadePipeline.from_pretrained("imagen-scenes", **none).config["num_inference_steps"] == [5, 4, 3]


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch) -> None:
    from huggingface_hub import HfApi

    def unreachable(*_, **__) -> None:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    monkeypatch.setattr(HfApi, "list_repo_files", lambda *_, **__: pytest.fail("the Hub was asked again"))
    with pytest.raises(OSError, match='"you/nowhere" is no path here, and not in the cache; the Hub, .* cannot be reached'):
        ImagenCascadePipeline.from_pretrained("you/nowhere")


def test_what_is_no_pipeline_is_said_at_once(tmp_path) -> None:
    with pytest.raises(OSError, match=r'"nowhere" is not there: it is no path, not bundled .*imagen-scenes'):
        ImagenCascadePipeline.from_pretrained("nowhere")
    with pytest.raises(OSError, match=f"^{tmp_path} is no pipeline: it holds no model_index.json"):
        ImagenCascadePipeline.from_pretrained(tmp_path)
    make_base().save_pretrained(tmp_path / "stage-1" / "unet")
    with pytest.raises(OSError, match=f"not come to its end; go on .* CASCADE my-cascade --stage {tmp_path / 'stage-1'},"):
        ImagenCascadePipeline.from_pretrained(tmp_path)
    make_base().save_pretrained(tmp_path / "unet")
    with pytest.raises(OSError, match=f"one stage, unet, as train_stage.py writes it; .* assemble CASCADE my-cascade --stage {tmp_path},"):
        ImagenCascadePipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", [ImagenUNet2DConditionModel, ImagenDDPMScheduler])
def test_a_part_of_a_bundled_pipeline_is_said_to_be_in_its_folder(kind) -> None:
    with pytest.raises(OSError, match=r'"imagen-scenes" is no .*, and no Hub id.* give imagen_diffusers.bundled\("imagen-scenes"\)'):
        kind.from_pretrained("imagen-scenes", subfolder="unet")
