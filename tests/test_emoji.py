"""The example of real things: names and images from packages, compositions, captions, and the run to a pipeline, all on tiny settings."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.emoji import assemble, data, packages, train
from examples.emoji.captions import caption
from examples.emoji.compositions import BACKGROUNDS, JITTER, SIZE, Place, compose, layer, open_thing, place
from examples.emoji.data import EmojiDataset, held_out
from examples.emoji.things import LINES, Thing, code, named_things, read_things
from imagen_diffusers import ImagenCascadePipeline, ImagenEfficientUNet2DConditionModel, ImagenUNet2DConditionModel

from .conftest import TINY_BASE, TINY_SR, make_base, make_pipeline
from .encoders import make_bert

KNOWN = [
    {"label": "red apple", "hexcode": "1F34E", "tags": ["fruit", "up"], "group": 4},
    {
        "label": "raised hand",
        "hexcode": "270B",
        "group": 1,
        "skins": [{"hexcode": "270B-1F3FF", "tone": 5}, {"hexcode": "270B-1F3FB", "tone": 1}],
    },
    {"label": "keycap: 1", "hexcode": "0031-FE0F-20E3", "group": 8},
    {"label": "flag: Japan", "hexcode": "1F1EF-1F1F5", "group": 9},
    {"label": "man: beard", "hexcode": "1F9D4", "group": 1},
    {"label": "backhand index pointing right", "hexcode": "1F449", "group": 1},
    {"label": "no image of it", "hexcode": "1F600", "group": 0},
    {"label": "regional indicator A", "hexcode": "1F1E6"},
]
GROUPS = {"0": "smileys-emotion", "1": "people-body", "4": "food-drink", "8": "symbols", "9": "flags"}
FILES = ("1f34e", "270b", "270b-1f3ff", "31-20e3", "1f1ef-1f1f5", "1f9d4", "1f449", "1f1e6", "e000")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """Packages like those of npm, of small renderings, and an encoder."""
    root = tmp_path_factory.mktemp("packages")
    rng = np.random.default_rng(0)
    (root / "emoji" / "assets").mkdir(parents=True)
    for file in FILES:
        pixels = np.zeros((32, 32, 4), np.uint8)
        pixels[4:28, 8:20] = (*rng.integers(0, 255, 3), 255)  # twice as high as wide
        pixels[4:16, 8:14] = (*rng.integers(0, 255, 3), 128)
        Image.fromarray(pixels).save(root / "emoji" / "assets" / f"{file}.webp", lossless=True)
    for part, content in (("en/data.json", KNOWN), ("meta/groups.json", {"groups": GROUPS})):
        (root / "names" / part).parent.mkdir(parents=True)
        (root / "names" / part).write_text(json.dumps(content))
    torch.manual_seed(0)
    for component in make_bert():
        component.save_pretrained(root / "encoder")
    return {name: root / name for name in ("emoji", "names", "encoder")}


@pytest.fixture(scope="module")
def folder(sources, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("emoji")
    data.main([f"--folder={folder}", *(f"--{name}={path}" for name, path in sources.items())])
    return folder


def test_things_are_emoji_with_an_image_and_a_name(folder) -> None:
    things = {thing.name: thing for thing in read_things(folder)}
    assert list(things) == ["red apple", "raised hand", "keycap 1", "flag of Japan", "man with beard", "backhand index pointing right"]
    assert [thing.mirrors for thing in things.values()] == [True, True, False, False, True, False]
    assert things["red apple"] == Thing("red apple", "1f34e.webp", ("fruit",), "food-drink")
    assert things["raised hand"].tones == (("dark", "270b-1f3ff.webp"),)
    assert sorted(path.name for path in (folder / "images").iterdir()) == sorted(f"{file}.webp" for file in FILES[:-2])


def test_file_names_and_code_points_meet() -> None:
    assert code("0023-FE0F-20E3") == code("23-20e3") == code("0023-fe0f-20e3")
    assert code("1F3F4-E0067-E007F") == code("1f3f4-e0067_e007f")
    assert code("00A9-FE0F") == code("a9-fe0f") == code("a9")
    assert code("1f469-200d-1f52c") == code("1F469-200D-1F52C") != code("1f469-1f52c")


def test_a_composition_is_the_thing_over_its_background(sources) -> None:
    thing = open_thing(sources["emoji"] / "assets" / "1f34e.webp")
    assert thing.size == (12, 24)
    at = Place(left=40, top=20, width=12, height=24, mirrored=True)
    shown = compose(layer(thing, at), np.float32([10, 100, 200]))
    with Image.open(sources["emoji"] / "assets" / "1f34e.webp") as image:
        straight = np.asarray(image.convert("RGBA"), np.float64)[4:28, 8:20][:, ::-1]
    alpha = straight[..., 3:] / 255
    expected = np.full((SIZE, SIZE, 3), (10.0, 100, 200))
    expected[20:44, 40:52] = straight[..., :3] * alpha + (10, 100, 200) * (1 - alpha)
    assert np.abs(shown.transpose(1, 2, 0) - expected).max() <= 1  # colours times alpha are rounded, too
    box = at.box((16, 32), 64)
    assert box.sum() == 12 * 24 and box[4:28, 8:20].all()
    assert at.box((0, 0), 256, 4).sum() == 3 * 6


def test_things_stand_inside_and_are_mirrored_only_where_that_is_right(sources) -> None:
    thing = open_thing(sources["emoji"] / "assets" / "1f34e.webp")
    rng = np.random.default_rng(0)
    places = [place(thing, rng, may_mirror=i < 50) for i in range(100)]
    assert all(0.75 * SIZE - 1 <= p.height <= SIZE and abs(p.width * 2 - p.height) <= 1 for p in places)
    assert all(p.left >= 0 and p.top >= 0 and p.left + p.width <= SIZE and p.top + p.height <= SIZE for p in places)
    assert {p.mirrored for p in places[:50]} == {True, False} and not any(p.mirrored for p in places[50:])
    assert len({p.left for p in places}) > 20


def test_captions_name_what_is_shown() -> None:
    rng = np.random.default_rng(0)
    apple = Thing("red apple", "", ("fruit",), "food-drink")
    complete = [caption(apple, "orange", rng, complete=True) for _ in range(100)]
    assert all("red apple" in text and "orange" in text and ("3d" in text) and "a orange" not in text for text in complete)
    assert len(set(complete)) > 20
    some = [caption(apple, "white", rng) for _ in range(300)]
    assert {("white" in text, "3d" in text) for text in some} == {(True, True), (True, False), (False, True), (False, False)}
    assert 0 < sum("apple" not in text for text in some) < 60 and any("red apple, fruit" in text for text in some)
    hand = caption(Thing("raised hand", "", (), "people-body"), "blue", rng, tone="medium-dark", complete=True)
    assert "raised hand with medium-dark skin tone" in hand
    flag = [caption(Thing("flag of Japan", "", (), "flags"), "blue", rng) for _ in range(50)]
    assert any("the flag of Japan" in text for text in flag) and not any("a flag of Japan" in text for text in flag)


@pytest.mark.parametrize(("stage", "side", "small"), [("base", 64, None), ("sr256", 128, 32)])
def test_visits_differ_and_come_again(folder, stage, side, small) -> None:
    dataset = EmojiDataset(stage, folder, seed=1)
    one, again, other = dataset.visit(0, 0), dataset.visit(0, 0), dataset.visit(0, 1)
    assert one["pixel_values"].shape == (3, side, side) and one["pixel_values"].dtype == torch.uint8
    assert torch.equal(one["pixel_values"], again["pixel_values"]) and one["prompt"] == again["prompt"]
    assert not torch.equal(one["pixel_values"], other["pixel_values"])
    assert one["pixel_weight"].mean() == pytest.approx(1) and one["pixel_weight"].max() / one["pixel_weight"].min() in (1, 4)
    if small:
        means = one["pixel_values"].float().unflatten(2, (small, 4)).unflatten(1, (small, 4)).mean((2, 4))
        assert (means - one["low_res"].float()).abs().max() <= 2  # of the same window; colours times alpha are rounded first


def test_validation_shows_what_is_never_trained_on(folder) -> None:
    dataset = EmojiDataset("base", folder)
    kept = held_out(dataset.things)
    for number, (index, name) in enumerate(kept.items()):
        example, box = dataset.shown(number)
        corner = example["pixel_values"][:, box == 0].float().mean(1)
        assert (corner - torch.tensor(BACKGROUNDS[name])).abs().max() <= JITTER + 1 and name in example["prompt"]
        trained = [dataset.visit(index, visit)["prompt"] for visit in range(60)]
        assert not [text for text in trained if f" {name}" in text.replace("light blue", "lightblue").replace("red apple", "")]


def test_a_stage_begins_with_what_fits_of_another_cascade(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(train.NETWORKS, "base", (ImagenUNet2DConditionModel, TINY_BASE))
    monkeypatch.setitem(train.scenes.NETWORKS, "base", (ImagenUNet2DConditionModel, TINY_BASE))
    make_pipeline().save_pretrained(tmp_path)
    theirs, wider, plain = make_base().state_dict(), train.build("base", 48, tmp_path).state_dict(), train.build("base", 48).state_dict()
    new = {name for name in wider if wider[name].shape != theirs[name].shape}
    assert new and all("text" in name or ".add_" in name for name in new)
    for name, value in wider.items():
        assert torch.equal(value, plain[name] if name in new else theirs[name])
    told = capsys.readouterr().out
    assert f"{len(wider) - len(new)} of {len(wider)} tensors" in told and ", ".join(sorted(new)) in told


def test_the_cascade_is_trained_measured_put_together_and_sampled_from(folder, tmp_path, monkeypatch) -> None:
    tiny = {"base": {**TINY_BASE, "sample_size": 64, "patch_size": 4}, "sr256": {**TINY_SR, "sample_size": 256, "patch_size": 8}}
    for stage, network in (("base", ImagenUNet2DConditionModel), ("sr256", ImagenEfficientUNet2DConditionModel)):
        monkeypatch.setitem(train.NETWORKS, stage, (network, tiny[stage]))
        given = [f"--stage={stage}", f"--folder={folder}", f"--output_dir={folder / stage}", "--max_train_steps=2", "--train_batch_size=2"]
        given += ["--mixed_precision=no", "--dataloader_num_workers=0", "--validation_steps=2", "--report_to=none"]
        train.main([*given, "--max_sequence_length=16"])
        (line,) = (folder / stage / "validation.jsonl").read_text().splitlines()
        figures = json.loads(line)
        assert {"log_snr_-2", "thing/log_snr_-2", "name/log_snr_-2"} <= figures.keys()
        assert ("bicubic" in figures) == (stage == "sr256")
        assemble.main([f"--folder={folder}", f"--output_dir={tmp_path / stage}"])
    assert "unet_2" not in ImagenCascadePipeline.load_config(tmp_path / "base") or not (tmp_path / "base" / "unet_2").exists()
    assert "MiniLM" in (tmp_path / "sr256" / "NOTICE").read_text()
    pipe = ImagenCascadePipeline.from_pretrained(tmp_path / "sr256", variant="fp16")
    assert pipe("a red cube", num_inference_steps=2).images[0].size == (256, 256)


def test_icons_of_ones_own_need_a_name_and_a_file(sources, tmp_path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGBA", (300, 200), (9, 9, 9, 200)).save(tmp_path / "images" / "own.png")
    (tmp_path / LINES).write_text('{"name": "cube", "file": "own.png"}\n')
    data.main([f"--folder={tmp_path}", f"--encoder={sources['encoder']}"])
    assert EmojiDataset("base", tmp_path).visit(0, 0)["pixel_values"].shape == (3, 64, 64)
    for line, said in (
        ('{"name": "cube"}', "line 1 .* is no thing"),
        ('{"name": "cube", "file": "other.png"}', "names other.png, which is not in"),
    ):
        (tmp_path / LINES).write_text(line + "\n")
        with pytest.raises(OSError, match=said):
            read_things(tmp_path)


def test_what_is_missing_is_said(sources, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OSError, match="npm is not there .* --emoji and --names"):
        packages.fetch_from_npm(packages.IMAGES, tmp_path / "emoji")
    with pytest.raises(OSError, match="holds no assets"):
        named_things(tmp_path, sources["names"])
    with pytest.raises(OSError, match="holds no names"):
        named_things(sources["emoji"], tmp_path)
    with pytest.raises(OSError, match="things.jsonl is not there; `python -m examples.emoji.data"):
        EmojiDataset("base", tmp_path)
    with pytest.raises(OSError, match="--stage base writes it"):
        assemble.assemble(tmp_path)
    for part, content in (("en/data.json", []), ("meta/groups.json", {"groups": {}})):
        (tmp_path / part).parent.mkdir()
        (tmp_path / part).write_text(json.dumps(content))
    with pytest.raises(OSError, match="none of the 9 images"):
        named_things(sources["emoji"], tmp_path)


def test_packages_are_fetched_once_and_whole(tmp_path, monkeypatch) -> None:
    """By a program in npm's place, since tests ask no registry."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "file").write_text("content")
    subprocess.run(["tar", "czf", "one.tgz", "package"], cwd=tmp_path, check=True)
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(
        f"#!{sys.executable}\nimport shutil, sys\nshutil.copy({str(tmp_path / 'one.tgz')!r}, '.')\nsys.exit('gone' in sys.argv)\n"
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent))
    for again in (False, True):
        place = tmp_path / "kept" / "there"
        assert (packages.fetch_from_npm("gone" if again else "there", place) / "file").read_text() == "content"
    with pytest.raises(OSError, match="npm did not get gone"):
        packages.fetch_from_npm("gone", tmp_path / "kept" / "gone")
    assert not (tmp_path / "kept" / "gone").exists()
