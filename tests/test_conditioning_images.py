"""Images as conditions of a network: what they change when they start, how they are trained on, and how they are sampled with."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from examples import train_stage
from imagen_diffusers import ImagenCascadeImg2ImgPipeline, ImagenCascadePipeline, ImagenUNet2DConditionModel
from imagen_diffusers.images import read_settings
from imagen_diffusers.interop.imagen_pytorch.unet_lucidrains import LucidrainsUNet2DConditionModel
from imagen_diffusers.models.conditioning_images import with_cond_channels
from imagen_diffusers.models.lora import add_lora
from imagen_diffusers.pipelines.image_inputs import images_to_tensor
from imagen_diffusers.schedulers.noise import resize
from imagen_diffusers.training.checkpoints import list_checkpoints
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.exact_stream import ImageStream
from imagen_diffusers.training.examples import Conditioned, Example, VisitedDataset, collate
from imagen_diffusers.training.image_datasets import ImageDataset
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.optimizers import split_for_muon
from imagen_diffusers.training.pyramid import ImageSettings, build_pyramid
from imagen_diffusers.training.rows import load_rows
from imagen_diffusers.training.validation import HeldOut

from .conftest import make_base, make_pipeline, make_sr, seeded
from .test_cli import call as typer_call
from .test_data import encoded, noise_image
from .test_examples import flags, measured
from .test_losses import TABLE
from .test_models import MAKERS, inputs
from .test_training import Squares, assert_resumes, fit
from .test_validation import LOSS, TEXT

CHANNELS = 4


def shown(unet, channels: int = CHANNELS) -> torch.Tensor:
    """Conditioning images for the `inputs` of a network."""
    return torch.rand(2, channels, *inputs(unet)["sample"].shape[-2:], generator=seeded(3))


@pytest.fixture(params=MAKERS)
def unet(request):
    return MAKERS[request.param]()


class Shown(Squares):
    """The four plain images, and with each an image that says its brightness."""

    def __getitem__(self, index: int) -> Example:
        cond_images = torch.full((CHANNELS, 8, 8), 60 * index, dtype=torch.uint8)
        return Example(**super().__getitem__(index), cond_images=cond_images)


class Changed(Shown):
    """The same, changed by a function."""

    def __init__(self, change: Callable[[int, Example], Example]):
        super().__init__()
        self.change = change

    def __getitem__(self, index: int) -> Example:
        return self.change(index, super().__getitem__(index))


def test_a_network_that_is_given_them_generates_what_it_did(unet, tmp_path) -> None:
    state = torch.random.get_rng_state()
    wider = with_cond_channels(unet, CHANNELS)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert type(wider) is type(unet) and wider.training == unet.training
    assert (unet.config["cond_channels"], wider.config["cond_channels"]) == (0, CHANNELS)
    wider.save_pretrained(tmp_path)
    loaded = type(unet).from_pretrained(tmp_path)
    for network in (wider, loaded):
        assert torch.equal(network(**inputs(unet), cond_images=shown(unet)).sample, unet(**inputs(unet)).sample)
    assert type(unet).from_config(wider.config).state_dict().keys() == wider.state_dict().keys()
    wider.cond.stem.conv.weight.data.add_(1)
    assert not torch.equal(wider(**inputs(unet), cond_images=shown(unet)).sample, unet(**inputs(unet)).sample)
    assert {name.split(".")[0] for name in wider.state_dict().keys() - unet.state_dict().keys()} == {"cond"}


def test_they_reach_every_place_where_the_noisy_image_comes_in(unet) -> None:
    wider = with_cond_channels(unet, CHANNELS).train()
    wider(**inputs(unet), cond_images=shown(unet)).sample.square().mean().backward()
    ways = dict(wider.cond.named_parameters())
    assert set(ways) == {"stem.conv.weight", *(["detail.weight"] if unet.config["detail_channels"] else [])}
    assert all((p.grad.flatten(2).abs().amax((0, 2)) > 0).all() for p in ways.values())  # of each channel, patch by patch


def test_new_channels_are_more_channels_of_the_same_convolutions() -> None:
    """What they add is what a stem and a detail head of wider convolutions would."""
    unet = with_cond_channels(make_base(patch_size=2, detail_channels=4), CHANNELS)
    plain = make_base(patch_size=2, detail_channels=4, low_res_channels=CHANNELS)
    with torch.no_grad():
        for p in unet.cond.parameters():
            p.normal_(std=0.1, generator=seeded(1))
        own = {k: v for k, v in unet.state_dict().items() if not k.startswith("cond.")}
        own["stem.conv.weight"] = torch.cat((unet.stem.conv.weight, unet.cond.stem.conv.weight), 1)
        own["detail.from_image.weight"] = torch.cat((unet.detail.from_image.weight, unet.cond.detail.weight), 1)
        level = plain.embedding.noise_level
        for p in level.parameters():
            p.zero_()
        plain.load_state_dict({**own, **{f"embedding.noise_level.{k}": v for k, v in level.state_dict().items()}})
        given, images = inputs(unet), shown(unet)
        wide = plain(**given, low_res=images, noise_level=0).sample
    torch.testing.assert_close(unet(**given, cond_images=images).sample, wide, rtol=1e-4, atol=1e-5)


def test_they_can_be_there_from_the_first_step() -> None:
    unet = ImagenUNet2DConditionModel(**{**make_base().config, "cond_channels": 1})
    assert not any(p.any() for p in unet.cond.parameters())
    assert "cond.stem.conv.weight" not in make_base().state_dict()


def test_a_folder_that_does_not_know_of_them_loads_bit_equal(unet, tmp_path) -> None:
    unet.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "cond_channels"}))
    loaded = type(unet).from_pretrained(tmp_path)
    assert loaded.config["cond_channels"] == 0 and loaded.state_dict().keys() == unet.state_dict().keys()
    assert torch.equal(loaded(**inputs(unet)).sample, unet(**inputs(unet)).sample)


def test_muon_and_adapters_know_them() -> None:
    unet = with_cond_channels(make_base(), CHANNELS)
    matrices, others = split_for_muon(unet)
    assert any(p is unet.cond.stem.conv.weight for p in others)
    add_lora(unet, rank=2)  # with which a network learns to heed them, too
    assert any(name.startswith("cond.stem") and p.requires_grad for name, p in unet.named_parameters())
    adapted = make_base()
    add_lora(adapted, rank=2)
    with pytest.raises(ValueError, match="would be left behind; fuse or unload them first"):
        with_cond_channels(adapted, 1)


@pytest.mark.parametrize(
    ("channels", "images", "words"),
    [
        (0, torch.zeros(2, 4, 16, 16), r"\(cond_channels=0\) takes no cond_images; leave them out"),
        (4, None, r"\(cond_channels=4\) needs cond_images of 4 channels, 16x16 as sample is; it got none"),
        (4, torch.zeros(2, 3, 16, 16), r"needs cond_images of 4 channels.*the shape \(2, 3, 16, 16\)"),
        (4, torch.zeros(2, 4, 8, 8), r"16x16 as sample is; it got the shape \(2, 4, 8, 8\)"),
    ],
)
def test_images_that_do_not_fit_are_refused_in_words(channels, images, words) -> None:
    unet = make_base(cond_channels=channels)
    with pytest.raises(ValueError, match=words):
        unet(**inputs(unet), cond_images=images)


def test_channels_that_cannot_be_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="cond_channels is 0; it must be at least 1"):
        with_cond_channels(make_base(), 0)
    with pytest.raises(ValueError, match="takes conditioning images of 2 channels already"):
        with_cond_channels(make_base(cond_channels=2), 1)


# Sampling and training see the same.


@pytest.mark.parametrize("size", [16, 40])
def test_sampling_and_training_show_the_network_the_same(size) -> None:
    """Whole numbers and floats, of the image's size and of another, reach it as the same values in [0, 1]."""
    told = []
    unet = with_cond_channels(make_base(), CHANNELS)
    unet.register_forward_pre_hook(lambda _, args, given: told.append(given["cond_images"]), with_kwargs=True)
    images = torch.randint(0, 256, (1, CHANNELS, size, size), generator=seeded(), dtype=torch.uint8)
    alone = {"unet_2": None, "unet_3": None, "scheduler_2": None, "scheduler_3": None}
    pipe = make_pipeline(unet=unet, **alone, num_inference_steps=(2,), guidance_scale=(1.0,))
    for given in (images, images / 255, images.permute(0, 2, 3, 1).numpy()):
        pipe("a red cube", cond_images=given, generator=seeded(), output_type="pt")
    for given in (images[0], images[0] / 255):
        example = Example(pixel_values=torch.zeros(3, 16, 16), cond_images=given, prompt="a red cube")
        HeldOut([example], TABLE, LOSS, **TEXT, log_snrs=(0.0,))(unet)
    assert len(told) == 3 * 2 + 2
    assert all(torch.equal(seen, told[0]) for seen in told)
    assert told[0].shape == (1, CHANNELS, 16, 16)
    assert told[0].min() >= 0 and told[0].max() <= 1
    torch.testing.assert_close(told[0], resize(images / 255, (16, 16)).clamp(0, 1))


def test_there_are_as_many_images_as_of_them_where_there_is_no_text() -> None:
    pipe = make_pipeline(unet=make_base(cond_channels=3, encoder_hid_dim=None), unet_2=None, unet_3=None, text_encoder=None, tokenizer=None)
    shown = torch.rand(2, 3, 16, 16, generator=seeded(3))
    both = pipe(cond_images=shown, generator=[seeded(1), seeded(2)], output_type="pt").images
    alone = pipe(cond_images=shown[1], generator=seeded(2), output_type="pt").images
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-4)


def test_a_cascade_is_sampled_with_them() -> None:
    """In the stage that takes them, in tiles and with guidance."""
    plain = make_pipeline()
    pipe = make_pipeline(unet_2=with_cond_channels(make_sr(), 1))
    call = {"prompt": "a red cube", "output_type": "pt"}
    images = [torch.full((1, 1, 32, 32), value) for value in (0.0, 1.0)]
    before = plain(**call, generator=seeded()).stage_images
    after = pipe(**call, generator=seeded(), cond_images=images[0]).stage_images
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    pipe.unet_2.cond.stem.conv.weight.data.add_(1)
    stages = [pipe(**call, generator=seeded(), cond_images=image).stage_images for image in images]
    assert torch.equal(stages[0][0], stages[1][0]) and not torch.equal(stages[0][1], stages[1][1])
    pipe.enable_tiling(16)
    large = images[0].repeat(1, 1, 2, 2)  # of any size, in tiles as whole
    tiled = [pipe(**call, generator=seeded(), cond_images=image).images for image in (images[0], large)]
    assert tiled[0].shape == (1, 3, 64, 64) and torch.equal(*tiled)
    with pytest.raises(ValueError, match="unet_2 was trained with conditioning images; give cond_images"):
        pipe(**call)
    with pytest.raises(ValueError, match="cond_images has 3 channels; give 1"):
        pipe(**call, cond_images=torch.zeros(1, 3, 32, 32))


@pytest.fixture(scope="module")
def conditioned(tmp_path_factory) -> Path:
    """A cascade whose base takes four channels, and files for them."""
    folder = tmp_path_factory.mktemp("conditioned")
    make_pipeline(unet=make_base(cond_channels=CHANNELS)).save_pretrained(folder / "cascade")
    for name, seed in (("colours", 0), ("gray", 1), ("image", 2)):
        noise_image(16, 16, seed).convert("LA" if name == "gray" else "RGB").save(folder / f"{name}.png")
    Image.new("L", (8, 8)).save(folder / "small.png")
    (folder / "prompts.txt").write_text("cube")
    return folder


def typed(folder: Path, words: str, *files: str, output: Path):
    """A command's result; its files are those of the folder."""
    said = [folder / word if (folder / word).exists() else word for word in words.split()]
    conditions = [word for name in files for word in ("--cond-image", folder / f"{name}.png")]
    return typer_call(*said, "--model", folder / "cascade", "--dtype", "float32", *conditions, "--output", output)


@pytest.mark.parametrize("words", ["generate cube", "generate --prompts prompts.txt", "vary image.png --strength 1"])
def test_commands_take_them(conditioned, tmp_path, words) -> None:
    output = tmp_path / ("many" if "--prompts" in words else "a.png")
    result = typed(conditioned, f"{words} --stop-at 1 --seed 1 --num-inference-steps 1", "gray", "colours", output=output)
    assert result.exit_code == 0, result.output
    made = output / "000000.png" if output.is_dir() else output
    assert len(read_settings(made)["cond_digests"]) == 2
    pipe = make_pipeline(unet=make_base(cond_channels=CHANNELS))
    of_vary = {"image": Image.open(conditioned / "image.png"), "strength": 1.0}
    pipe, given = (ImagenCascadeImg2ImgPipeline.from_pipe(pipe), of_vary) if "vary" in words else (pipe, {"prompt": "cube"})
    images = [images_to_tensor("", Image.open(conditioned / f"{name}.png"), n) for name, n in (("gray", 1), ("colours", 3))]
    expected = pipe(**given, cond_images=torch.cat(images, 1), stop_at=1, num_inference_steps=1, generator=seeded(1)).images[0]
    assert Image.open(made).tobytes() == expected.tobytes()


def test_commands_say_which_they_do_not_take(conditioned, tmp_path) -> None:
    for words, files, said in (
        ("generate cube", [], "unet was trained with conditioning images; give cond_images"),
        ("generate cube", ["colours"], "cond_images has 3 channels; give 4"),
        ("generate cube", ["colours", "small"], "--cond-image names files of 16x16, 8x8, whose channels cannot be put together"),
        ("extend image.png cube --width 32", ["gray"], "--cond-image is of one whole image, and extend paints windows"),
        (f"upscale {conditioned} cube", ["gray"], "--cond-image is of one image, and"),
    ):
        result = typed(conditioned, words, *files, output=tmp_path / "a.png")
        assert result.exit_code == 1 and said in result.output
    kept = conditioned / "gray.png"
    assert f"--output would write over {kept}" in typed(conditioned, "generate cube", "gray", "colours", output=kept).output


# Training.


class Told(Dataset):
    """Black and white images, of which nothing but the conditioning image tells."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Example:
        value = 255 * (index % 2)
        pixels = torch.full((3, 16, 16), value, dtype=torch.uint8)
        return Example(pixel_values=pixels, cond_images=torch.full((1, 4, 4), value, dtype=torch.uint8), prompt="a red cube")


def test_a_network_learns_what_only_the_condition_tells(tmp_path) -> None:
    """At much noise an image of -1 or 1 cannot be told: without the condition the least error possible is near 1."""
    loss = LossSettings(prediction_type="sample")
    told = HeldOut([Told()[i] for i in range(8)], TABLE, loss, **TEXT, log_snrs=(-9.0,))
    given = {"dataset": Told(), "loss": loss, "learning_rate": 1e-2, "checkpointing_steps": 100}
    unet = fit(tmp_path / "told", 30, unet=with_cond_channels(make_base(), 1), **given)
    error = told(unet.eval())["log_snr_-9"]
    pixels = 16 * 16  # of one value: together they tell more than one, so what can be known without the condition is bounded here
    known = _least_error(-9.0, pixels)
    assert error < 0.1 < 0.5 * known


def _least_error(log_snr: float, pixels: int) -> float:
    """Of the best guess of x in {-1, 1} from so many times three values alpha x + sigma eps: E[1 - tanh^2(s x + sqrt(s) eps)]."""
    snr = 3 * pixels * float(np.exp(log_snr))
    z = torch.randn(100_000, generator=seeded())
    return 1 - (snr + snr**0.5 * z).tanh().square().mean().item()


def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path) -> None:
    assert_resumes(tmp_path, 4, lambda: fit(tmp_path, 4, unet=with_cond_channels(make_base(), CHANNELS), dataset=Shown()))


def test_converted_networks_are_trained_on_them(tmp_path) -> None:
    from .test_imagen_pytorch_training import network

    unet = network(cond_images_channels=CHANNELS)
    before = unet.init_conv.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    assert isinstance(fit(tmp_path, 2, unet=unet, dataset=Shown()), LucidrainsUNet2DConditionModel)
    assert not any(torch.equal(before[name], value) for name, value in unet.init_conv.state_dict().items())


def without(index: int, example: Example) -> Example:
    return Example(**{k: v for k, v in example.items() if k != "cond_images"})


def signed(_: int, example: Example) -> Example:
    return Example(**{**example, "cond_images": example["cond_images"] / 127.5 - 1})


@pytest.mark.parametrize(
    ("channels", "change", "words"),
    [
        (4, without, "takes conditioning images of 4 channels, and the examples have none: give them as cond_images"),
        (0, lambda _, example: example, r"the examples have cond_images, and this ImagenUNet2DConditionModel takes none"),
        (3, lambda _, example: example, "cond_images have 4 channels, and this ImagenUNet2DConditionModel takes 3"),
        (4, lambda i, example: example if i else without(i, example), "3 of 4 examples of a batch have cond_images; give it with all"),
        (4, signed, r"values from -1 to 0.411765; give floats in \[0, 1\]"),
    ],
    ids=["missing", "not taken", "other channels", "some", "another range"],
)
def test_examples_that_do_not_fit_are_refused_in_words(tmp_path, channels, change, words) -> None:
    unet, data = make_base(cond_channels=channels), Changed(change)
    with pytest.raises(ValueError, match=words):
        fit(tmp_path, 1, unet=unet, dataset=data)
    with pytest.raises(ValueError, match=words):
        HeldOut([data[i] for i in range(4)], TABLE, LOSS, **TEXT)(unet)


def test_a_checkpoint_of_before_is_gone_on_with(tmp_path) -> None:
    """A configuration that does not know of conditioning images is one of none."""
    fit(tmp_path, 1)
    (checkpoint,) = list_checkpoints(tmp_path)
    path = checkpoint / "unet_ema" / "config.json"
    config = json.loads(path.read_text())
    del config["cond_channels"]
    path.write_text(json.dumps(config))
    fit(tmp_path, 2)
    with pytest.raises(ValueError, match="another architecture: cond_channels=0 there and 4 here"):
        fit(tmp_path, 3, unet=make_base(cond_channels=4), dataset=Shown())


# Training sets.


class Numbered(VisitedDataset):
    def __len__(self) -> int:
        return 3

    def buckets(self) -> list[int]:
        return [0, 1, 0]

    def visit(self, index: int, number: int) -> Example:
        return Example(pixel_values=torch.full((3, 4, 4), 10 * index + number, dtype=torch.uint8))


def test_conditions_made_of_images_differ_from_visit_to_visit_and_repeat_with_the_seed() -> None:
    def make(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        return image[:1].float() / 255 * float(rng.random())

    data, again, other = (Conditioned(Numbered(), make, seed=seed) for seed in (0, 0, 1))
    assert (len(data), data.buckets()) == (3, [0, 1, 0])
    first, second = data.visit(2, 0)["cond_images"], data.visit(2, 1)["cond_images"]
    assert torch.equal(first, again.visit(2, 0)["cond_images"])
    assert not torch.equal(first, second) and not torch.equal(first, other.visit(2, 0)["cond_images"])
    assert collate([data[0], data[1]])["cond_images"].shape == (2, 1, 4, 4)


@pytest.fixture
def edges(tmp_path):
    """Images with another image for each, one of which is all black; that of the last is of another shape."""
    folder = tmp_path / "edges"
    folder.mkdir()
    lines = []
    for i in range(4):
        (folder / f"{i}.png").write_bytes(encoded(noise_image(48, 40, i)))
        cond = noise_image(24, 20, 10 + i) if i else Image.new("RGB", (24, 20))
        (folder / f"{i}-edges.png").write_bytes(encoded(cond if i < 3 else noise_image(20, 20)))
        lines.append(json.dumps({"file_name": f"{i}.png", "edges_file_name": f"{i}-edges.png", "text": "a red cube"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def read(folder, channels: int = 3, streaming: bool = False, **more):
    data = DataSettings(
        train_data_dir=folder, conditioning_image_column="edges", streaming=streaming, cache_dir=folder.parent / "cache", **more
    )
    return load_rows(data, cond_channels=channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_of_conditioning_images_is_cropped_as_the_images_are(edges, channels, streaming) -> None:
    rows, columns = read(edges, channels, streaming)
    given = rows, columns, ImageSettings(resolution=16)
    stream = iter(ImageStream(*given))
    examples = [next(stream) for _ in range(3)] if streaming else [ImageDataset(*given)[i] for i in range(3)]
    for i, example in enumerate(examples):
        image = noise_image(24, 20, 10 + i) if i else Image.new("RGB", (24, 20))
        expected = torch.zeros(3, 16, 16, dtype=torch.uint8) if not i else build_pyramid(image, ImageSettings(16))[0]
        assert example["cond_images"].shape == (channels, 16, 16)
        if channels == 3:
            assert torch.equal(example["cond_images"], expected)
        else:
            gray = build_pyramid(image.convert("L").convert("RGB"), ImageSettings(16))[0][:1] if i else expected[:1]
            assert torch.equal(example["cond_images"], gray)


def test_windows_of_conditioning_images_are_those_of_the_images(edges) -> None:
    for i in range(3):  # each image is its own condition
        (edges / f"{i}-edges.png").write_bytes((edges / f"{i}.png").read_bytes())
    settings = ImageSettings(resolution=32, low_res_scale=2, crop_size=16, random_flip=True)
    data = ImageDataset(*read(edges), settings)
    for number in range(6):
        example = data.visit(1, number)
        assert torch.equal(example["pixel_values"], example["cond_images"])
        assert example["low_res"].shape == (3, 8, 8)
    assert "of another shape than the image, 48x40" in data[3]["skipped"][0]


def test_columns_that_do_not_fit_are_refused_in_words(edges) -> None:
    with pytest.raises(ValueError, match="this network takes no conditioning images: leave it out"):
        read(edges, 0)
    with pytest.raises(ValueError, match=r"of 4 channels; image files have 1 \(gray\) or 3 \(RGB\)"):
        read(edges, 4)
    with pytest.raises(ValueError, match='conditioning_image_column is "depth"; the columns are image'):
        load_rows(DataSettings(train_data_dir=edges, conditioning_image_column="depth", cache_dir=edges.parent / "cache"), cond_channels=3)


def test_the_script_trains_a_stage_on_a_column(edges, tmp_path) -> None:
    make_pipeline(unet=with_cond_channels(make_base(), 3)).save_pretrained(tmp_path / "cascade")
    more = [*measured(edges, tmp_path), "--conditioning_image_column", "edges"]
    train_stage.main(flags(str(tmp_path / "cascade"), 2, tmp_path / "out", *more))
    unet = ImagenUNet2DConditionModel.from_pretrained(tmp_path / "out", subfolder="unet")
    assert unet.cond.stem.conv.weight.any()
    pipe = ImagenCascadePipeline.from_pretrained(tmp_path / "cascade", unet=unet)
    assert pipe("a red cube", cond_images=noise_image(40, 40), output_type="pt").images.shape == (1, 3, 64, 64)
    assert json.loads((tmp_path / "out" / "validation.jsonl").read_text())["step"] == 2
    with pytest.raises(ValueError, match="the examples have none"):
        train_stage.main(flags(str(tmp_path / "cascade"), 1, tmp_path / "none", "--train_data_dir", edges))
    with pytest.raises(ValueError, match="this network is conditioned on images; leave them out"):
        train_stage.main(flags(str(tmp_path / "cascade"), 2, tmp_path / "bad", *more, "--validation_prompts", "a red cube"))
