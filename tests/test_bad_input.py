"""Bad input, a table each for the command and for a call: an exit code, one sentence, no stack, and nothing written."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.callbacks import IPAdapterScaleCutoffCallback
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import imagen_diffusers.cli.sampling
from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.cli import app
from imagen_diffusers.cli.loading import pick_device

from .conftest import forbid_networks, make_pipeline
from .test_loading import Code, cut

GENERATE = ["generate", "a red cube", "--model", "MODEL", "--output", "out/a.png"]
UPSCALE = ["upscale", "small.png", "a red cube", "--model", "MODEL", "--output", "out/a.png"]
FREE = "ClassifierFreeGuidance"
BAD_WEIGHTS = [("small.png", "nan"), ("small.png", "much"), ("empty", ""), ("you/nowhere", "0,7")]
# What is typed, and what is said of it.
COMMANDS: list[tuple[list[str], str]] = [
    ([*GENERATE, "--model", "nowhere"], r'"nowhere" is not there.*imagen-scenes.*"user/name"'),
    ([*GENERATE, "--model", "./nowhere"], r'"./nowhere" is not there'),
    ([*GENERATE, "--model", "you/nowhere"], r'"you/nowhere" is no path here'),
    ([*GENERATE, "--model", ""], r'"" is not there'),
    ([*GENERATE, "--model", "small.png"], "small.png is a file; a pipeline is a folder"),
    ([*GENERATE, "--model", "imagen-paper"], "imagen-paper holds configurations and no weights"),
    ([*GENERATE, "--model", "empty"], "model_index.json"),
    ([*GENERATE, "--variant", "fp8"], "fp8"),
    ([*GENERATE, "--device", "warp"], '--device "warp" is not on this machine; it has: cpu'),
    ([*GENERATE, "--device", "cuda:99"], '--device "cuda:99" is not on this machine'),
    ([*GENERATE, "--dtype", "int8"], '--dtype "int8" is unknown'),
    ([*GENERATE, "--scheduler", "magic"], '--scheduler "magic" is unknown'),
    ([*GENERATE, "--preset", "slow"], '"slow" is not there.*balanced'),
    ([*GENERATE, "--preset", "ddim-cosine"], r'"ddim-cosine" is not there: it is no path, not bundled \(balanced, fast, quality\)'),
    ([*GENERATE, "--preset", "empty"], "sampling_preset.json"),
    ([*GENERATE, "--preset", "preset"], "a preset's stages are None; give a list with one entry for each stage"),
    ([*UPSCALE, "--output", "small.png"], "--output would write over small.png, which is read"),
    (["upscale", "small-1.png", *UPSCALE[2:], "--num-images-per-prompt", "2", "--output", "small.png"], "write over small-1.png"),
    (["edit", "large.png", "a red cube", "--model", "MODEL", "--output", "large.png"], "write over large.png"),
    (["edit", "small.png", "a red cube", "--mask", "small-1.png", "--model", "MODEL", "--output", "small-1.png"], "over small-1.png"),
    (["vary", "large.png", "--model", "MODEL", "--output", "large.png"], "write over large.png"),
    (["extend", "large.png", "a red cube", "--width", "96", "--model", "MODEL", "--output", "large.png"], "write over large.png"),
    (["extend", "large.png", "a red cube", "--width", "32", "--model", "nowhere"], "the image is 64x64 and the canvas 32x64"),
    ([*GENERATE, "--preset", "you/nowhere"], '"you/nowhere" is no path here'),
    ([*GENERATE, "--lora", "nowhere"], '"nowhere" is not there'),
    ([*GENERATE, "--lora", "./nowhere:0.5"], '"./nowhere" is not there'),
    ([*GENERATE, "--lora", "you/nowhere"], '"you/nowhere" is no path here'),
    ([*GENERATE, "--lora", "empty"], "empty holds no adapter"),
    ([*GENERATE, "--lora", "damaged.safetensors"], "damaged.safetensors is damaged"),
    ([*GENERATE, "--lora", "other.safetensors"], "these LoRA weights are for text_model"),
    *(([*GENERATE, "--lora", f"{place}:{weight}"], "its weight must be a finite number") for place, weight in BAD_WEIGHTS),
    ([*GENERATE, "--num-inference-steps", "many"], 'num_inference_steps is "many"'),
    ([*GENERATE, "--num-inference-steps", "2.5"], 'num_inference_steps is "2.5"; give whole numbers'),
    ([*GENERATE, "--num-inference-steps", "0"], "num_inference_steps is 0"),
    ([*GENERATE, "--num-inference-steps", "1,2"], "2 values for 3 stages"),
    ([*GENERATE, "--num-inference-steps", ""], 'num_inference_steps is ""'),
    ([*GENERATE, "--guidance-scale", "nan"], "finite"),
    ([*GENERATE, "--guidance-scale", "-1"], "guidance_scale is -1"),
    ([*GENERATE, "--noise-level", "1000"], "noise_level is 1000"),
    (
        [*GENERATE, "--guider", "Magic"],
        '--guider "Magic" is unknown.*AdaptiveProjectedGuidance, .*TangentialClassifierFreeGuidance, or none',
    ),
    ([*GENERATE, "--guider", "SmoothedEnergyGuidance"], '"SmoothedEnergyGuidance" is unknown, or guides no images'),
    (
        [*GENERATE, "--guider", f"{FREE}:scale=3"],
        'takes no "scale" on the command line; its settings there are guidance_scale, .*start, stop',
    ),
    ([*GENERATE, "--guider", f"{FREE}:guidance_scale=much"], 'guidance_scale is "much"; give a finite number'),
    ([*GENERATE, "--guider", f"{FREE}:guidance_scale=nan"], 'guidance_scale is "nan"; give a finite number'),
    ([*GENERATE, "--guider", f"{FREE}:guidance_scale=3,2"], 'guidance_scale is "3,2"; give one value'),
    ([*GENERATE, "--guider", f"{FREE}:guidance_scale=3,stop="], 'stop is ""; give a finite number'),
    ([*GENERATE, "--guider", f"{FREE}:use_original_formulation=1"], 'use_original_formulation is "1"; give true or false'),
    ([*GENERATE, "--guider", "ClassifierFreeZeroStarGuidance:zero_init_steps=0.5"], "give a whole number"),
    ([*GENERATE, "--guider", f"{FREE}:3"], f'has "3" where a setting should be; write {FREE}:guidance_scale=3'),
    ([*GENERATE, "--guider", f"{FREE}:stop=0.5,stop=0.6"], "has stop twice"),
    ([*GENERATE, "--guider", f"{FREE}:start=2"], f'diffusers refuses --guider "{FREE}:start=2": Expected `start`'),
    ([*GENERATE, "--guider", "SkipLayerGuidance:skip_layer_config=0"], "give a layer with attention, as mid_block.0, or several"),
    ([*GENERATE, "--guider", "SkipLayerGuidance:skip_layer_config=mid_block.x"], "give a layer with attention"),
    ([*GENERATE, "--guider", "none"], "--guider none is for one stage of several; .*give --guidance-scale 1"),
    ([*GENERATE, "--guider", FREE, "--guider", "none"], "guider has 2 values for 3 stages"),
    ([*GENERATE, "--guider", FREE, "--guidance-scale", "3"], "--guider takes the place of --guidance-scale; leave out one of them"),
    ([*GENERATE, "--weights", "--negative-prompt", "a (blue:much)"], 'the prompt "a [(]blue:much[)]" has a colon without a number'),
    ([*GENERATE, "--weights", "--blend-with", "a (blue", "--blend", "0.5"], "opens a parenthesis that is never closed"),
    ([*GENERATE, "--blend", "0.5"], "--blend goes a part of the way to the prompt of --blend-with.*give both, or neither"),
    ([*GENERATE, "--blend-with", "a blue cube"], "give both, or neither"),
    ([*GENERATE, "--stop-at", "9"], "stop_at is 9"),
    ([*GENERATE, "--offload", "disk"], '--offload "disk" is unknown; use one of none, model, sequential'),
    ([*GENERATE, "--offload", "model", "--device", "cpu"], "--offload model keeps networks off a GPU"),
    ([*GENERATE, "--revision", "v2"], "--revision is of a Hub repository"),
    ([*GENERATE, "--width", "50"], "multiples of 8, such as height=64, width=48"),
    ([*GENERATE, "--output", "out/a.xyz"], "ends in .png"),
    ([*GENERATE, "--output", "out/a"], "ends in .png"),
    ([*GENERATE, "--output", "folder.png"], "folder.png is a folder"),
    ([*GENERATE, "--output", "small.png/a.png"], "small.png is a file"),
    ([*GENERATE, "--output", "/proc/nowhere/a.png"], "/proc/nowhere cannot be written"),
    ([*UPSCALE[:1], "notes.txt", *UPSCALE[2:]], "notes.txt is not an image that can be read"),
    ([*UPSCALE[:1], "damaged.png", *UPSCALE[2:]], "damaged.png cannot be read as an image"),
    ([*UPSCALE[:1], "floats.tiff", *UPSCALE[2:]], 'image is a PIL image of mode "F"'),
    ([*UPSCALE[:1], "large.png", *UPSCALE[2:]], r"no stage enlarges an image of 64px by itself; .*--start-at 3\) beside a scale"),
    ([*UPSCALE[:1], "large.png", *UPSCALE[2:], "--scale", "0.5"], "scale is 0.5, and stages only make images larger"),
    ([*UPSCALE, "--scale", "100000"], "scale is 100000.0, and no side of a result is longer than 65535 pixels; give at most 65535"),
    ([*UPSCALE, "--scale", "5000"], "scale is 5000.0, .*; give at most 4095.93"),
    ([*UPSCALE, "--height", "100000"], "height is 100000; it must be at least 1 pixel and at most 65535"),
    (["encode-text", "empty", "--output", "out", "--model", "MODEL"], "empty"),
    (["encode-text", "captioned", "--output", "small.png/a", "--model", "MODEL"], "small.png is a file"),
    (["encode-text", "captioned", "--output", "out", "--model", "TEXTLESS"], "has no text encoder and tokenizer"),
    (["convert", "stable-diffusion", "small.png", "out"], '"stable-diffusion" is unknown'),
    (["convert", "deepfloyd", "./nowhere", "out"], '"./nowhere" is not there'),
    (["convert", "deepfloyd", "MODEL", "out"], "MODEL, whose unet is of ImagenUNet2DConditionModel"),
    (["convert", "deepfloyd", "MODEL", "out", "--raw"], "--raw is not for deepfloyd"),
    (["convert", "imagen-pytorch", "./nowhere", "out"], "nowhere is no file"),
    (["convert", "imagen-pytorch", "notes.txt", "out"], "notes.txt is no file of torch.save"),
    (["convert", "imagen-pytorch", "README.md", "out"], "README.md is no file of torch.save"),
    (["convert", "imagen-pytorch", "tensor.pt", "out"], "tensor.pt holds a Tensor"),
    (["convert", "imagen-pytorch", "code.pt", "out"], "code.pt holds more than weights and settings"),
    (["convert", "imagen-pytorch", "code.pt", "out", "--settings", "notes.txt"], "notes.txt is no JSON"),
    (["convert", "imagen-pytorch", "code.pt", "out", "--settings", "list.json"], "list.json holds a list"),
    (["convert", "imagen-pytorch", "code.pt", "small.png/out"], "small.png is a file"),
]
# Options out of their range, which typer itself refuses, with its own exit code.
USAGE: list[list[str]] = [
    [*GENERATE, "--width", "0"],
    [*GENERATE, "--height", "-8"],
    [*GENERATE, "--num-images-per-prompt", "0"],
    [*GENERATE, "--tile", "0"],
    [*GENERATE, "--stop-at", "0"],
    [*GENERATE, "--seed", "-1"],
    [*GENERATE, "--blend-with", "a blue cube", "--blend", "1.5"],
    [*GENERATE, "--blend-with", "a blue cube", "--blend", "nan"],
    [*GENERATE, "--seed", str(2**64)],
    [*GENERATE, "--magic"],
    ["convert", "imagen-pytorch", "code.pt", "out", "--settings", "nothere.json"],
    ["upscale", "nowhere.png", "a red cube"],
    ["generate"],
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with one of each."""
    path = tmp_path_factory.mktemp("place")
    make_pipeline().save_pretrained(path / "MODEL")
    make_pipeline(text_encoder=None, tokenizer=None).save_pretrained(path / "TEXTLESS")
    for name in ("empty", "folder.png", "captioned", "preset"):
        (path / name).mkdir()
    (path / "preset" / "sampling_preset.json").write_text("{}")
    (path / "captioned" / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "a red cube"}))
    for name, side in (("small.png", 16), ("small-1.png", 16), ("large.png", 64), ("damaged.png", 32), ("captioned/0.png", 4)):
        Image.effect_noise((side, side), 64).save(path / name)
    cut(path / "damaged.png")
    Image.fromarray(np.ones((16, 16), np.float32)).save(path / "floats.tiff")
    (path / "notes.txt").write_text("a red cube")
    (path / "README.md").write_text("# a red cube")
    (path / "list.json").write_text("[1, 2]")
    (path / "code.pt").write_bytes(pickle.dumps(Code(path / "it ran"), protocol=2))
    torch.save(torch.zeros(2), path / "tensor.pt")
    save_file({"text_model.weight": torch.zeros(2)}, path / "other.safetensors")
    (path / "damaged.safetensors").write_bytes((path / "other.safetensors").read_bytes()[:-4])
    return path


@pytest.fixture
def typed(place, monkeypatch) -> Callable:
    """Run the command in that folder; it must leave it as it was."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = sorted(place.rglob("*"))

    def run(words: list[str]):
        result = CliRunner().invoke(app, words)
        assert sorted(place.rglob("*")) == before
        assert "Traceback" not in result.output
        return result

    return run


@pytest.mark.parametrize(("words", "said"), COMMANDS, ids=lambda x: " ".join(x[1:])[:60] if isinstance(x, list) else "")
def test_the_command_says_what_is_wrong_in_a_sentence(typed, words, said) -> None:
    result = typed(words)
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.output.split("\n") if line.startswith("Error: ")]
    assert re.search(said, line), line
    assert "not foreseen" not in line


@pytest.mark.parametrize("words", USAGE, ids=lambda x: " ".join(x[-2:]))
def test_options_out_of_range_are_refused(typed, words) -> None:
    result = typed(words)
    assert result.exit_code == 2 or "Error: fractions are nan" in result.output  # which typer 0.24 takes to be in a range


def test_nothing_is_loaded_for_what_can_be_seen_to_be_wrong(typed, monkeypatch) -> None:
    monkeypatch.setattr(imagen_diffusers.cli.sampling, "prepare", lambda *_: pytest.fail("it was loaded"))
    assert typed([*GENERATE, "--output", "/proc/nowhere/a.png"]).exit_code == 1
    for words in (
        ["--num-inference-steps", "many"],
        ["--guider", "Magic"],
        ["--guider", f"{FREE}:start=2"],
        ["--guider", FREE, "--guidance-scale", "3"],
        ["--weights", "--negative-prompt", "a (blue"],
        ["--blend", "0.5"],
    ):
        assert typed([*GENERATE, *words]).exit_code == 1
    for words in (["--strength", "2"], ["--strength", "0.5,-1"], ["--resize-mode", "zoom"]):
        for command in (["edit", "small.png", "a red cube"], ["vary", "small.png"]):
            assert typed([*command, *words]).exit_code == 1
    assert "mask_image is 64x64 and image 16x16" in typed(["edit", "small.png", "a red cube", "--mask", "large.png"]).output


REFUSED = [
    *((GENERATE, more) for more in ("--guidance-scale 1,2", "--num-inference-steps 0", "--height 100", "--stop-at 4")),
    *((UPSCALE, more) for more in ("--scale 0.5", "--start-at 9", "--noise-level 2000")),
]


@pytest.mark.parametrize(("command", "more"), REFUSED, ids=lambda x: x if isinstance(x, str) else x[0])
def test_what_is_refused_writes_over_nothing_and_does_not_say_so(typed, tmp_path, command, more) -> None:
    there = tmp_path / "there.png"
    there.touch()
    result = typed([*command, *more.split(), "--output", str(there)])
    assert result.exit_code == 1 and "written over" not in result.output, result.output


def test_a_damaged_pipeline_and_a_pickle_are_named(place, typed, tmp_path) -> None:
    model = Path(shutil.copytree(place / "MODEL", tmp_path / "model"))
    weights = model / "unet_2" / "diffusion_pytorch_model.safetensors"
    cut(weights)
    words = ["generate", "a red cube", "--model", str(model)]
    assert f"Error: {weights} is damaged or cut short" in typed(words).output
    weights.unlink()
    (model / "unet_2" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Code(tmp_path / "it ran")))
    result = typed(words)
    assert result.exit_code == 1
    assert "unet_2 holds its weights as a pickle" in result.output
    assert not (tmp_path / "it ran").exists()


def test_a_pipeline_without_a_tokenizer_says_so(place, typed) -> None:
    result = typed(["generate", "a red cube", "--model", "TEXTLESS", "--output", "out/a.png"])
    assert result.exit_code == 1
    assert "Error: this pipeline has no text encoder" in result.output


def test_bundled_names_and_folders_are_one(typed, tmp_path) -> None:
    from imagen_diffusers import bundled

    made = []
    for model in ("imagen-scenes", str(bundled("imagen-scenes"))):
        words = ["generate", "a large red metal sphere", "--model", model, "--stop-at", "1", "--num-inference-steps", "1", "--seed", "1"]
        result = typed([*words, "--output", str(tmp_path / "a.png"), "--dtype", "float32"])
        assert result.exit_code == 0, result.output
        made.append(Image.open(tmp_path / "a.png").tobytes())
    assert made[0] == made[1]


def test_an_unforeseen_error_says_what_to_report(typed, monkeypatch) -> None:
    def fail(*_):
        raise KeyError("sigma")

    monkeypatch.setattr(imagen_diffusers.cli.sampling, "prepare", fail)
    result = typed(GENERATE)
    assert result.exit_code == 1
    for words in ("not foreseen: KeyError: 'sigma'", "Please report", "--debug", "imagen_diffusers 0.", f"torch {torch.__version__}"):
        assert words in result.output
    shown = CliRunner().invoke(app, [*GENERATE, "--debug"])
    assert "Traceback" in shown.output
    assert 'raise KeyError("sigma")' in shown.output


def test_a_lack_of_memory_is_said(typed, monkeypatch) -> None:
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(imagen_diffusers.cli.sampling, "prepare", fail)
    assert "Error: the memory does not suffice; try --offload model, --tile" in typed(GENERATE).output


@pytest.mark.parametrize("kind", ["L", "RGBA", "P", "I;16"])
def test_upscale_takes_images_of_any_kind(place, tmp_path, kind) -> None:
    plain = Image.open(place / "small.png").convert("RGB")
    if kind == "I;16":
        given = Image.fromarray(np.asarray(plain)[..., 0].astype(np.uint16) * 257)
    else:
        given = (plain.convert("L") if kind == "P" else plain).convert(kind)  # a palette of all its greys
    plain.save(tmp_path / "plain.png")
    given.save(tmp_path / "given.png")
    made = []
    for name in ("plain", "given"):
        words = ["upscale", tmp_path / f"{name}.png", "a red cube", "--model", place / "MODEL", "--seed", 1, "--dtype", "float32"]
        result = CliRunner().invoke(app, [str(w) for w in [*words, "--output", tmp_path / "big.png"]])
        assert result.exit_code == 0, result.output
        made.append(Image.open(tmp_path / "big.png").tobytes())
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("kind", "count", "asked", "picked"),
    [
        (None, 0, "auto", "cpu"),
        ("cuda", 2, "auto", "cuda"),
        ("cuda", 2, "cuda:1", "cuda:1"),
        ("mps", 1, "auto", "mps"),
        ("cuda", 2, "cpu", "cpu"),
        ("cuda", 2, "cuda:2", "it has: cpu, cuda, cuda:0, cuda:1"),
        ("cuda", 2, "mps", "not on this machine"),
    ],
)
def test_devices_are_those_of_the_machine(monkeypatch, kind, count, asked, picked) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    if " " not in picked:
        assert pick_device(asked) == picked
        return
    with pytest.raises(ValueError, match=picked):
        pick_device(asked)


CALLS: list[tuple[dict, str]] = [
    ({"prompt": None}, "exactly one of prompt and prompt_embeds"),
    ({"prompt_embeds": torch.zeros(1, 2, 32)}, "exactly one of prompt and prompt_embeds"),
    ({"prompt": None, "prompt_embeds": torch.zeros(2, 32)}, r"they must be \(prompts, tokens, width\)"),
    ({"prompt": None, "prompt_embeds": torch.zeros(1, 2, 31)}, "31 wide but stage unet takes 32"),
    ({"prompt": None, "prompt_embeds": torch.full((1, 2, 32), torch.nan)}, "prompt_embeds hold NaN"),
    ({"negative_prompt": ["a", "b"]}, "2 negative prompts for 1 prompts"),
    ({"width": 50}, "both must be multiples of"),
    ({"width": 0}, "width is 0; it must be at least 1 pixel"),
    ({"height": -64}, "height is -64"),
    ({"num_inference_steps": 0}, "num_inference_steps is 0; it must be"),
    ({"num_inference_steps": "3"}, "num_inference_steps is '3'; it must be a number"),
    ({"num_inference_steps": [1, 2]}, "2 values for 3 stages"),
    ({"guidance_scale": -1}, "guidance_scale is -1"),
    ({"guidance_scale": np.ones(2)}, "guidance_scale has 2 values for 3 stages"),
    ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
    ({"noise_level": 1000}, "noise_level is 1000; it must be .*less than 1000"),
    ({"guidance_interval": (1, 0)}, "0 <= start <= end <= 1"),
    ({"start_at": 2}, "needs image="),
    ({"stop_at": 4}, "this pipeline holds the stages"),
    ({"image": torch.full((1, 3, 16, 16), torch.nan)}, "image holds NaN"),
    ({"image": torch.full((1, 3, 16, 16), 2.0)}, "image has floats from 2 to 2"),
    ({"image": torch.zeros(3, 3, 16, 16), "prompt": ["a", "red"]}, "image"),
    ({"num_inference_steps": 2.9}, "num_inference_steps"),
    ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
    ({"num_images_per_prompt": True}, "num_images_per_prompt is True; it must be a whole number"),
    ({"num_inference_steps": True}, "num_inference_steps is True; it must be a number"),
    ({"stop_at": True}, r"stop_at is True; this pipeline holds the stages \[1, 2, 3\]"),
    ({"callback_on_step_end": IPAdapterScaleCutoffCallback(None, 1)}, "scale of an IP-Adapter, which a cascade does not have"),
    ({"prompt": []}, "prompt"),
    ({"cond_images": torch.zeros(1, 3, 16, 16)}, "take no cond_images"),
    ({"output_type": "jpeg"}, "use one of pil, np, pt"),
    ({"callback_on_step_end_tensor_inputs": ["noise"]}, "a callback can see"),
    ({"callback_on_step_end_tensor_inputs": "latents"}, "tensor_inputs is 'latents'; give a list of names"),
    ({"callback_on_step_end_tensor_inputs": None}, "tensor_inputs is None; give a list of names"),
    ({"negative_prompt_embeds": torch.zeros(1, 2, 31)}, "negative_prompt_embeds are 31 wide and the prompt's 32"),
    ({"guidance_parallel": (1, 0.5, 0)}, r"guidance_parallel is \(1, 0.5, 0\); it must be one finite number"),
    ({"guidance_parallel": None}, "guidance_parallel is None; it must be one finite number"),
    ({"guidance_parallel": float("nan")}, "guidance_parallel is nan; it must be one finite number"),
    ({"timesteps": (t for t in ())}, "timesteps has 1 lists for 3 stages"),
    ({"timesteps": [(t for t in ()), None, None]}, r"timesteps of a stage is \[\]; give a list of at least one time"),
    ({"latents": "x"}, "latents hold 'x'; give a tensor of standard normal noise"),
    ({"latents": np.zeros((1, 3, 16, 16))}, "latents hold a ndarray; give a tensor"),
    ({"latents": 5}, "latents hold 5; give a tensor"),
    ({"latents": [None, "x", None]}, "latents hold 'x'; give a tensor"),
    ({"image": torch.zeros(0, 3, 16, 16)}, r"image is of the shape \(0, 3, 16, 16\); give at least one image of at least one pixel"),
    ({"image": torch.zeros(1, 3, 0, 16, dtype=torch.uint8)}, r"image is of the shape \(1, 3, 0, 16\); give at least"),
    ({"image": np.zeros((0, 16, 3), np.float32)}, r"image is of the shape \(0, 16, 3\); give at least"),
    ({"image": Image.new("RGB", (0, 16))}, r"image is of the shape \(0, 16\); give at least"),
]


@pytest.mark.parametrize(("given", "said"), CALLS, ids=lambda x: ", ".join(x) if isinstance(x, dict) else "")
def test_a_call_says_what_is_wrong_before_any_network_runs(shared_pipe, monkeypatch, given, said) -> None:
    forbid_networks(monkeypatch, shared_pipe)
    with pytest.raises(ValueError, match=said):
        shared_pipe(**{"prompt": "a red cube", **given})


CONFIGS: list[tuple[dict, str]] = [
    ({"null_text": "bogus"}, 'null_text="bogus" is unknown; use one of zeros, empty, learned'),
    ({"text_padding": "bogus"}, 'text_padding="bogus" is unknown; use one of longest, max_length'),
    ({"max_sequence_length": -2}, "max_sequence_length is -2; give .* a whole number of at least 1"),
    ({"max_sequence_length": True}, "max_sequence_length is True; give"),
    ({"clean_caption": "x"}, "clean_caption is 'x'; give True or False"),
    ({"num_inference_steps": 0}, "num_inference_steps is 0; it must be a number of at least 1"),
    ({"num_inference_steps": None}, "num_inference_steps is None; it must be a number"),
    ({"guidance_scale": "3"}, "guidance_scale is '3'; it must be a number"),
    ({"noise_level": (0, 2000, 0)}, "noise_level is 2000; it must be .* less than 1000"),
    ({"guidance_interval": (1, 0)}, "guidance_interval is .* 0 <= start <= end <= 1"),
]


@pytest.mark.parametrize(("given", "said"), CONFIGS, ids=lambda x: str(x) if isinstance(x, dict) else "")
def test_a_configuration_is_checked_where_it_is_given(given, said) -> None:
    for say in (lambda: ImagenCascadePipeline(**given), lambda: ImagenCascadePipeline().register_to_config(**given)):
        with pytest.raises(ValueError, match=said):
            say()


def test_one_value_of_a_configuration_is_for_each_stage(tmp_path) -> None:
    ImagenCascadePipeline(guidance_scale=3.0, guidance_interval=(0.0, 0.5), noise_level=np.array([0.0, 100.0])).save_pretrained(tmp_path)
    pipe = ImagenCascadePipeline.from_pretrained(tmp_path, num_inference_steps=4)
    assert pipe.config.guidance_interval == [[0.0, 0.5]] * 3 and pipe.config.noise_level == [0.0, 100.0]
    assert (pipe.config.guidance_scale, pipe.config.num_inference_steps) == ([3.0] * 3, [4] * 3)
    pipe.register_to_config(num_inference_steps=5)
    assert pipe.config.num_inference_steps == [5] * 3
