"""The command, on the tiny cascade."""

import sys
from collections.abc import Callable
from importlib.metadata import version

import pytest
from diffusers.guiders import AdaptiveProjectedGuidance, SkipLayerGuidance
from diffusers.hooks.layer_skip import LayerSkipConfig
from PIL import Image, ImageChops, ImageOps
from safetensors.torch import save_file
from transformers import T5EncoderModel
from typer.testing import CliRunner

from imagen_diffusers import ImagenCascadeImg2ImgPipeline, ImagenCascadeInpaintPipeline
from imagen_diffusers.cli import app, sampling
from imagen_diffusers.cli.again import first_numbers
from imagen_diffusers.cli.guiders import WITHOUT
from imagen_diffusers.cli.loading import prepare
from imagen_diffusers.cli.options import PipelineOptions
from imagen_diffusers.hub.versions import version_of
from imagen_diffusers.images import read_settings, save_png
from imagen_diffusers.text.blending import slerp
from imagen_diffusers.text.weighting import weighted_embeddings

from .conftest import make_base, make_pipeline, make_sr, make_text_encoder, make_tokenizer, seeded
from .test_data import tar

MOMENTUM = "AdaptiveProjectedGuidance:guidance_scale=4,adaptive_projected_guidance_momentum=-0.5,eta=0"
MOMENTUM_SETTINGS = {"guidance_scale": 4.0, "adaptive_projected_guidance_momentum": -0.5, "eta": 0.0}
SKIP = "SkipLayerGuidance:guidance_scale=3,skip_layer_config=mid_block.0,skip_layer_guidance_start=0,skip_layer_guidance_stop=1"
MIDDLE = LayerSkipConfig([0], fqn="mid_block", skip_ff=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("cascade")
    make_pipeline().save_pretrained(path)
    return str(path)


def call(*words: object):
    return CliRunner().invoke(app, [str(w) for w in words])


def test_a_library_that_is_not_installed_has_no_version() -> None:
    assert version_of("torch")[0].isdigit() and version_of("no such library") == "not installed"


def test_generate_writes_a_image_that_remembers_its_settings(folder, tmp_path) -> None:
    path = tmp_path / "image.png"
    result = call(
        "generate", "a red cube", "--model", folder, "--output", path, "--seed", 7, "--num-inference-steps", "3,2,1", "--dtype", "float32"
    )
    assert result.exit_code == 0, result.output
    assert Image.open(path).size == (64, 64)
    told = read_settings(path)
    assert told["prompt"] == "a red cube"
    assert told["seed"] == 7
    assert told["num_inference_steps"] == [3, 2, 1]


def test_several_images_and_their_grid(folder, tmp_path) -> None:
    many, alone = tmp_path / "p.png", tmp_path / "alone.png"
    plain = ["generate", "a red cube", "--model", folder, "--dtype", "float32", "--stop-at", 1, "--scheduler", "dpm++"]
    anew = call(*plain, "--output", many, "--num-images-per-prompt", 3, "--seed", 5)
    assert anew.exit_code == 0 and "written over" not in anew.output
    assert call(*plain, "--output", alone, "--seed", 6).exit_code == 0
    assert Image.open(tmp_path / "p-2.png").tobytes() == Image.open(alone).tobytes()
    grid = Image.open(tmp_path / "p-grid.png")
    assert grid.width == 2 * 128  # of 16px, whose labels would run into each other
    assert grid.crop((0, 28, 128, 156)).resize((16, 16), 0).tobytes() == Image.open(tmp_path / "p-1.png").tobytes()
    assert read_settings(tmp_path / "p-3.png")["seed"] == 7
    assert read_settings(tmp_path / "p-grid.png")["seeds"] == [5, 6, 7]
    result = call("generate", "--from", tmp_path / "p-grid.png", "--output", alone)  # its first image
    assert result.exit_code == 0 and "Of 3 seeds the first, 5; --seed 6 for another." in result.output
    assert f"{alone} is there, and will be written over." in result.output
    (tmp_path / "p-1.png").unlink()
    result = call(*plain, "--output", many, "--num-images-per-prompt", 3, "--seed", 5)
    assert result.exit_code == 0 and f"{tmp_path / 'p-2.png'} and 2 more are there, and will be written over." in result.output
    assert Image.open(tmp_path / "p-1.png").tobytes() == Image.open(alone).tobytes()


def test_images_made_before_an_error_are_kept(folder, tmp_path, monkeypatch) -> None:
    seeds = []

    def third_fails(pipe, *, generator, **arguments):
        seeds.append(generator.initial_seed())
        if len(seeds) == 3:
            raise MemoryError
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(sampling, "_draw", third_fails)
    result = call("generate", "a red cube", "--model", folder, "--output", tmp_path / "p.png", "--num-images-per-prompt", 4, "--seed", 5)
    assert result.exit_code == 1 and "--offload model" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p-1.png", "p-2.png"]
    assert [read_settings(tmp_path / f"p-{i}.png")["seed"] for i in (1, 2)] == seeds[:2] == [5, 6]


def test_upscale(folder, tmp_path) -> None:
    small, big = tmp_path / "small.png", tmp_path / "big.png"
    Image.new("RGB", (32, 32), "red").save(small)
    result = call("upscale", small, "a red cube", "--model", folder, "--output", big, "--seed", 1)
    assert result.exit_code == 0, result.output
    assert Image.open(big).size == (64, 64)
    Image.new("RGB", (48, 32), "red").save(small)
    larger = call("upscale", small, "a red cube", "--model", folder, "--output", big, "--seed", 1, "--tile", 32)
    assert larger.exit_code == 0, larger.output
    assert "--tile is the side of each tile in pixels: of 32 they are many" in larger.output
    assert Image.open(big).size == (96, 64)


@pytest.mark.thorough
def test_upscale_by_a_factor_and_to_a_size(folder, tmp_path) -> None:
    small, big = tmp_path / "small.png", tmp_path / "big.png"
    Image.new("RGB", (24, 16), "red").save(small)
    plain = ["upscale", small, "a red cube", "--model", folder, "--output", big, "--seed", 1]
    for more, size in (
        (["--scale", 3], (72, 48)),
        (["--width", 64, "--height", 32], (64, 32)),
        (["--start-at", 3, "--scale", 2], (48, 32)),
        (["--width", 48], (48, 32)),
        (["--height", 64], (96, 64)),
    ):
        result = call(*plain, *more)
        assert result.exit_code == 0, result.output
        assert Image.open(big).size == size
    assert "not both" in call(*plain, "--scale", 2, "--width", 64).output
    for scale in (-1, 0.5, 1):
        refused = call(*plain, "--scale", scale)
        assert refused.exit_code == 1
        assert f"scale is {float(scale)}, and stages only make images larger" in " ".join(refused.output.split())


def test_upscale_a_folder(folder, tmp_path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    for i, color in enumerate(("red", "blue")):
        Image.new("RGB", (32, 32), color).save(small / f"{i}.png")
    (small / "notes.txt").write_text("none of them")
    plain = ["upscale", small, "a red cube", "--model", folder, "--seed", 1, "--dtype", "float32"]
    result = call(*plain, "--output", large)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in large.glob("*.png")) == ["0.png", "1.png"]
    alone = tmp_path / "alone.png"
    call("upscale", small / "1.png", *plain[2:], "--output", alone)
    assert Image.open(large / "1.png").tobytes() == Image.open(alone).tobytes()
    assert "give a folder" in call(*plain).output
    Image.new("RGB", (32, 32)).save(small / "1.jpg")
    assert "several images named 1" in call(*plain, "--output", large).output
    (tmp_path / "empty" / "album").mkdir(parents=True)
    (small / "1.jpg").unlink()
    Image.new("RGB", (64, 64)).save(small / "3.png")
    stopped = call(*plain[:1], small, *plain[2:], "--output", large)
    assert f"{small / '3.png'}: no stage enlarges an image of 64px" in stopped.output.replace("\n", "")
    Image.new("RGB", (32, 32)).save(tmp_path / "empty" / "album" / "4.png")
    nothing = call("upscale", tmp_path / "empty", "a red cube", "--model", folder, "--output", large).output.replace("\n", "")
    assert "holds no image; give a folder" in nothing and f"such as {tmp_path / 'empty' / 'album'}" in nothing


def test_upscaling_a_folder_says_what_it_passes_over(folder, tmp_path) -> None:
    for place in ("0.png", "album/1.png", "album/.thumbs/1.png", "trip/day/2.png", "trip/notes.png/3.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(tmp_path / place, "PNG")
    words = ["upscale", tmp_path, "a red cube", "--model", folder, "--seed", 1, "--output", tmp_path / "large", "--num-inference-steps", 1]
    for enlarged_before in (0, 1):  # and what lies in its output's folder is not taken for left out
        said = call(*words).output.replace("\n", "")
        assert f"left out: images in folders within {tmp_path}, such as {tmp_path / 'album' / '1.png'}" in said
        assert f"1 enlarged, {enlarged_before} of them before" in said
    (tmp_path / "album" / "1.png").unlink()
    assert f"{tmp_path / 'trip' / 'day' / '2.png'}{tmp_path / 'large'}: 1 enlarged" in call(*words).output.replace("\n", "")


def test_upscaling_a_folder_goes_on(folder, tmp_path, monkeypatch) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    for i, color in enumerate(("red", "blue")):
        Image.new("RGB", (32, 32), color).save(small / f"{i}.png")
    words = ["upscale", small, "a red cube", "--model", folder, "--dtype", "float32", "--output", large]
    words += ["--num-images-per-prompt", 2, "--num-inference-steps", 1]
    assert call(*words, "--seed", 3).exit_code == 0
    whole = {path.name: path.read_bytes() for path in large.glob("*.png")}
    assert len(whole) == 6
    (large / "0-1.png").unlink()  # the seed is told by what is left
    before = (large / "1-1.png").stat().st_mtime_ns
    result = call(*words)
    assert result.exit_code == 0 and "2 enlarged, 1 of them before" in result.output, result.output
    assert {path.name: path.read_bytes() for path in large.glob("*.png")} == whole and (large / "1-1.png").stat().st_mtime_ns == before
    monkeypatch.setattr("imagen_diffusers.cli.sampling.prepare", lambda *_: pytest.fail("a model was loaded"))
    assert "2 enlarged, 2 of them before" in call(*words).output
    assert "another run (scale is None, not 1.5)" in " ".join(call(*words, "--scale", 1.5).output.split())
    Image.new("RGB", (32, 32), "white").save(small / "1.png")
    assert "1-1.png is an image of another run (source is " in " ".join(call(*words).output.split())
    (large / "0-1.png").write_text("half an image")
    assert "0-1.png is in the way of an image" in " ".join(call(*words).output.split())


def test_upscale_a_folder_of_any_kinds_of_images_into_one_of_any_name(folder, tmp_path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for name, kind in (("a.jfif", "JPEG"), ("b.gif", "GIF"), (".c.png", "PNG"), ("d.mpg", "PNG")):
        Image.new("RGB", (32, 32), "red").save(small / name, kind)
    plain = ["upscale", small, "a red cube", "--model", folder, "--seed", 1]
    result = call(*plain, "--output", tmp_path / "large.v2")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "large.v2").glob("*.png")) == ["a.png", "b.png"]
    assert "give a folder" in call(*plain, "--output", small / "a.jfif").output
    Image.new("RGB", (16, 16), "blue").save(small / "a.png")
    beside = call(*plain, "--output", tmp_path / "beside")
    assert beside.exit_code == 0 and "left out, beside images of the same names: a.jfif" in beside.output
    assert sorted(path.name for path in (tmp_path / "beside").glob("*.png")) == ["a.png", "b.png"]
    (small / "z.png").write_text("no image")
    refused = call(*plain, "--output", tmp_path / "other")
    assert refused.exit_code == 1 and f"{small / 'z.png'}" in refused.output.replace("\n", "")
    assert not (tmp_path / "other").exists()


def test_an_empty_prompt_is_told_of(folder, tmp_path) -> None:
    plain = ["--model", folder, "--stop-at", 1, "--num-inference-steps", 1, "--output", tmp_path / "a.png"]
    for prompt, is_told in (("", True), (" ", True), ("a red cube", False)):
        result = call("generate", prompt, *plain)
        assert result.exit_code == 0 and ("The prompt is empty" in result.output) == is_told, result.output
        blended = call("generate", "a red cube", "--blend", 0.5, "--blend-with", prompt, *plain)
        assert blended.exit_code == 0 and ("--blend-with is empty" in blended.output) == is_told, blended.output


def test_unknown_words_are_said(folder, tmp_path, caplog) -> None:
    result = call("generate", "a red dragon", "--model", folder, "--output", tmp_path / "p.png", "--stop-at", 1)
    assert result.exit_code == 0
    assert "never saw: dragon" in caplog.text
    assert "sphere" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scheduler", "magic"], "magic"),
        (["--dtype", "int8"], "int8"),
        (["--preset", "slow"], "slow"),
        (["--num-inference-steps", "many"], "many"),
        (["--num-inference-steps", "1,2"], "2 values for 3 stages"),
        (["--width", "50"], "multiples of"),
    ],
)
def test_bad_options_are_one_line(folder, tmp_path, words, message) -> None:
    result = call("generate", "a red cube", "--model", folder, "--output", tmp_path / "p.png", *words)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["generate", "a", "red", "cube"], "red cube"),
        (["generate", "a cube", "--num-inference-steps", "16", "12", "2"], "12 2"),
        (["web", "a cube"], "a cube"),
    ],
)
def test_words_that_are_left_over_are_told_how_they_stay_together(words, left) -> None:
    result = call(*words)
    assert result.exit_code == 2 and f'Error: "{left}" is left over; put a prompt in quotes' in result.output


def test_a_missing_model_is_one_line(tmp_path) -> None:
    result = call("generate", "a red cube", "--model", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "nowhere" in result.output


def test_an_adapter_changes_the_image_as_much_as_its_weight_says(folder, tmp_path) -> None:
    from imagen_diffusers.models.lora import add_lora, lora_layers, lora_metadata

    from .test_lora import wake

    pipe = make_pipeline()
    add_lora(pipe.unet, rank=2)
    wake(pipe.unet, 1)
    pipe.save_lora_weights(tmp_path / "look", unet_lora_layers=lora_layers(pipe.unet), unet_lora_adapter_metadata=lora_metadata(pipe.unet))
    plain = ["generate", "a red cube", "--model", folder, "--dtype", "float32", "--stop-at", 1, "--seed", 5]
    drawn = {}
    for name, more in {"none": [], "off": [f"{tmp_path / 'look'}:0"], "on": [tmp_path / "look"]}.items():
        path = tmp_path / f"{name}.png"
        result = call(*plain, "--output", path, *(["--lora", *more] if more else []))
        assert result.exit_code == 0, result.output
        drawn[name] = Image.open(path).tobytes()
    assert drawn["off"] == drawn["none"] != drawn["on"]
    assert read_settings(tmp_path / "on.png")["lora"] == [str(tmp_path / "look")]
    assert prepare(PipelineOptions(model=folder, lora=[str(tmp_path / "look")])).fused_loras == {"lora_0"}  # which is quicker
    result = call(*plain, "--lora", tmp_path / "nowhere", "--output", tmp_path / "x.png")
    assert "Error:" in result.output


def test_a_learned_word_is_said_by_the_prompt(folder, tmp_path) -> None:
    """With the row of another word it is that word."""
    pipe = make_pipeline()
    row = pipe.text_encoder.get_input_embeddings().weight.detach()[pipe.tokenizer.convert_tokens_to_ids("blue")]
    save_file({"<mine>": row[None].clone()}, tmp_path / "learned_embeds.safetensors")
    drawn = {}
    for name, prompt, more in (("blue", "a blue cube", []), ("mine", "a <mine> cube", ["--textual-inversion", tmp_path])):
        path = tmp_path / f"{name}.png"
        result = call("generate", prompt, "--model", folder, "--dtype", "float32", "--stop-at", 1, "--seed", 5, "--output", path, *more)
        assert result.exit_code == 0, result.output
        drawn[name] = Image.open(path).tobytes()
    assert drawn["mine"] == drawn["blue"] and read_settings(path)["textual_inversion"] == [str(tmp_path)]
    (tmp_path / "word.pt").write_bytes(b"")
    result = call("generate", "a cube", "--model", folder, "--textual-inversion", tmp_path / "word.pt", "--output", tmp_path / "x.png")
    assert "a learned word is a .safetensors file" in result.output.replace("\n", " ")
    result = call("generate", "a cube", "--model", folder, "--textual-inversion", folder, "--output", tmp_path / "x.png")
    assert f'--textual-inversion is "{folder}", which holds no learned_embeds.safetensors' in result.output.replace("\n", " ")


def test_encode_text_goes_on_where_it_stopped(folder, tmp_path, monkeypatch) -> None:
    import json

    import datasets

    from imagen_diffusers.training.text_cache import TextCache

    data = tmp_path / "data"
    data.mkdir()
    for i in range(2):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(data / f"{i}.png")
    lines = [{"file_name": "0.png", "text": "a red cube"}, {"file_name": "1.png", "text": "a blue sphere"}]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.delattr(datasets, "load_dataset")  # which copies what captions are read from
    for _ in range(2):
        result = call("encode-text", data, "--output", tmp_path / "cache", "--model", folder)
        assert result.exit_code == 0, result.output
        assert "2 captions" in result.output
    index = json.loads((tmp_path / "cache" / "index.json").read_text())
    assert TextCache(tmp_path / "cache", index["fingerprint"])("a red cube").shape == (4, 32)
    for i in range(2):
        tar(tmp_path / "shards" / f"{i}.tar", [Image.new("RGB", (4, 4))] * 2)
    for names in ([tmp_path / "shards" / "*.tar"], sorted((tmp_path / "shards").iterdir())):
        result = call("encode-text", *names, "--output", tmp_path / "of-shards", "--model", folder)
        assert result.exit_code == 0 and "4 captions" in result.output, result.output
    result = call("encode-text", data, tmp_path / "shards", "--output", tmp_path / "cache", "--model", folder)
    assert result.exit_code == 0 and "6 captions" in result.output, result.output
    result = call("encode-text", data, "user/set", "--output", tmp_path / "cache", "--model", folder)
    assert "user/set is no folder: give several folders, or several shards (.tar, .parquet), or one Hub id" in " ".join(
        result.output.split()
    )
    result = call("encode-text", tmp_path / "nowhere", "--output", tmp_path / "cache", "--model", folder)
    assert result.output.startswith("Error:"), result.output
    make_text_encoder().save_pretrained(tmp_path / "t5")
    make_tokenizer().save_pretrained(tmp_path / "t5")
    other = ["encode-text", data, "--output", tmp_path / "other", "--model", "imagen-medium"]
    assert "holds configurations and no weights" in call(*other).output
    result = call(*other, "--text-encoder", tmp_path / "t5")
    assert result.exit_code == 0 and "2 captions" in result.output, result.output
    assert "is not there" in call(*other, "--text-encoder", tmp_path / "t6").output
    in_half = ["encode-text", data, "--output", tmp_path / "half", "--model", folder, "--dtype"]
    assert "in float16 T5 overflows" in call(*in_half, "float16").output
    for more in ([], ["--text-encoder", tmp_path / "t5"]):  # the same encoder
        assert call(*in_half, "bfloat16", *more).exit_code == 0
    assert json.loads((tmp_path / "half" / "index.json").read_text())["dtype"] == "bfloat16"
    assert "was encoded in bfloat16" in call(*in_half, "auto", "--device", "cpu").output


def test_a_wrong_value_is_told_of_before_what_is_not_installed(tmp_path, monkeypatch) -> None:
    for module in ("datasets", "matplotlib", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "prompts.txt").write_text("a red cube")
    encode = ["encode-text", tmp_path, "--output", tmp_path / "cache"]
    curve = ["evaluate", "--prompts", tmp_path / "prompts.txt", "--output", tmp_path / "report", "--guidance", "1,2"]
    for words, said in (
        ([*encode, "--device", "warp"], '--device "warp" is not on this machine'),
        ([*encode, "--model", "nowhere"], '"nowhere" is not there'),
        ([*curve, "--scorer", "tests.measures:bright", "--num-prompts", 2], "--num-prompts is 2"),
        ([*curve, "--scorer", "tests.measures:bright", "--model", "nowhere"], '"nowhere" is not there'),
    ):
        assert said in call(*words).output


def test_former_spellings_and_those_of_scripts_are_read(folder, tmp_path) -> None:
    images = []
    for spelt in (
        ["--num-inference-steps", 1, "--stop-at", 1],
        ["--steps", 1, "--stages", 1],
        ["--num_inference_steps", 1, "--stop_at", 1],
    ):
        path = tmp_path / "image.png"
        result = call("generate", "a red cube", "--model", folder, "--output", path, "--seed", 7, "--dtype", "float32", *spelt)
        assert result.exit_code == 0, result.output
        images.append(Image.open(path).tobytes())
    assert images[0] == images[1] == images[2]
    shown = CliRunner().invoke(app, ["generate", "--help"], env={"COLUMNS": "80"}).output
    assert "--num-images-per-prompt" in shown and "--num-inference-steps" in shown  # whole, on a narrow terminal
    assert "--steps" not in shown
    assert "--stages" not in shown


@pytest.mark.parametrize("kind", ["model", "sequential"])
def test_offload_is_diffusers_own(folder, monkeypatch, kind) -> None:
    from imagen_diffusers import ImagenCascadePipeline
    from imagen_diffusers.cli import loading
    from imagen_diffusers.cli.options import PipelineOptions

    seen = []
    monkeypatch.setattr(loading, "pick_device", lambda _: "cuda")
    for name in ("model", "sequential"):
        given = f"enable_{name}_cpu_offload"
        monkeypatch.setattr(ImagenCascadePipeline, given, lambda self, device, given=given: seen.append((given, device)))
    loading.prepare(PipelineOptions(model=str(folder), offload=kind, dtype="float32"))
    assert seen == [(f"enable_{kind}_cpu_offload", "cuda")]


def test_enlarging_by_stages_that_take_no_text_needs_no_text_encoder(tmp_path) -> None:
    sr = make_sr(encoder_hid_dim=None, attention_kind="self")
    pipe = make_pipeline(unet_2=sr, unet_3=None, scheduler_3=None, tokenizer=None, text_encoder=None)
    pipe.save_pretrained(tmp_path / "model")
    Image.effect_noise((16, 16), 64).save(tmp_path / "small.png")
    words = ["upscale", tmp_path / "small.png", "a red cube", "--model", tmp_path / "model", "--output", tmp_path / "large.png"]
    result = call(*words, "--dtype", "float32")
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "large.png").size == (32, 32)


def test_a_model_whose_networks_take_no_text_samples_without(tmp_path) -> None:
    make_pipeline(unet=make_base(encoder_hid_dim=None), unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None).save_pretrained(
        tmp_path / "model"
    )
    path = tmp_path / "image.png"
    result = call("generate", "anything", "--model", tmp_path / "model", "--output", path, "--seed", 7, "--num-inference-steps", 1)
    assert result.exit_code == 0, result.output
    assert "take no text" in result.output
    assert read_settings(path)["prompt"] == "anything"


def test_an_image_is_generated_again_from_its_file(folder, tmp_path) -> None:
    first, again, other = tmp_path / "first.png", tmp_path / "again.png", tmp_path / "other.png"
    plain = ["--model", folder, "--dtype", "float32", "--stop-at", 2, "--scheduler", "dpm++", "--guidance-scale", "2,1.5"]
    assert call("generate", "a red cube", *plain, "--num-inference-steps", "3,2", "--seed", 5, "--output", first).exit_code == 0
    result = call("generate", "--from", first, "--output", again)
    assert result.exit_code == 0, result.output
    assert Image.open(again).tobytes() == Image.open(first).tobytes()
    assert {**read_settings(again), "device": ""} == {**read_settings(first), "device": ""}
    assert call("generate", "a blue cube", "--from", first, "--seed", 6, "--output", other).exit_code == 0
    said = read_settings(other)
    assert (said["prompt"], said["seed"], said["num_inference_steps"]) == ("a blue cube", 6, [3, 2])


def test_fewer_stages_of_a_file_have_its_first_numbers_and_another_model_its_own_revision(folder, tmp_path) -> None:
    first, base = tmp_path / "first.png", tmp_path / "base.png"
    plain = ["--model", folder, "--dtype", "float32", "--num-inference-steps", "3,2,1", "--seed", 5]
    assert call("generate", "a red cube", *plain, "--output", first).exit_code == 0
    result = call("generate", "--from", first, "--stop-at", 1, "--output", base)
    assert result.exit_code == 0, result.output
    assert read_settings(base)["num_inference_steps"] == 3
    save_png(Image.open(first), first, {**read_settings(first), "model": "someone/there", "revision": "v2", "variant": "fp16"})
    result = call("generate", "--from", first, "--model", folder, "--stop-at", 1, "--output", base)
    assert result.exit_code == 0, result.output
    assert (read_settings(base)["model"], read_settings(base)["revision"]) == (folder, None)


def test_fewer_stages_of_a_file_have_its_first_guiders_and_no_sides_of_its_last(folder, tmp_path) -> None:
    first, base = tmp_path / "first.png", tmp_path / "base.png"
    told = {"prompt": "a red cube", "seed": 5, "model": folder, "dtype": "float32", "guider": [WITHOUT, MOMENTUM, WITHOUT]}
    save_png(Image.new("RGB", (64, 64)), first, {**told, "num_inference_steps": [2, 1, 1]})
    again = ["generate", "--from", first, "--stop-at", 1, "--output", base]
    result = call(*again)
    assert result.exit_code == 0, result.output
    assert (read_settings(base)["guidance_scale"], read_settings(base).get("guider")) == (1, None)
    assert first_numbers([WITHOUT, MOMENTUM, WITHOUT], 2) == [WITHOUT, MOMENTUM]
    save_png(Image.new("RGB", (96, 64)), first, {**told, "height": 64, "width": 96})
    result = call(*again)
    assert result.exit_code == 1 and "made with --height and --width, of its own last stage's image; give" in result.output
    assert "made with --width, of its own last stage's" in call(*again, "--height", 16).output
    edit = ["edit", first, "--from", first, "--stop-at", 1, "--output", base]
    assert "made with --height and --width, of its own last stage's" in call(*edit).output


def test_one_number_for_all_stages_is_remembered(folder, tmp_path) -> None:
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    plain = ["--model", folder, "--dtype", "float32", "--stop-at", 1, "--num-inference-steps", 2, "--guidance-scale", 1.5]
    assert call("generate", "a red cube", *plain, "--output", first).exit_code == 0
    result = call("generate", "--from", first, "--output", again)
    assert result.exit_code == 0, result.output
    assert Image.open(again).tobytes() == Image.open(first).tobytes()


@pytest.mark.thorough
def test_weights_blends_and_guiders_are_remembered(folder, tmp_path) -> None:
    first, again, other = tmp_path / "first.png", tmp_path / "again.png", tmp_path / "other.png"
    said = ["--weights", "--negative-prompt", "a (blue:0.5) sphere", "--blend-with", "the (green:2) sphere left", "--blend", 0.4]
    guiders = ["--guider", MOMENTUM, "--guider", "none", "--guider", "ClassifierFreeGuidance:guidance_scale=2,stop=0.6"]
    words = ["generate", "a (red:1.5) cube", "--model", folder, "--dtype", "float32", *said, *guiders, "--output", first]
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert call("generate", "--from", first, "--output", again).exit_code == 0
    assert Image.open(again).tobytes() == Image.open(first).tobytes()
    told = read_settings(first)
    assert read_settings(again) == told
    assert (told["weights"], told["blend"], told["guider"]) == (True, 0.4, guiders[1::2])
    # A guider and a guidance scale take each other's place, and what is said goes before what is remembered.
    for more, changed in ((["--guidance-scale", 2], {"guidance_scale": 2}), (["--guider", MOMENTUM], {"guider": [MOMENTUM]})):
        assert call("generate", "--from", first, "--output", other, *more, "--no-weights").exit_code == 0
        told.pop("guider", None)
        assert read_settings(other) == {**told, "weights": False, **changed}
        assert call("generate", "--from", other, "--output", again).exit_code == 0
        assert Image.open(again).tobytes() == Image.open(other).tobytes() != Image.open(first).tobytes()


def test_what_cannot_be_generated_again_is_said(folder, tmp_path) -> None:
    plain, large = tmp_path / "plain.png", tmp_path / "large.png"
    Image.new("RGB", (32, 32)).save(plain)
    assert "does not say how it was made" in call("generate", "--from", plain, "--model", folder).output
    assert call("upscale", plain, "a red cube", "--model", folder, "--output", large).exit_code == 0
    assert "was made by upscale of another image" in call("generate", "--from", large).output
    save_png(Image.open(plain), large, {"task": "ImagenCascadeInpaintPipeline"})
    told = call("generate", "--from", large).output
    assert f"its file does not hold; give an image made by generate, or this one to edit, as --from {large}" in told
    (tmp_path / "notes.txt").write_text("a red cube")
    assert "notes.txt is not an image that can be read; give" in call("generate", "--from", tmp_path / "notes.txt").output
    made = tmp_path / "made.png"
    assert call("generate", "a red cube", "--model", folder, "--output", made).exit_code == 0
    assert f"--output would write over {made}, which is read" in call("generate", "--from", made, "--output", made).output
    assert "it is missing; say what to generate" in call("generate", "--model", folder).output


def test_an_image_is_edited_again_by_its_file(folder, tmp_path) -> None:
    image, mask, first, again = (tmp_path / f"{name}.png" for name in ("image", "mask", "first", "again"))
    Image.effect_noise((32, 32), 60).save(image)
    Image.effect_noise((32, 32), 99).save(mask)
    marked = ["edit", image, "--mask", mask]
    said = ["--strength", 0.5, "--seamless", "--width", 32, "--height", 16, "--seed", 5, "--stop-at", 1, "--model", folder]
    assert call(*marked, "a red cube", *said, "--negative-prompt", "a sphere", "--dtype", "float32", "--output", first).exit_code == 0
    result = call(*marked, "--from", first, "--output", again)
    assert result.exit_code == 0, result.output
    assert Image.open(again).tobytes() == Image.open(first).tobytes()
    assert read_settings(again) == read_settings(first)
    generated = {"prompt": "a red cube", "seed": 5, "num_inference_steps": [2, 1], "stop_at": 2, "negative_prompt": "a sphere"}
    varied = {"strength": [0.5, 1.0]}  # as `vary` remembers it
    save_png(Image.open(image), first, {**generated, **varied, "model": folder})
    result = call(*marked, "a blue cube", "--from", first, "--seed", 6, "--stop-at", 1, "--output", again)
    assert result.exit_code == 0, result.output
    told = read_settings(again)
    assert {name: told[name] for name in generated} == {
        **generated,
        "prompt": "a blue cube",
        "seed": 6,
        "stop_at": 1,
        "num_inference_steps": 2,
    }
    assert told["strength"] == 0.5


def test_an_edit_goes_on_from_its_small_result_by_its_file(folder, tmp_path) -> None:
    image, small, out = (tmp_path / f"{name}.png" for name in ("image", "small", "out"))
    Image.effect_noise((32, 32), 60).save(image)
    told = {"prompt": "a red cube", "seed": 5, "model": folder, "dtype": "float32", "stop_at": 1, "num_inference_steps": 2}
    save_png(Image.new("RGB", (16, 16), "red"), small, told)
    from_it = ["edit", image, "--from", small, "--low-res", small]
    assert call(*from_it, "--output", out).exit_code == 0
    assert Image.open(out).size == (64, 64)
    for remembered, more, steps in (
        ({"stop_at": 3, "num_inference_steps": [3, 2, 1]}, [], [2, 1]),
        ({"stop_at": 3, "num_inference_steps": [2, 1], "start_at": 2, "low_res_digest": ""}, ["--stop-at", 2], 2),
    ):
        save_png(Image.new("RGB", (16, 16), "red"), small, {**told, **remembered})
        result = call(*from_it, *more, "--output", out)
        assert result.exit_code == 0, result.output
        assert read_settings(out)["num_inference_steps"] == steps


def test_files_that_no_edit_can_go_by_are_said(tmp_path) -> None:
    image, made, out = (tmp_path / f"{name}.png" for name in ("image", "made", "out"))
    Image.new("RGB", (8, 8)).save(image)
    edited, painted = {"task": "ImagenCascadeImg2ImgPipeline"}, {"task": "ImagenCascadeInpaintPipeline"}
    for told, said in (
        (painted, "made with another image, which its file does not hold; give --mask or --mask-alpha, too"),
        ({**edited, "low_res_digest": ""}, "does not hold; give --low-res, too"),
        ({**edited, "prompt": None}, "it is missing; say what the result shows"),
        ({"task": "ImagenCascadeUpscalePipeline"}, "give an image made by generate, edit or vary"),
        ({**painted, "left": None}, "give an image made by generate, edit or vary"),
    ):
        save_png(Image.open(image), made, {"prompt": "a red cube", "seed": 5, **told})
        assert said in call("edit", image, "--from", made, "--output", out).output.replace("\n", " ")
    save_png(Image.open(image), made, {"prompt": "a red cube", "seed": 5})
    assert f"--output would write over {made}" in call("edit", image, "--from", made, "--output", made).output


@pytest.mark.parametrize("command", ["edit", "vary"])
def test_edits_go_on_from_a_small_result(folder, tmp_path, command) -> None:
    image, mask, small, out = (tmp_path / f"{name}.png" for name in ("image", "mask", "small", "out"))
    Image.effect_noise((64, 64), 60).convert("RGB").save(image)
    Image.effect_noise((64, 64), 60).save(mask)
    Image.new("RGB", (32, 32), "red").save(small)
    words = {"edit": ["edit", image, "a red cube", "--strength", 0.5, "--mask", mask], "vary": ["vary", image]}[command]
    words += ["--model", folder, "--dtype", "float32", "--seed", 1, "--low-res", small, "--start-at", 3, "--num-inference-steps", 2]
    result = call(*words, "--output", out)
    assert result.exit_code == 0, result.output
    kind = {"edit": ImagenCascadeInpaintPipeline, "vary": ImagenCascadeImg2ImgPipeline}[command]
    told = {"edit": {"prompt": "a red cube", "strength": 0.5, "mask_image": Image.open(mask)}, "vary": {"strength": 1.0}}[command]
    call_of_it = {"image": Image.open(image), "low_res": Image.open(small), "start_at": 3, "num_inference_steps": 2, **told}
    expected = kind.from_pretrained(folder)(**call_of_it, generator=seeded(1)).images[0]
    assert max(high for _, high in ImageChops.difference(Image.open(out), expected).getextrema()) <= 1  # rounded to the next level
    assert read_settings(out)["start_at"] == 3
    assert f"--output would write over {small}" in call(*words, "--output", small).output.replace("\n", " ")


@pytest.mark.thorough
def test_edit_vary_and_extend(folder, tmp_path) -> None:
    image, mask, out = tmp_path / "image.png", tmp_path / "mask.png", tmp_path / "out.png"
    Image.effect_noise((64, 64), 60).convert("RGB").save(image)
    marked = Image.new("L", (64, 64))
    marked.paste(255, (8, 8, 40, 40))
    marked.save(mask)
    plain = ["--model", folder, "--seed", 1, "--dtype", "float32", "--output", out]

    assert call("edit", image, "a red cube", "--mask", mask, "--jump-n-sample", 2, *plain).exit_code == 0
    kept = Image.open(out).crop((41, 0, 64, 64))
    assert kept.tobytes() == Image.open(image).crop((41, 0, 64, 64)).tobytes()
    painted, erased = Image.open(out).tobytes(), Image.open(image)
    erased.putalpha(ImageOps.invert(marked))
    erased.save(alpha := tmp_path / "erased.png")
    assert call("edit", alpha, "a red cube", "--mask-alpha", "--jump-n-sample", 2, *plain).exit_code == 0
    assert Image.open(out).tobytes() == painted
    large = tmp_path / "large.png"
    Image.open(image).resize((192, 160)).save(large)
    Image.open(mask).resize((192, 160)).save(mask)
    assert call("edit", large, "a red cube", "--mask", mask, "--padding-mask-crop", 4, *plain).exit_code == 0
    assert read_settings(out)["padding_mask_crop"] == 4
    assert Image.open(out).size == (192, 160)
    assert Image.open(out).crop((121, 0, 192, 160)).tobytes() == Image.open(large).crop((121, 0, 192, 160)).tobytes()
    assert call("edit", image, "a red cube", "--strength", 0, *plain).exit_code == 0
    assert Image.open(out).tobytes() == Image.open(image).tobytes()
    assert call("vary", image, "--strength", "0.5,0.5,1", *plain).exit_code == 0
    assert Image.open(out).size == (64, 64)
    assert read_settings(out)["prompt"] is None
    assert call("vary", image, "--stop-at", 2, *plain).exit_code == 0
    assert read_settings(out)["strength"] == [0.3, 1.0]
    alike = Image.open(out).tobytes()
    assert call("vary", image, "--stop-at", 2, "--strength", "0.3,1", *plain).exit_code == 0
    assert Image.open(out).tobytes() == alike
    wide = ["--strength", 0, "--width", 96, "--height", 64, "--resize-mode", "fill"]
    for words in (["edit", image, "a red cube"], ["vary", image]):
        result = call(*words, *wide, *plain)
        assert result.exit_code == 0, result.output
        assert Image.open(out).crop((16, 0, 80, 64)).tobytes() == Image.open(image).tobytes()
    assert call("extend", image, "a red cube", "--width", 96, "--left", 8, "--top", 0, *plain).exit_code == 0
    assert Image.open(out).size == (96, 64)
    assert Image.open(out).crop((8, 0, 72, 64)).tobytes() == Image.open(image).tobytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["edit", "IMAGE", "a cube", "--jump-n-sample", 2], "give --mask"),
        (
            ["edit", "IMAGE", "a cube", "--padding-mask-crop", 0],
            "--seamless, --padding-mask-crop are about what a mask marks; give --mask or --mask-alpha",
        ),
        (["edit", "IMAGE", "a cube", "--mask", "IMAGE"], "image.png, the image itself; give another image, as large and white where"),
        (["edit", "IMAGE", "a cube", "--mask-alpha"], "--mask-alpha marks what is transparent by half or more, and no pixel of"),
        (["edit", "IMAGE", "a cube", "--mask-alpha", "--mask", "IMAGE"], "--mask and --mask-alpha both say what is painted anew; give one"),
        (["edit", "IMAGE", "a cube", "--strength", "much"], '--strength is "much"'),
        (["edit", "IMAGE", "a cube", "--strength", "1.5"], "strength is 1.5"),
        (["edit", "IMAGE", "a cube", "--resize-mode", "cut"], "resize_mode is 'cut'; give default"),
        (["extend", "IMAGE", "a cube"], "is 64x64 already"),
        (["extend", "IMAGE", "a cube", "--width", 32], "canvas 32x64"),
        (["extend", "IMAGE", "a cube", "--width", 96, "--left", 33], "left is at most 32"),
        (["vary", "IMAGE", "--guidance-scale", 3], "vary has none; leave them out"),
        (["vary", "IMAGE", "--guider", "none"], "vary has none; leave them out"),
    ],
)
def test_bad_edits_are_one_line(folder, tmp_path, words, message) -> None:
    image = tmp_path / "image.png"
    Image.new("RGB", (64, 64), "red").save(image)
    result = call(*[image if word == "IMAGE" else word for word in words], "--model", folder, "--output", tmp_path / "out.png")
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "out.png").exists()


def test_help_offers_no_option_that_its_command_refuses() -> None:
    assert "--guidance-scale" in call("edit", "--help").output
    assert "--guid" not in call("vary", "--help").output  # nor --guider


WEIGHTED, LITERAL, PLAIN = "a (red:1.5) cube", r"a \(red:1.5\) cube", "a red cube"
# What is typed beside a prompt of weights, and the same in Python.
SAID: dict[str, tuple[list, Callable]] = {
    "plain": ([], lambda pipe: {"prompt": WEIGHTED}),
    "weights": (["--weights"], lambda pipe: of_embeddings(weighted_embeddings(pipe, WEIGHTED))),
    "negative": (
        ["--weights", "--negative-prompt", "a (blue:2) sphere"],
        lambda pipe: {
            **of_embeddings(weighted_embeddings(pipe, WEIGHTED)),
            **of_embeddings(weighted_embeddings(pipe, "a (blue:2) sphere"), "negative_prompt"),
        },
    ),
    "blend": (
        ["--blend-with", "the sphere left of the cube", "--blend", 0.4],
        lambda pipe: of_embeddings(slerp(*(weighted_embeddings(pipe, p) for p in (LITERAL, "the sphere left of the cube")), 0.4)),
    ),
    "both": (
        ["--weights", "--blend-with", "the (sphere:0.5)", "--blend", 0.4],
        lambda pipe: of_embeddings(slerp(*(weighted_embeddings(pipe, p) for p in (WEIGHTED, "the (sphere:0.5)")), 0.4)),
    ),
    "one guider": (["--guider", MOMENTUM], lambda pipe: {"prompt": WEIGHTED, "guider": AdaptiveProjectedGuidance(**MOMENTUM_SETTINGS)}),
    "one each": (
        ["--guider", SKIP, "--guider", "none"],
        lambda pipe: {"prompt": WEIGHTED, "guider": [SkipLayerGuidance(3.0, 2.8, 0.0, 1.0, skip_layer_config=MIDDLE), None]},
    ),
}


def of_embeddings(text: tuple, name: str = "prompt") -> dict:
    return {f"{name}_embeds": text[0], f"{name}_attention_mask": text[1]}


@pytest.mark.parametrize("name", SAID)
def test_weights_blends_and_guiders_are_those_of_python(folder, tmp_path, name) -> None:
    path, (words, arguments) = tmp_path / "image.png", SAID[name]
    plain = ["--model", folder, "--dtype", "float32", "--device", "cpu", "--seed", 7, "--stop-at", 2, "--output", path]
    result = call("generate", WEIGHTED, *plain, *words)
    assert result.exit_code == 0, result.output
    pipe = prepare(PipelineOptions(model=folder, dtype="float32", device="cpu"))
    expected = pipe(**arguments(pipe), generator=seeded(7), stop_at=2).images[0]
    assert Image.open(path).tobytes() == expected.tobytes()
    without = pipe(WEIGHTED, generator=seeded(7), stop_at=2).images[0]
    assert (expected.tobytes() == without.tobytes()) == (name == "plain")


def test_the_ends_of_a_blend_are_its_prompts(folder, tmp_path) -> None:
    images = []
    for words in ([PLAIN], [PLAIN, "--blend-with", "the sphere", "--blend", 0], ["the sphere", "--blend-with", PLAIN, "--blend", 1]):
        path = tmp_path / "image.png"
        plain = ["--model", folder, "--dtype", "float32", "--seed", 7, "--stop-at", 1, "--output", path]
        assert call("generate", *words, *plain).exit_code == 0
        images.append(Image.open(path).tobytes())
    assert images[0] == images[1] == images[2]


def test_texts_are_encoded_once_for_all_images(folder, tmp_path, monkeypatch) -> None:
    encoded, forward = [], T5EncoderModel.forward
    monkeypatch.setattr(T5EncoderModel, "forward", lambda self, **given: encoded.append(given) or forward(self, **given))
    words = ["--weights", "--model", folder, "--stop-at", 1, "--num-inference-steps", 1, "--output", tmp_path / "image.png"]
    assert call("generate", WEIGHTED, *words, "--num-images-per-prompt", 3, "--guidance-scale", 1).exit_code == 0
    assert len(encoded) == 2  # the prompt, and the prompt without its weighted word


def test_words_in_weights_are_known(folder, tmp_path, caplog) -> None:
    plain = ["--model", folder, "--output", tmp_path / "image.png", "--stop-at", 1, "--num-inference-steps", 1]
    assert call("generate", WEIGHTED, *plain, "--weights").exit_code == 0
    assert "never saw" not in caplog.text
    assert call("generate", PLAIN, *plain, "--blend-with", "a (red:1) dragon", "--blend", 0.5, "--weights").exit_code == 0
    assert "never saw: dragon." in caplog.text


@pytest.mark.parametrize(
    "words",
    [["--weights"], ["--negative-prompt", "a blue sphere"], ["--blend-with", "the sphere", "--blend", 0.5], ["--guider", MOMENTUM]],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("command", ["edit", "extend", "upscale"])
def test_other_commands_take_them_too(folder, tmp_path, command, words) -> None:
    image, images = tmp_path / "image.png", []
    Image.effect_noise((16, 16) if command == "upscale" else (64, 64), 60).convert("RGB").save(image)
    more = {"edit": ["--strength", 0.9], "extend": ["--width", 96], "upscale": ["--start-at", 2]}[command]
    for said in ([], words):
        path = tmp_path / f"{len(said)}.png"
        plain = ["--model", folder, "--seed", 1, "--dtype", "float32", "--num-inference-steps", "2,2,2"[: 3 if command == "upscale" else 5]]
        result = call(command, image, WEIGHTED, *plain, *more, "--output", path, *said)
        assert result.exit_code == 0, result.output
        images.append(Image.open(path).tobytes())
    assert images[0] != images[1]


def test_the_version_is_told() -> None:
    result = call("--version")
    assert result.exit_code == 0
    assert result.output.startswith("imagen-diffusers ") and version("imagen_diffusers") in result.output


def test_tiles_of_a_base_are_said_to_do_nothing(folder, tmp_path) -> None:
    plain = ["generate", "a red cube", "--model", folder, "--output", tmp_path / "x.png", "--num-inference-steps", 1, "--tile", 64]
    assert "--tile changes nothing here" in call(*plain, "--stop-at", 1).output
    assert "--tile" not in call(*plain, "--stop-at", 2).output
