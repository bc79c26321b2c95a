"""Extractors by name: tiny networks of transformers against their own processors, FID's Inception against torch-fidelity's, one's own."""

import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    ConvNextImageProcessor,
    Dinov2Config,
    Dinov2Model,
    LevitImageProcessor,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from imagen_diffusers.evaluation.extractors import load_extractor
from imagen_diffusers.evaluation.inception import LAYERS
from imagen_diffusers.evaluation.resizing import Preparation, resized
from imagen_diffusers.hub.places import bundled, find_and_fetch

from . import fidelity
from .conftest import seeded

BLOCKS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
VISION = {**BLOCKS, "image_size": 32, "patch_size": 8}
SQUARE = {"size": {"height": 32, "width": 32}}
CROPPED = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
CLIP = CLIPConfig(text_config={**BLOCKS, "vocab_size": 14}, vision_config=VISION, projection_dim=12)
MODELS = {  # class, config, processor, width
    "dinov2": (Dinov2Model, Dinov2Config(**VISION), BitImageProcessor(**CROPPED), 16),
    "vit": (ViTModel, ViTConfig(**VISION), ViTImageProcessor(**SQUARE), 16),
    "clip": (CLIPModel, CLIP, CLIPImageProcessor(**CROPPED), 12),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("models")
    for name, (kind, config, processor, _) in MODELS.items():
        torch.manual_seed(1)
        kind(config).save_pretrained(place / name)
        processor.save_pretrained(place / name)
    return place


def images(height: int, width: int) -> Tensor:
    """Of 8 bits, as files hold them."""
    return torch.randint(256, (2, 3, height, width), generator=seeded(1)) / 255


def to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("sides", [(32, 32), (100, 75)])
def test_features_are_those_of_transformers_own_classes(saved, name, sides) -> None:
    kind, _, processor, width = MODELS[name]
    given, model = images(*sides), kind.from_pretrained(saved / name).eval()
    pixels = processor([to_pil(image) for image in given], return_tensors="pt").pixel_values
    with torch.no_grad():
        told = model.get_image_features(pixel_values=pixels) if name == "clip" else model(pixel_values=pixels)
    extractor = load_extractor(str(saved / name))
    features = extractor(given)
    assert features.shape == (2, width) and features.dtype == torch.float32 and extractor.width == width
    # Their processors round to 8 bits after resizing, by which these features move by less than 1 %.
    atol = 1e-6 if processor.size.get("height") == sides[0] else 1e-2 * told.pooler_output.std()
    torch.testing.assert_close(features, told.pooler_output, rtol=0, atol=atol)


@pytest.mark.parametrize("sides", [(32, 32), (40, 24), (200, 120)])
@pytest.mark.parametrize(("name", "number"), [("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)])
def test_the_resize_is_pillows_with_antialiasing(sides, name, number) -> None:
    """As clean-fid resizes: floats, each channel by itself, cut to range."""
    image = images(64, 96)[:1]
    wanted = [np.asarray(Image.fromarray(c.numpy(), mode="F").resize(sides[::-1], number)).clip(0, 1) for c in image[0]]
    np.testing.assert_allclose(resized(image, sides, name)[0], wanted, atol=2e-5)  # torch's filter has weights in float32


def test_a_shorter_side_and_the_middle_are_the_processors(tmp_path) -> None:
    """Of an image twice as high as wide, at sizes where no value is made by rounding."""
    given = torch.nn.functional.interpolate(images(8, 4), scale_factor=10)
    processor = CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    wanted = processor([to_pil(image) for image in given], return_tensors="pt").pixel_values
    torch.testing.assert_close(Preparation.load(str(tmp_path))(given), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "processor",
    [
        ConvNextImageProcessor(size={"shortest_edge": 32}),  # enlarges by 1 / 0.875 first, and cuts the middle out
        LevitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),  # likewise, unsaid in its configuration
        CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 32, "width": 32}),  # has black around the image
        CLIPImageProcessor(**CROPPED, do_rescale=False),
    ],
    ids=["crop_pct", "unsaid", "padded", "in 255ths"],
)
def test_a_processor_that_does_more_is_refused(tmp_path, processor) -> None:
    """Features of images that the model was not made for would be no one else's."""
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"does more than resize, crop the middle and normalise"):
        Preparation.load(str(tmp_path))


def test_a_fingerprint_changes_with_what_decides_the_features(saved, tmp_path) -> None:
    def fingerprint(folder: Path) -> dict:
        return load_extractor(str(folder)).fingerprint

    first = fingerprint(saved / "vit")
    assert first == fingerprint(saved / "vit")
    assert {"resize": "antialiased bilinear", "class": "ViTModel", "size": (32, 32)}.items() <= first.items()
    kind, config, _, _ = MODELS["vit"]
    model = kind.from_pretrained(saved / "vit")
    with torch.no_grad():
        model.embeddings.cls_token[0, 0, 3] += 1e-6
    model.save_pretrained(tmp_path)
    ViTImageProcessor(**SQUARE, resample=3).save_pretrained(tmp_path)
    second = fingerprint(tmp_path)
    assert {key for key in first if first[key] != second[key]} == {"weights", "resize"}


def test_a_checkpoint_without_a_pooling_head_gives_its_first_token(saved, tmp_path) -> None:
    """As image classifiers are saved; a head of random numbers would be another in every run."""
    MODELS["vit"][2].save_pretrained(tmp_path)
    MODELS["vit"][1].save_pretrained(tmp_path)
    weights = load_file(saved / "vit" / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not k.startswith("pooler.")}, tmp_path / "model.safetensors", {"format": "pt"})
    given, whole = images(32, 32), ViTModel.from_pretrained(saved / "vit").eval()
    pixels = MODELS["vit"][2]([to_pil(image) for image in given], return_tensors="pt").pixel_values
    with torch.no_grad():
        wanted = whole(pixel_values=pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(load_extractor(str(tmp_path))(given), wanted, rtol=0, atol=1e-5)
    save_file({k: v for k, v in weights.items() if "layernorm" not in k}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks \d+ weights of a ViTModel .* random ones would stand in"):
        load_extractor(str(tmp_path))


def unreachable(*_, **__) -> None:
    raise LocalEntryNotFoundError("no network")


def test_a_name_is_found_and_fetched_at_once(tmp_path, monkeypatch) -> None:
    (tmp_path / "config.json").touch()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **asked: tmp_path if asked["revision"] == "main" else "/nowhere")
    assert find_and_fetch("user/name", ["config.json"], revision="main") == ("user/name", tmp_path)
    assert find_and_fetch(str(tmp_path), ["config.json"]) == (str(tmp_path), tmp_path)
    assert find_and_fetch("fast", [], ("presets",)) == (str(bundled("fast")), bundled("fast"))
    with pytest.raises(ValueError, match='"user/name" on the Hub, or what the cache has of it, holds no config.json'):
        find_and_fetch("user/name", ["config.json"])


def test_names_that_lead_nowhere_are_refused(saved, tmp_path, monkeypatch) -> None:
    with pytest.raises(ValueError, match='none" is not there: it is no path, no Hub id'):
        load_extractor(str(tmp_path / "none"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ValueError, match='"user/none" is no path here, and not in the cache; the Hub, .* cannot be reached'):
        load_extractor("user/none")
    with pytest.raises(ValueError, match="Unrecognized model"):
        load_extractor(str(tmp_path))
    BertModel(BertConfig(**BLOCKS, vocab_size=9)).save_pretrained(tmp_path / "bert")
    MODELS["vit"][2].save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="is a BertModel, which takes input_ids; give a model that takes images"):
        load_extractor(str(tmp_path / "bert"))
    ViTImageProcessor(**SQUARE, resample=1).save_pretrained(tmp_path / "lanczos")
    MODELS["vit"][0].from_pretrained(saved / "vit").save_pretrained(tmp_path / "lanczos")
    with pytest.raises(ValueError, match="lanczos resizes by Pillow's filter 1"):
        load_extractor(str(tmp_path / "lanczos"))


def mean_colours(given: Tensor) -> Tensor:
    return given.mean((2, 3)).double()


def one_number(given: Tensor) -> Tensor:
    return given.mean()


def of_numpy(given: Tensor) -> Any:
    return mean_colours(given).numpy()


def of_pil(given: Any) -> Tensor:
    return given.convert("RGB")


class Doubled:
    width, fingerprint = 3, {"class": "Doubled", "version": 2}

    def __call__(self, given: Tensor) -> Tensor:
        return 2 * mean_colours(given)


def test_a_callable_of_ones_own() -> None:
    here = "tests.test_extractors"
    extractor = load_extractor(f"{here}:mean_colours")
    assert extractor.width == 3 and extractor.name == f"{here}:mean_colours" and set(extractor.fingerprint) == {"class", "source"}
    assert torch.equal(extractor(images(8, 8)), mean_colours(images(8, 8)).float())
    doubled = load_extractor(f"{here}:Doubled")
    assert doubled.fingerprint == {"class": "Doubled", "version": 2}
    assert torch.equal(doubled(images(8, 8)), 2 * mean_colours(images(8, 8)).float())
    with pytest.raises(ValueError, match=r"made features \(\) of 1 images; it must make \(B, D\)"):
        load_extractor(f"{here}:one_number")
    with pytest.raises(ValueError, match=r"made a ndarray of images; it must make a tensor \(B, D\)"):
        load_extractor(f"{here}:of_numpy")
    with pytest.raises(ValueError, match=r"failed on images \(1, 3, 256, 256\), a tensor in \[0, 1\], with AttributeError: .*convert"):
        load_extractor(f"{here}:of_pil")
    with pytest.raises(ValueError, match=r"math:sqrt failed on images \(1, 3, 256, 256\), a tensor in \[0, 1\], with \w*Error: "):
        load_extractor("math:sqrt")
    with pytest.raises(ValueError, match="holds no function nothing"):
        load_extractor(f"{here}:nothing")


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """torch-fidelity's network with random weights, and their file."""
    kind = fidelity.load("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    path, own = tmp_path_factory.mktemp("inception") / "weights.pth", kind.load_state_dict
    torch.save({}, path)
    kind.load_state_dict = lambda *_: None
    try:
        torch.manual_seed(2)
        network = kind("inception", ["2048", "logits_unbiased"], str(path))
    finally:
        kind.load_state_dict = own
    torch.save(network.state_dict(), path)
    with fidelity.on_path():  # whose version is part of the fingerprint
        yield path, network


@pytest.mark.parametrize("kind", ["inception", *(pytest.param(kind, marks=pytest.mark.slow) for kind in LAYERS if kind != "inception")])
def test_the_inception_network_is_torch_fidelitys_over_clean_fids_resize(inception, kind) -> None:
    path, network = inception
    given, extractor = images(320, 350)[:1], load_extractor(f"{kind}:{path}")
    clean = fidelity.load("cleanfid.resize").make_resizer("PIL", False, "bicubic", (299, 299))
    read = torch.from_numpy(np.array(to_pil(given[0])) if kind == "inception-2015" else clean(np.array(to_pil(given[0]))).round())
    wanted = network(read.permute(2, 0, 1)[None].byte())[kind == "inception-logits"]
    # A few of the 8-bit values that the network reads lie at a half, and are rounded to either side.
    torch.testing.assert_close(extractor(given), wanted, rtol=0, atol=1e-3 * wanted.std().item())
    assert extractor.width == wanted.shape[1]
    assert extractor.fingerprint["resize"] == ("TensorFlow 1 bilinear" if kind == "inception-2015" else "antialiased bicubic")


class Touching:
    """Makes a file when a pickle of it is opened."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_files_that_are_not_inceptions_are_refused(inception, tmp_path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(Touching(tmp_path / "ran"), tmp_path / "code.pth")
    (tmp_path / "text.pth").write_text("none")
    for name in ("other", "code", "text"):
        with pytest.raises(ValueError, match=f"{name}.pth holds no weights of the Inception network"):
            load_extractor(f"inception:{tmp_path / name}.pth")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(OSError, match="none.pth"):
        load_extractor(f"inception:{tmp_path}/none.pth")


def test_without_torch_fidelity_it_is_asked_for(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match="needs torch-fidelity and its torchvision: pip install torch-fidelity"):
        load_extractor(f"inception:{tmp_path}/weights.pth")
