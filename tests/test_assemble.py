"""`imagen-diffusers assemble`: trained stages into a new folder of a cascade."""

import json
from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5EncoderModel
from typer.testing import CliRunner

from imagen_diffusers import ImagenCascadePipeline, ImagenDDPMScheduler
from imagen_diffusers.cli import app
from imagen_diffusers.models.lora import add_lora, lora_layers, lora_metadata

from .conftest import TINY_SR_2, make_base, make_pipeline, make_sr, make_text_encoder, make_tokenizer, seeded


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cascade")
    make_pipeline(unet_3=None, scheduler_3=None).save_pretrained(path)
    return path


def trained(folder: Path, slot: str, network: torch.nn.Module, *, scheduler: bool = True) -> Path:
    """A stage as training writes it, with weights that no other one has."""
    torch.nn.init.constant_(next(network.parameters()), 0.25)
    network.save_pretrained(folder / slot)
    if scheduler:
        ImagenDDPMScheduler(beta_schedule="linear").save_pretrained(folder / slot.replace("unet", "scheduler"))
    return folder


def assemble(*words: object):
    return CliRunner().invoke(app, ["assemble", *map(str, words)])


def test_trained_stages_become_a_cascade(folder, tmp_path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    base = trained(tmp_path / "base", "unet", make_base(), scheduler=False)
    last = trained(tmp_path / "last", "unet_3", make_sr(**TINY_SR_2))
    encoder = make_text_encoder().bfloat16()
    for part in (encoder, make_tokenizer()):
        part.save_pretrained(tmp_path / "encoder")
    told = assemble(folder, tmp_path / "new", "--stage", base, "--stage", last, "--text-encoder", tmp_path / "encoder")
    assert told.exit_code == 0, told.output
    pipe, model = (ImagenCascadePipeline.from_pretrained(place) for place in (tmp_path / "new", folder))
    assert pipe.stage_numbers == [1, 2, 3]
    assert (next(pipe.unet.parameters()) == 0.25).all() and (next(pipe.unet_3.parameters()) == 0.25).all()
    assert all(map(torch.equal, pipe.unet_2.parameters(), model.unet_2.parameters()))
    assert all(torch.equal(own, given.float()) for own, given in zip(pipe.text_encoder.parameters(), encoder.parameters(), strict=True))
    config = json.loads((tmp_path / "new" / "text_encoder" / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert torch.equal(pipe.scheduler.betas, model.scheduler.betas)  # the stage has none of its own
    assert torch.equal(pipe.scheduler_3.betas, ImagenDDPMScheduler(beta_schedule="linear").betas)
    assert pipe.config.max_sequence_length == model.config.max_sequence_length
    assert pipe("a red cube", generator=seeded(), num_inference_steps=1).images[0].size == (64, 64)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_cannot_be_assembled_is_one_line(folder, tmp_path) -> None:
    base = trained(tmp_path / "base", "unet", make_base())
    again = trained(tmp_path / "again", "unet", make_base())
    alone = trained(tmp_path / "alone", "unet_3", make_sr(**TINY_SR_2), scheduler=False)
    wide = trained(tmp_path / "wide", "unet", make_base(encoder_hid_dim=48))
    large = trained(tmp_path / "large", "unet", make_base(sample_size=32))
    adapted = make_base()
    add_lora(adapted, rank=2, seed=0)
    told = {"unet_lora_layers": lora_layers(adapted), "unet_lora_adapter_metadata": lora_metadata(adapted)}
    ImagenCascadePipeline.save_lora_weights(tmp_path / "adapter" / "unet", **told)
    (tmp_path / "empty").mkdir()
    checkpoint, new = tmp_path / "run" / "checkpoint-20", tmp_path / "new"
    make_base().save_pretrained(checkpoint / "unet_ema")
    (checkpoint / "progress.json").write_text('{"step": 20}')
    for dest, stages, said in (
        (base, [base], "is there and not empty, and nothing is written over"),
        (new, [base, again], "both hold unet, and a cascade has one"),
        (new, [folder], "holds unet and unet_2; give the folder of one"),
        (new, [tmp_path / "empty"], "holds no stage; give the folder of one"),
        (new, [tmp_path / "adapter"], f"as --lora {tmp_path / 'adapter' / 'unet'}"),
        (new, [checkpoint], f"--resume_from_checkpoint {checkpoint} --max_train_steps 20 --output_dir NEW, which writes the stage at once"),
        (
            new,
            [checkpoint.parent],
            "not come to its end; run its command again with --resume_from_checkpoint latest, and with --max_train_steps 20",
        ),
        (new, [alone], "nor the model has a scheduler_3, which says how noise is added"),
        (new, [wide], "stages take text of different widths (unet 48, unet_2 32)"),
        (new, [large], "unet makes images of 32px and unet_2 of 32px"),
    ):
        told = assemble(folder, dest, *(word for stage in stages for word in ("--stage", stage)))
        assert told.exit_code == 1 and said in told.output and told.output.count("\n") == 1, told.output
        assert not new.exists()
    told = assemble(folder, new, "--stage", base, "--text-encoder", "nowhere")
    assert told.exit_code == 1 and '"nowhere" is not there: it is no path' in told.output, told.output
    config = T5Config(vocab_size=16, d_model=48, d_kv=8, num_heads=2, d_ff=32, num_layers=1)
    T5EncoderModel(config).save_pretrained(tmp_path / "encoder")
    make_tokenizer().save_pretrained(tmp_path / "encoder")
    told = assemble(folder, new, "--stage", base, "--text-encoder", tmp_path / "encoder")
    assert told.exit_code == 1 and "text is 48 wide, and the stages take others (unet 32, unet_2 32)" in told.output, told.output
    assert not new.exists()
