"""Folders: what is written, what comes back, what is refused."""

import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, ModelMixin

from imagen_diffusers import ImagenCascadePipeline, ImagenEfficientUNet2DConditionModel, ImagenUNet2DConditionModel

from .conftest import make_base, make_pipeline, make_sr, seeded

GOLDEN = {
    "clean_caption": False,
    "text_padding": "longest",
    "_class_name": "ImagenCascadePipeline",
    "tokenizer": ["transformers", "TokenizersBackend"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "unet": ["imagen_diffusers", "ImagenUNet2DConditionModel"],
    "scheduler": ["imagen_diffusers", "ImagenDDPMScheduler"],
    "unet_2": ["imagen_diffusers", "ImagenEfficientUNet2DConditionModel"],
    "scheduler_2": ["imagen_diffusers", "ImagenDDPMScheduler"],
    "unet_3": ["imagen_diffusers", "ImagenEfficientUNet2DConditionModel"],
    "scheduler_3": ["imagen_diffusers", "ImagenDDPMScheduler"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "watermarker": [None, None],
    "null_text": "zeros",
    "max_sequence_length": 12,
    "num_inference_steps": [3, 2, 2],
    "guidance_scale": [3.0, 2.0, 1.0],
    "noise_level": [0.0, 200.0, 200.0],
    "guidance_interval": [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cascade")
    make_pipeline(max_sequence_length=np.int64(12)).save_pretrained(path)  # what JSON cannot hold as it is
    return path


def load(path, **arguments) -> ImagenCascadePipeline:
    pipe = ImagenCascadePipeline.from_pretrained(path, **arguments)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image(pipe) -> torch.Tensor:
    return pipe("a red cube", generator=seeded(), output_type="pt").images


def test_diffusers_own_loader_finds_the_pipeline(folder) -> None:
    pipe = DiffusionPipeline.from_pretrained(folder)
    assert type(pipe) is ImagenCascadePipeline
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "ImagenCascadePipeline"


class Packed(torch.nn.Parameter):
    """A quantizer's parameter: its data is not what it stands for."""


def test_loading_leaves_quantized_weights_as_their_quantizer_made_them(tmp_path, monkeypatch) -> None:
    make_base().save_pretrained(tmp_path)
    load = ModelMixin.from_pretrained.__func__

    def quantizing(cls, *args, **kwargs):
        unet, info = load(cls, *args, **kwargs)
        unet.head.conv.weight = Packed(unet.head.conv.weight.data)
        unet.quantized = unet.head.conv.weight.data.data_ptr()
        return unet, info

    monkeypatch.setattr(ModelMixin, "from_pretrained", classmethod(quantizing))
    unet = ImagenUNet2DConditionModel.from_pretrained(tmp_path)
    assert unet.head.conv.weight.data.data_ptr() == unet.quantized


def test_model_index_is_golden(folder) -> None:
    written = json.loads((folder / "model_index.json").read_text())
    written.pop("_diffusers_version")
    assert written == GOLDEN


def test_round_trip_is_bit_equal(folder) -> None:
    assert torch.equal(image(load(folder)), image(make_pipeline()))


@pytest.mark.parametrize("arguments", [{"variant": "fp16"}, {"max_shard_size": "10KB"}])
def test_variants_and_shards(arguments, tmp_path) -> None:
    made = make_pipeline()
    made.save_pretrained(tmp_path, **arguments)
    arguments.pop("max_shard_size", None)
    assert torch.equal(image(load(tmp_path, **arguments)), image(made))


def test_each_stage_loads_alone(folder) -> None:
    made = make_pipeline()
    for slot, network in (("unet", ImagenUNet2DConditionModel), ("unet_2", ImagenEfficientUNet2DConditionModel)):
        alone = network.from_pretrained(folder, subfolder=slot)
        for one, two in zip(alone.parameters(), getattr(made, slot).parameters(), strict=True):
            assert torch.equal(one, two)


def test_stages_may_be_left_out(folder, tmp_path) -> None:
    base = load(folder, unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None)
    assert image(base).shape[-1] == 16
    base.save_pretrained(tmp_path)
    assert torch.equal(image(load(tmp_path)), image(base))


def test_a_stage_assigned_to_an_empty_slot_is_saved(tmp_path) -> None:
    made = make_pipeline(unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None)
    full = make_pipeline()
    made.unet_2, made.scheduler_2 = full.unet_2, full.scheduler_2
    made.save_pretrained(tmp_path)
    assert torch.equal(image(load(tmp_path)), image(made))
    assert image(made).shape[-1] == 32


def test_a_swapped_scheduler_is_saved(folder, tmp_path) -> None:
    from imagen_diffusers import ImagenDPMSolverMultistepScheduler

    pipe = load(folder)
    pipe.scheduler_2 = ImagenDPMSolverMultistepScheduler.from_config(pipe.scheduler_2.config)
    pipe.save_pretrained(tmp_path)
    assert torch.equal(image(load(tmp_path)), image(pipe))


def test_a_model_card_is_written(folder) -> None:
    card = (folder / "README.md").read_text()
    assert "| `unet_3` | ImagenEfficientUNet2DConditionModel |" in card
    assert "library_name: imagen_diffusers" in card


def test_bad_folders_are_refused(folder, tmp_path) -> None:
    with pytest.raises((OSError, ValueError), match="nowhere"):
        load(tmp_path / "nowhere")
    make_sr().save_pretrained(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="diffusion_pytorch_model"):
        ImagenEfficientUNet2DConditionModel.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(OSError, match="diffusion_pytorch_model"):
        ImagenEfficientUNet2DConditionModel.from_pretrained(tmp_path)
