"""DeepFloyd IF's networks as stages draw what IF's own pipelines draw, bit for bit; and more than those can."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    IFPipeline,
    IFSuperResolutionPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import T5EncoderModel

from imagen_diffusers import (
    ImagenCascadePipeline,
    ImagenCascadeUpscalePipeline,
    ImagenDPMSolverMultistepScheduler,
    ImagenUniPCMultistepScheduler,
)
from imagen_diffusers.sampling.network import adapt
from imagen_diffusers.sampling.seeds import stage_generators

from .conftest import make_sr, make_text_encoder, make_tokenizer, seeded

PLAIN = {
    "layers_per_block": 1,
    "block_out_channels": (32, 64),
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "out_channels": 6,
    "cross_attention_dim": 32,
    "encoder_hid_dim": 32,
    "attention_head_dim": 8,
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 2,
    "cross_attention_norm": "group_norm",
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "gelu",
}
STEPS = 4


def base_network() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(**PLAIN, sample_size=16, in_channels=3).eval()


def sr_network() -> UNet2DConditionModel:
    torch.manual_seed(1)
    more = {"class_embed_type": "timestep", "mid_block_scale_factor": 1.414, "time_embedding_act_fn": "gelu", "time_embedding_dim": 32}
    return UNet2DConditionModel(**PLAIN, **more, sample_size=32, in_channels=6).eval()


def schedule(cap: float) -> DDPMScheduler:
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=cap,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> dict[str, str]:
    """Two saved repositories with IF's layout."""
    text = {"tokenizer": make_tokenizer(), "text_encoder": make_text_encoder()}
    common = {"safety_checker": None, "feature_extractor": None, "watermarker": None, "requires_safety_checker": False}
    one, two = tmp_path_factory.mktemp("IF-I"), tmp_path_factory.mktemp("IF-II")
    IFPipeline(**text, unet=base_network(), scheduler=schedule(1.5), **common).save_pretrained(one)
    noising = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    IFSuperResolutionPipeline(
        **text, unet=sr_network(), scheduler=schedule(1.0), image_noising_scheduler=noising, **common
    ).save_pretrained(two)
    return {"one": str(one), "two": str(two)}


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def ours(home, **changes) -> ImagenCascadePipeline:
    return quiet(ImagenCascadePipeline.from_deepfloyd(home["one"], home["two"], **changes))


CALL = {"num_inference_steps": STEPS, "output_type": "pt"}
PROMPTS = ["a red cube", "a blue sphere on the left of a green cube"]
SMALL = torch.rand(1, 3, 16, 16, generator=seeded(5))


@pytest.mark.parametrize("negative_prompt", [None, "blue"])
@pytest.mark.parametrize("guidance_scale", [1.0, 7.0])
def test_images_equal_deepfloyds_own_pipelines_bit_for_bit(home, guidance_scale, negative_prompt) -> None:
    seeds = [seeded(3), seeded(4)]
    negative = None if negative_prompt is None else [negative_prompt] * 2
    made = ours(home)(PROMPTS, negative_prompt, guidance_scale=guidance_scale, generator=[seeded(3), seeded(4)], **CALL).stage_images

    first, second, _ = stage_generators(seeds, 2, 3)
    given = {"prompt": PROMPTS, "negative_prompt": negative, "guidance_scale": guidance_scale, **CALL}
    base = quiet(IFPipeline.from_pretrained(home["one"]))
    expected = base(**given, generator=first).images
    assert torch.equal(made[0], (expected / 2 + 0.5).clamp(0, 1))
    larger = quiet(IFSuperResolutionPipeline.from_pretrained(home["two"]))
    expected = larger(**given, image=expected, generator=second, noise_level=250).images
    assert torch.equal(made[1], (expected / 2 + 0.5).clamp(0, 1))


def test_other_pipelines_of_the_same_class_of_networks_are_no_cascades(tmp_path) -> None:
    pipe = ImagenCascadePipeline(unet=base_network(), scheduler=DDPMScheduler(), tokenizer=None, text_encoder=None)
    pipe.save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    theirs = {"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"], "safety_checker": [None, None]}
    index.write_text(json.dumps({**json.loads(index.read_text()), **theirs, "image_encoder": ["transformers", "CLIPVisionModel"]}))
    with pytest.raises(
        ValueError, match="is of StableDiffusionPipeline, and ImagenCascadePipeline takes no image_encoder, vae; load it with"
    ):
        ImagenCascadePipeline.from_pretrained(tmp_path)
    latent = UNet2DConditionModel(**{**PLAIN, "out_channels": 4}, sample_size=16, in_channels=4)
    with pytest.raises(ValueError, match="UNet2DConditionModel takes 4 channels; DeepFloyd IF's networks, .* take 3, a base, or 6"):
        adapt(latent)


def test_a_plain_repository_of_if_loads_as_a_base(home) -> None:
    pipe = quiet(ImagenCascadePipeline.from_pretrained(home["one"]))
    assert pipe.stage_numbers == [1]
    assert pipe.config["null_text"] == "empty"
    both = ours(home)(PROMPTS[0], generator=seeded(), stop_at=1, **CALL).images
    assert torch.equal(pipe(PROMPTS[0], generator=seeded(), **CALL).images, both)


def enlarged(pipe) -> torch.Tensor:
    return quiet(pipe)(PROMPTS[0].upper(), image=SMALL, height=32, generator=seeded(), num_inference_steps=2, output_type="pt").images


def test_a_plain_repository_of_ifs_second_stage_enlarges_images(home) -> None:
    expected = enlarged(ImagenCascadeUpscalePipeline.from_pipe(ours(home)))
    loaded = ImagenCascadeUpscalePipeline.from_pretrained(home["two"])
    alone = ImagenCascadeUpscalePipeline.from_deepfloyd(None, home["two"])
    moved = ImagenCascadeUpscalePipeline.from_pipe(IFSuperResolutionPipeline.from_pretrained(home["two"]))
    own = DDPMScheduler.from_config(loaded.scheduler_2.config)
    given = ImagenCascadeUpscalePipeline.from_pipe(IFSuperResolutionPipeline.from_pretrained(home["two"]), scheduler=own)
    assert given.scheduler_2 is own
    for pipe in (loaded, alone, moved):
        assert pipe.stage_numbers == [2]
        assert pipe.scheduler is None
        assert torch.equal(enlarged(pipe), expected)
    with pytest.raises(ValueError, match="stage_1 and stage_2 are None; give one of them, or both"):
        ImagenCascadePipeline.from_deepfloyd(None)


def test_ifs_pipelines_become_cascades_that_read_text_as_theirs(home) -> None:
    loaded, given = ImagenCascadePipeline.from_pretrained(home["one"]), IFPipeline.from_pretrained(home["one"])
    made = ImagenCascadePipeline.from_pipe(given.to(torch.bfloat16))
    assert made.config == loaded.config
    assert made.components == {**loaded.components, **given.components}
    assert made.unet.dtype == torch.bfloat16
    assert ImagenCascadePipeline.from_pipe(given, unet=None, safety_checker=len, dtype=torch.float32).safety_checker is len
    assert given.text_encoder.dtype == torch.float32


def test_offload_keeps_one_network_on_the_device(home, residents) -> None:
    pipe = ours(home)
    plain = pipe(PROMPTS[0], generator=seeded(), **CALL).images
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(pipe(PROMPTS[0], generator=seeded(), **CALL).images, plain)
    assert residents.history == [{T5EncoderModel}, {UNet2DConditionModel}, {UNet2DConditionModel}]
    assert not residents.now


def test_stages_in_the_wrong_order_are_said(home) -> None:
    with pytest.raises(
        ValueError, match=r"stage_1 is a base .*; .* is a super-resolution stage .*; give it as stage_2, after a base or None"
    ):
        ImagenCascadePipeline.from_deepfloyd(home["two"], home["one"])
    with pytest.raises(ValueError, match=r"stage_2 is a super-resolution stage .*; .* is a base"):
        ImagenCascadePipeline.from_deepfloyd(home["one"], home["one"])


def test_a_place_that_is_not_there_is_said_at_once(home, monkeypatch) -> None:
    asked = {}

    def unreachable(name: str, **how: object) -> None:
        asked.update(how)
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    monkeypatch.setattr(UNet2DConditionModel, "load_config", lambda *_, **__: pytest.fail("a network was asked for"))
    for stages in ((home["one"], "you/second"), (None, "you/second")):
        with pytest.raises(OSError, match='"you/second" is no path here, and not in the cache; the Hub, .* cannot be reached'):
            ImagenCascadePipeline.from_deepfloyd(*stages, cache_dir="kept", variant="fp16")
    assert asked["cache_dir"] == "kept" and "variant" not in asked
    with pytest.raises(OSError, match='"nowhere" is not there: it is no path'):
        ImagenCascadePipeline.from_deepfloyd("nowhere")


def test_what_was_loaded_from_the_hub_before_loads_without_it(home, tmp_path) -> None:
    commit = "0" * 40  # the files that loading asks for, of which model_index.json is none
    cached = tmp_path / "models--you--first"
    shutil.copytree(home["one"], cached / "snapshots" / commit, ignore=shutil.ignore_patterns("model_index.json"))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    pipe = ImagenCascadePipeline.from_deepfloyd("you/first", text_encoder=None, cache_dir=tmp_path, local_files_only=True)
    assert pipe.stage_numbers == [1]


def test_a_text_encoder_by_its_name_is_refused(home) -> None:
    with pytest.raises(ValueError, match='text_encoder is "google/t5"; give an encoder that is loaded, None for none, or leave it out'):
        ImagenCascadePipeline.from_deepfloyd(home["one"], text_encoder="google/t5")


def test_ifs_own_spelling_of_the_dtype_is_heard_and_other_words_are_refused(home) -> None:
    pipe = ours(home, torch_dtype=torch.bfloat16)
    assert {pipe.unet.dtype, pipe.unet_2.dtype, pipe.text_encoder.dtype} == {torch.bfloat16}
    with pytest.raises(TypeError, match="from_deepfloyd takes no watermarker; besides its own arguments it takes cache_dir"):
        ours(home, watermarker=None)


def test_a_saved_cascade_of_if_draws_the_same(home, tmp_path) -> None:
    pipe = ours(home)
    pipe.save_pretrained(tmp_path)
    again = quiet(ImagenCascadePipeline.from_pretrained(tmp_path))
    assert torch.equal(again(PROMPTS[0], generator=seeded(), **CALL).images, pipe(PROMPTS[0], generator=seeded(), **CALL).images)


@pytest.mark.parametrize(
    "solver", [DPMSolverMultistepScheduler, UniPCMultistepScheduler, ImagenDPMSolverMultistepScheduler, ImagenUniPCMultistepScheduler]
)
def test_other_solvers_run_on_if(home, solver) -> None:
    """In diffusers' own pipeline the learned variance stops them."""
    pipe = ours(home)
    for slot in ("scheduler", "scheduler_2"):
        setattr(pipe, slot, solver.from_config(getattr(pipe, slot).config))
    images = pipe(PROMPTS[0], num_inference_steps=6, generator=seeded(), output_type="pt").stage_images
    assert all(torch.isfinite(p).all() and p.std() > 0.01 for p in images)


def test_sizes_that_ifs_pipelines_do_not_draw(home) -> None:
    images = ours(home)(PROMPTS[0], height=32, width=48, generator=seeded(), **CALL).stage_images
    assert [tuple(p.shape[-2:]) for p in images] == [(16, 24), (32, 48)]


def test_a_stage_of_ours_follows_ifs_two(home) -> None:
    pipe = ours(home)
    pipe.unet_3 = make_sr(sample_size=64, attention_kind="cross_text")
    pipe.scheduler_3 = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    images = pipe(PROMPTS[0], generator=seeded(), **CALL).stage_images
    assert [p.shape[-1] for p in images] == [16, 32, 64]


def test_captions_are_cleaned_as_if_cleans_them(home) -> None:
    base, pipe = IFPipeline.from_pretrained(home["one"]), ours(home)
    for prompt in ("A Red CUBE ", "a red cube"):
        mine = pipe.encode_prompt(prompt)[0]
        theirs = base.encode_prompt(prompt, clean_caption=True)[0]
        assert torch.equal(mine, theirs)
        assert mine.shape[1] == 77


@pytest.mark.parametrize(("width", "expected"), [(704, 4.30e9), (320, 0.93e9), (192, 0.37e9)])
def test_if_i_has_the_published_sizes(width, expected) -> None:
    """XL, L and M, by the layout of diffusers' conversion script."""
    config = {
        **PLAIN,
        "layers_per_block": 3,
        "block_out_channels": tuple(width * m for m in (1, 2, 3, 4)),
        "down_block_types": ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3),
        "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
        "cross_attention_dim": 4 * width,
        "encoder_hid_dim": 4096,
        "attention_head_dim": 64,
        "addition_embed_type_num_heads": 64,
    }
    with torch.device("meta"):
        assert UNet2DConditionModel(**config, sample_size=64, in_channels=3).num_parameters() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("folder", "lost"), [("text_encoder", "encoder.final_layer_norm.weight"), ("unet", "conv_in.bias")])
def test_weights_that_lack_parameters_are_said(home, tmp_path, folder, lost) -> None:
    copy = Path(shutil.copytree(home["one"], tmp_path / "one"))
    (path,) = (copy / folder).glob("*.safetensors")
    weights = load_file(path)
    del weights[lost]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(OSError, match=f"weights of .*{folder} lack 1 of its network's parameters, {lost} the first"):
        ours({**home, "one": str(copy)})


def test_a_network_that_cannot_be_a_stage_is_refused() -> None:
    from diffusers import UNet2DModel

    pipe = ImagenCascadePipeline()
    pipe.unet, pipe.scheduler = (
        UNet2DModel(block_out_channels=(32,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",)),
        schedule(1.0),
    )
    with pytest.raises(ValueError, match="UNet2DModel cannot be a stage; .* ImagenEfficientUNet2DConditionModel.* UNet2DConditionModel"):
        pipe("a red cube")


def test_the_command_writes_a_cascade(home, tmp_path) -> None:
    from typer.testing import CliRunner

    from imagen_diffusers.cli import app

    result = CliRunner().invoke(app, ["convert", "deepfloyd", home["one"], str(tmp_path), "--stage-2", home["two"]])
    assert result.exit_code == 0, result.output
    assert "unet_2" in result.output
    pipe = quiet(ImagenCascadePipeline.from_pretrained(tmp_path))
    assert torch.equal(pipe(PROMPTS[0], generator=seeded(), **CALL).images, ours(home)(PROMPTS[0], generator=seeded(), **CALL).images)
    result = CliRunner().invoke(app, ["convert", "deepfloyd", home["two"], str(tmp_path / "second")])
    assert result.exit_code == 0 and "unet_2: " in result.output and "unet: " not in result.output, result.output
    second = ImagenCascadeUpscalePipeline.from_pretrained(tmp_path / "second")
    assert torch.equal(enlarged(second), enlarged(ImagenCascadeUpscalePipeline.from_pretrained(home["two"])))
