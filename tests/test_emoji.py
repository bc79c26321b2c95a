"""The example of real things: names and images from packages, compositions, captions, and the run to a pipeline, all on tiny settings."""

import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from examples.emoji import assemble, data, flat, meanings, nearest_names, packages, synonyms, train
from examples.emoji.articles import with_article
from examples.emoji.captions import caption
from examples.emoji.compositions import BACKGROUNDS, JITTER, LARGEST, SIZE, Place, compose, layer, open_thing, place
from examples.emoji.data import EmojiDataset, held_out
from examples.emoji.flat import with_flat
from examples.emoji.names import code, named_things
from examples.emoji.synonyms import words_of
from examples.emoji.things import LINES, Thing, copy_things, read_things, trained_files, unseen_in_flat, write_things
from examples.emoji.validation import EmojiFigures
from imagen_diffusers import ImagenCascadePipeline, ImagenEfficientUNet2DConditionModel, ImagenUNet2DConditionModel
from imagen_diffusers.training.losses import LossSettings

from .conftest import TINY_BASE, TINY_SR, make_base, make_pipeline, make_sr
from .encoders import make_bert

KNOWN = [
    {"label": "red apple", "hexcode": "1F34E", "tags": ["fruit", "up", "ily", "143", "red", "Man with Beard"], "group": 4},
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
    {"label": "man: bald", "hexcode": "1F468-200D-1F9B2", "group": 1},
    {"label": "grinning cat", "hexcode": "1F63A", "group": 0},
    {"label": "cat face", "hexcode": "1F431", "group": 3, "tags": ["kitty"]},
    {"label": "black large square", "hexcode": "2B1B", "group": 8},
    {"label": "small orange diamond", "hexcode": "1F538", "group": 8},
    {"label": "one-thirty", "hexcode": "1F55C", "group": 5},
    {"label": "flag: Netherlands", "hexcode": "1F1F3-1F1F1", "group": 9},
    {"label": "flag: England", "hexcode": "1F3F4-E0067-E0062-E0065-E006E-E0067-E007F", "group": 9, "tags": ["gbeng"]},
    {"label": "no image of it", "hexcode": "1F600", "group": 0},
    {"label": "regional indicator A", "hexcode": "1F1E6"},
]
GROUPS = {
    "0": "smileys-emotion",
    "1": "people-body",
    "3": "animals-nature",
    "4": "food-drink",
    "5": "travel-places",
    "8": "symbols",
    "9": "flags",
}
FILES = (
    *("1f34e", "270b", "270b-1f3ff", "31-20e3", "1f1ef-1f1f5", "1f9d4", "1f449", "1f468-200d-1f9b2", "1f63a", "1f431", "2b1b", "1f538"),
    *("1f55c", "1f1f3-1f1f1", "1f3f4-e0067_e0062_e0065_e006e_e0067", "1f1e6", "e000"),
)
DRAWN = '<path fill="#0074ba" d="M4 8h12v16H4z"/><path fill="#fff" fill-opacity=".5" d="M16 8h8v8h-8z"/>'
ICONS = {"red-apple": {}, "keycap-1": {"height": 64}, "raised-hand": {}, "no-image-of-it": {}}
CHARACTERS = {"1f34e": "red-apple", "31-20e3": "keycap-1", "270b": "raised-hand", "1f600": "no-image-of-it", "1f1e6": "no-drawing"}


def in_place_of_resvg(svg: str, size: int) -> bytes:
    """So that tests of all else run without resvg-py: an image of the size that is asked for, of the same two boxes."""
    part = size // 8
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[2 * part : 6 * part, part : 4 * part] = (0, 116, 186, 255)
    pixels[2 * part : 4 * part, 4 * part : 6 * part] = (255, 255, 255, 128)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


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
    drawings = {"width": 32, "height": 32, "icons": {name: {"body": DRAWN, **size} for name, size in ICONS.items()}}
    contents = (("names/en/data.json", KNOWN), ("names/meta/groups.json", {"groups": GROUPS}))
    for part, content in (*contents, ("flat/chars.json", CHARACTERS), ("flat/icons.json", drawings)):
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        (root / part).write_text(json.dumps(content))
    torch.manual_seed(0)
    for component in make_bert():
        component.save_pretrained(root / "encoder")
    return {name: root / name for name in ("emoji", "flat", "names", "encoder")}


@pytest.fixture(scope="module")
def folder(sources, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("emoji")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat, "_resvg", lambda: None)
        patch.setattr(flat, "rendered", in_place_of_resvg)
        data.main([f"--folder={folder}", *(f"--{name}={path}" for name, path in sources.items())])
    return folder


def test_things_are_emoji_with_an_image_and_a_name(folder) -> None:
    listed = read_things(folder)
    things = {thing.name: thing for thing in listed}
    assert [(thing.name, thing.mirrors) for thing in listed] == [
        *(("red apple", True), ("raised hand", True), ("keycap 1", False), ("flag of Japan", False), ("man with beard", True)),
        *(("backhand index pointing right", False), ("bald man", True), ("grinning cat", True), ("grinning cat", True)),
        *(("black square", False), ("orange diamond", False), ("one-thirty", False), ("flag of the Netherlands", False)),
        ("flag of England", False),
    ]
    assert things["red apple"] == Thing("red apple", "1f34e.webp", ("fruit",), "food-drink", styles={"flat": "flat-1f34e.png"})
    assert things["grinning cat"].tags == ("kitty", "cat face") and things["flag of England"].tags == ()
    assert things["raised hand"].tones == (("dark", "270b-1f3ff.webp"),)
    images = [*(f"{file}.webp" for file in FILES[:-2]), *(f"flat-{file}.png" for file in ("1f34e", "270b", "31-20e3"))]
    assert sorted(path.name for path in (folder / "images").iterdir()) == sorted(images)
    assert sorted(path.name for path in (folder / "large").iterdir()) == sorted(images[-3:])


def test_a_dictionary_offers_the_usual_meaning_and_no_word_that_is_measured(tmp_path, capsys) -> None:
    things = [Thing("hog", "", group="animals-nature"), Thing("drum", "", group="objects"), Thing("fog", "", ("mist",), "animals-nature")]
    lines = (
        *("  1 a licence", "11 05 n 01 hog 0 000 | another meaning", "12 05 n 03 hog 0 swine 0 DRUM 0 000 | a farm animal (of farms); fat"),
        *("13 06 n 02 drum 0 tympans 0 000 | an instrument that is no hooters' horn", "14 19 n 02 fog 0 Mist 0 000 | " + "very " * 16),
    )
    (tmp_path / "data.noun").write_text("\n".join(lines) + "\n")
    with pytest.raises(OSError, match="holds no index.noun; give WordNet's dictionary"):
        list(meanings.candidates(things, tmp_path))
    used = ("  1 a licence", "hog n 2 1 @ 2 2 12 11", "drum n 1 1 @ 1 1 13", "fog n 1 0 1 0 14")
    (tmp_path / "index.noun").write_text("\n".join(used) + "\n")
    assert list(meanings.candidates(things, tmp_path)) == [("hog", ["swine"], "a farm animal"), ("drum", [], ""), ("fog", [], "")]


def test_kept_meanings_hold_no_word_that_is_measured() -> None:
    kept, measured = meanings.kept(), meanings.measured_words()
    assert len(kept) > 300 and all(set(known) == {"words", "meaning"} and any(known.values()) for known in kept.values())
    assert not any(words_of(text) & measured for known in kept.values() for text in (*known["words"], known["meaning"]))
    apple = Thing("pear", "pear.webp", ("fruit",), "food-drink")
    assert meanings.with_meanings([apple, Thing("unknown", "")]) == [replace(apple, meaning=kept["pear"]["meaning"]), Thing("unknown", "")]
    bread = Thing("bread", "", ("Staff of Life",))
    assert meanings.with_meanings([bread])[0].tags == ("Staff of Life",)


def test_a_drawing_is_rendered_as_it_is_described(sources, tmp_path) -> None:
    pytest.importorskip("resvg_py", reason="SVG are rendered by it: pip install -c constraints.txt -e '.[emoji]'")
    (apple, keycap, other) = with_flat(
        [Thing(file, f"{file}.webp") for file in ("1f34e", "0031-fe0f-20e3", "e000")], sources["flat"], tmp_path
    )
    assert apple.styles == {"flat": "flat-1f34e.png"} and other.styles == {}
    for images, size in (("images", SIZE), ("large", LARGEST)):
        same = in_place_of_resvg("", size)
        with Image.open(tmp_path / images / apple.styles["flat"]) as image, Image.open(io.BytesIO(same)) as expected:
            assert image.size == (size, size) and np.abs(np.asarray(image, np.int16) - np.asarray(expected, np.int16)).max() <= 1
    with Image.open(tmp_path / "images" / keycap.styles["flat"]) as image:
        assert image.getbbox() == (SIZE // 4 + 16, 32, SIZE // 4 + 96, 96)  # a drawing that is twice as high as wide stands in the middle


def test_drawings_that_are_none_of_these_things_are_refused(sources, tmp_path, monkeypatch) -> None:
    with pytest.raises(OSError, match="none of the 4 drawings of .*flat is of one of the 1 things"):
        with_flat([Thing("cube", "e000.webp")], sources["flat"], tmp_path)
    with pytest.raises(OSError, match="holds no chars.json; give the folder of the unpacked npm package"):
        with_flat([], tmp_path, tmp_path)
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ImportError, match=r"resvg-py: pip install -c constraints.txt -e .\.\[emoji\]., or leave .* --without_flat"):
        with_flat([Thing("red apple", "1f34e.webp")], sources["flat"], tmp_path)


def test_one_in_ten_things_is_never_trained_in_the_flat_style() -> None:
    things = [Thing(f"thing {i // 2 if i < 4 else i}", f"{i}.png", styles={"flat": f"flat {i}.png"} if i % 4 else {}) for i in range(40)]
    things[12:14] = [replace(thing, name=f"{who} cook") for thing, who in zip(things[12:14], ("man", "woman"), strict=True)]
    alike = {0, 1, 2, 3, 12, 13}  # these share their names, but for whom they show
    styled = [number for number, thing in enumerate(things) if thing.styles and number not in alike]
    assert unseen_in_flat(things) == {styled[0], styled[10], styled[20]}
    files = [file for _, file in trained_files(things)]
    assert len(files) == len({*files}) == 40 + 30 - 3 and not {f"flat {number}.png" for number in unseen_in_flat(things)} & {*files}


def test_a_visit_shows_one_style_and_says_which(folder) -> None:
    dataset = EmojiDataset("base", folder)
    (apple, hand) = (next(i for i, thing in enumerate(dataset.things) if thing.name == name) for name in ("red apple", "raised hand"))
    assert dataset.unseen_in_flat == {apple}  # the first that has the style
    prompts = [dataset.visit(hand, number)["prompt"] for number in range(300)]
    flats = ["flat" in text for text in prompts]
    assert 70 < sum(flats) < 130 and not any(
        "3d" in text or "skin tone" in text for text, is_flat in zip(prompts, flats, strict=True) if is_flat
    )
    assert not any("flat" in dataset.visit(apple, number)["prompt"] for number in range(60))
    shown = dataset.visit(hand, flats.index(True))["pixel_values"].flatten(1).T.float()
    assert (shown - torch.tensor([0, 116, 186.0])).abs().amax(1).min() <= 1  # the colour of the drawing
    assert not any("flat" in dataset.shown(number)[0]["prompt"] for number in range(14))


def test_without_the_flat_style_nothing_of_it_is_there(sources, folder, tmp_path) -> None:
    given = [f"--{name}={path}" for name, path in sources.items() if name != "flat"]
    data.main([f"--folder={tmp_path}", "--without_flat", *given])
    assert read_things(tmp_path) == [replace(thing, styles={}) for thing in read_things(folder)]
    assert not list((tmp_path / "images").glob("flat*")) and not (tmp_path / "large").exists()
    whole, without = (path / "NOTICE" for path in (folder, tmp_path))
    assert whole.read_bytes() == data.NOTICE.read_bytes() and "flat style" in whole.read_text()
    left_out = {*whole.read_text().split("\n\n")} - {*without.read_text().split("\n\n")}
    assert [text.split(":")[0] for text in left_out] == ["Images in the flat style"]
    assert "Fluent Emoji" in without.read_text() and not re.search("flat|resvg", without.read_text())


def test_another_encoder_may_have_the_same_things(sources, folder, tmp_path) -> None:
    with pytest.raises(ValueError, match="--things takes all things as they are there; leave out --emoji"):
        data.main([f"--folder={tmp_path / 'other'}", f"--things={folder}", "--without_flat"])
    assert not (tmp_path / "other").exists()
    (tmp_path / "bare").mkdir()
    shutil.copyfile(folder / LINES, tmp_path / "bare" / LINES)
    with pytest.raises(OSError, match="bare/images"):
        copy_things(tmp_path / "bare", tmp_path / "other")
    assert not (tmp_path / "other" / LINES).exists()
    data.main([f"--folder={tmp_path / 'other'}", f"--things={folder}", f"--encoder={sources['encoder']}"])
    assert read_things(tmp_path / "other") == read_things(folder)
    for part in ("images", "large"):
        images = {path.name: path.read_bytes() for path in (folder / part).iterdir()}
        assert {path.name: path.read_bytes() for path in (tmp_path / "other" / part).iterdir()} == images
    assert (tmp_path / "other" / "NOTICE").read_bytes() == (folder / "NOTICE").read_bytes()


def test_file_names_and_code_points_meet() -> None:
    assert code("0023-FE0F-20E3") == code("23-20e3") == code("0023-fe0f-20e3")
    assert code("1F3F4-E0067-E0062-E0065-E006E-E0067-E007F") == code("1f3f4-e0067_e0062_e0065_e006e_e0067")
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


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_a_thing_is_upright_as_its_camera_says(tmp_path, kind) -> None:
    upright = Image.new("RGBA", (4, 8), "red")
    upright.paste("blue", (0, 0, 4, 2))
    note = Image.Exif()
    note[ExifTags.Base.Orientation] = 6  # held on its side: turned to the right it is upright
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / f"thing.{kind}", lossless=True, exif=note)
    assert open_thing(tmp_path / f"thing.{kind}").convert("RGBA").tobytes() == upright.tobytes()


def test_things_stand_inside_and_are_mirrored_only_where_that_is_right(sources) -> None:
    thing = open_thing(sources["emoji"] / "assets" / "1f34e.webp")
    rng = np.random.default_rng(0)
    places = [place(thing, rng, may_mirror=i < 50) for i in range(100)]
    assert all(0.75 * SIZE - 1 <= p.height <= SIZE and abs(p.width * 2 - p.height) <= 1 for p in places)
    assert all(p.left >= 0 and p.top >= 0 and p.left + p.width <= SIZE and p.top + p.height <= SIZE for p in places)
    assert {p.mirrored for p in places[:50]} == {True, False} and not any(p.mirrored for p in places[50:])
    assert len({p.left for p in places}) > 20


WITH_ARTICLES = (
    "a unicorn/a euro banknote/a ewe/a one o’clock/an umbrella/an hourglass done/an x-ray/an OK hand/a T-Rex/an unidentified object/"
    "a bus/an octopus/a cactus/a dress/a rhinoceros/a nest with eggs/a person lifting weights/a glass of milk/glasses/hot springs/"
    "men wrestling/people holding hands/woman’s clothes/unlocked/foggy/cooking/rolling on the floor laughing/mount fuji/Mrs. Claus/"
    "the flag of Japan/the Statue of Liberty/a black flag/crossed flags/an orange"
)


@pytest.mark.parametrize("words", WITH_ARTICLES.split("/"))
def test_articles_are_those_of_english(words) -> None:
    first, _, rest = words.partition(" ")
    assert with_article(rest if first in ("a", "an", "the") else words) == words


def test_captions_name_what_is_shown() -> None:
    rng = np.random.default_rng(0)
    apple = Thing("red apple", "", ("fruit",), "food-drink")
    complete = [caption(apple, "orange", rng, complete=True) for _ in range(100)]
    assert all("red apple" in text and "orange" in text and ("3d" in text) and "a orange" not in text for text in complete)
    assert len(set(complete)) > 20
    some = [caption(apple, "white", rng) for _ in range(300)]
    assert {("white" in text, "3d" in text) for text in some} == {(True, True), (True, False), (False, True), (False, False)}
    assert 90 < sum("apple" not in text for text in some) < 150 and any("red apple, fruit" in text for text in some)
    described = [caption(replace(apple, meaning="a crisp pome"), "white", rng) for _ in range(300)]
    assert 30 < sum("a crisp pome" in text for text in described) < 90 and 90 < sum("red apple" in text for text in described) < 150
    assert "apple" in caption(replace(apple, meaning="a crisp pome"), "white", rng, complete=True)
    hand = caption(Thing("raised hand", "", (), "people-body"), "blue", rng, tone="medium-dark", complete=True)
    assert "raised hand with medium-dark skin tone" in hand
    tagged = [caption(Thing("raised hand", "", ("stop",), "people-body"), "blue", rng, tone="dark") for _ in range(300)]
    assert any("raised hand with dark skin tone, stop" in text for text in tagged) and not any("hand, stop with" in text for text in tagged)
    assert sum("3d" in caption(apple, "white", rng, complete=i % 2 == 0) for i in range(2000)) / 2000 == pytest.approx(0.75, abs=0.03)
    assert all("flat" in text and "3d" not in text for text in (caption(apple, "white", rng, style="flat") for _ in range(100)))
    flag = [caption(Thing("flag of Japan", "", (), "flags"), "blue", rng) for _ in range(50)]
    assert any("the flag of Japan" in text for text in flag) and not any("a flag of Japan" in text for text in flag)


@pytest.mark.parametrize(("stage", "side", "small"), [("base", 64, None), ("sr256", 128, 32), ("sr1024", 192, 48)])
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


def test_errors_in_a_things_box_count_more_but_in_the_largest_stage(folder) -> None:
    weights = {}
    for stage in ("base", "sr256", "sr1024"):
        seen = [EmojiDataset(stage, folder).visit(0, number)["pixel_weight"] for number in range(4)]
        weights[stage] = {round(value.item(), 4) for weight in seen for value in (weight / weight.min()).unique()}
    assert weights == {"base": {1, 4}, "sr256": {1, 4}, "sr1024": {1}}


def test_a_things_box_in_a_window_is_cut_at_its_edges() -> None:
    at = Place(left=30, top=-8, width=24, height=20, mirrored=False)
    assert np.argwhere(at.box((0, 0), 64)).min(0).tolist() == [0, 30] and np.argwhere(at.box((0, 0), 64)).max(0).tolist() == [11, 53]
    within = at.box((4, 40), 16, 4)  # 8 rows from the top on, and 14 of 16 columns: whole small pixels that it touches
    assert within.shape == (4, 4) and within.tolist() == [[1] * 4] * 2 + [[0] * 4] * 2
    assert not at.box((12, 0), 16).any() and not at.box((0, 54), 8).any()


def test_stages_are_put_together_from_the_base_on_without_a_gap(folder, tmp_path, capsys) -> None:
    shutil.copytree(folder, tmp_path / "run")
    make_base().save_pretrained(tmp_path / "run" / "base" / "unet")
    make_sr().save_pretrained(tmp_path / "run" / "sr1024" / "unet")
    assert assemble.assemble(tmp_path / "run", "mine").stage_numbers == [1]
    assert "base\n" in capsys.readouterr().out


def test_the_largest_stage_is_shown_things_as_large_as_their_images_are(folder, monkeypatch) -> None:
    sizes = []
    monkeypatch.setattr(data, "layer", lambda thing, at, size: sizes.append((size, at)) or layer(thing, at, size))
    dataset = EmojiDataset("sr1024", folder)
    (hand,) = (i for i, thing in enumerate(dataset.things) if thing.name == "raised hand")
    flats = ["flat" in dataset.visit(hand, number)["prompt"] for number in range(60)]
    assert 30 < sum(flats) < 50
    for (size, at), is_flat in zip(sizes, flats, strict=True):
        assert size == (5 * LARGEST // 8 if is_flat else 192)  # the drawing's boxes take so much of its width; 3D images have 32 pixels
        assert 0.75 * size - 1 <= max(at.width, at.height) <= size and max(at.left + at.width, at.top + at.height) <= size
    # One of these three is never trained in the flat style.
    assert all("flat" in dataset.shown(number)[0]["prompt"] for number in range(3))
    assert EmojiFigures("sr1024", folder, *_noise_and_loss(), count=2, **_text(folder)).bicubic.keys() == {"bicubic", "thing/bicubic"}


@pytest.mark.parametrize(("flattened", "at_least", "at_most"), [(None, 15, 35), (0.0, 0, 0), (1.0, 60, 60)])
def test_how_often_things_are_shown_flat_can_be_said(folder, flattened, at_least, at_most) -> None:
    dataset = EmojiDataset("base", folder, flattened=flattened)
    (hand,) = (i for i, thing in enumerate(dataset.things) if thing.name == "raised hand")
    assert at_least <= sum("flat" in dataset.visit(hand, number)["prompt"] for number in range(60)) <= at_most


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="--flattened is a share, from 0 to 1, not 1.5"):
        train.EmojiSettings("base", flattened=1.5)


def test_compositions_have_the_size_of_an_icon_within_that_of_the_stage(tmp_path, monkeypatch) -> None:
    (tmp_path / "icons").mkdir()
    icons = {"long": (2000, 30), "large": (700, 650), "small": (50, 60)}
    for name, size in icons.items():
        Image.new("RGBA", size, (200, 90, 30, 255)).save(tmp_path / "icons" / f"{name}.png")
    write_things(tmp_path, [Thing(name, f"{name}.png") for name in icons], tmp_path / "icons")
    sizes = []
    monkeypatch.setattr(data, "layer", lambda thing, at, size: sizes.append(size) or layer(thing, at, size))
    for stage, expected in (("base", [256, 256, 256]), ("sr256", [256, 256, 256]), ("sr1024", [1024, 700, 192])):
        dataset, view = EmojiDataset(stage, tmp_path), data.VIEWS[stage]
        for index in range(3):
            example = dataset.visit(index, 0)
            assert example["pixel_values"].shape == example["pixel_weight"].expand(3, -1, -1).shape == (3, view.side, view.side)
            assert view.scale is None or example["low_res"].shape == (3, view.side // view.scale, view.side // view.scale)
        assert sizes == expected
        sizes.clear()


def test_drawings_of_a_folder_made_before_are_too_small_for_the_largest_stage(folder, tmp_path) -> None:
    shutil.copytree(folder, tmp_path / "old")
    EmojiDataset("sr1024", tmp_path / "old")
    (tmp_path / "old" / "large" / "flat-270b.png").unlink()
    EmojiDataset("sr256", tmp_path / "old")
    with pytest.raises(OSError, match="images/flat-270b.png has 256 pixels, too few .* place of .*large/flat-270b.png.* remove"):
        EmojiDataset("sr1024", tmp_path / "old")


def test_validation_shows_what_is_never_trained_on(folder) -> None:
    dataset = EmojiDataset("base", folder)
    kept = held_out(dataset.things)
    for number, (index, name) in enumerate(kept.items()):
        example, box = dataset.shown(number)
        corner = example["pixel_values"][:, box == 0].float().mean(1)
        assert (corner - torch.tensor(BACKGROUNDS[name])).abs().max() <= JITTER + 1 and name in example["prompt"]
        other, _ = dataset.shown(number, named=number + 1)
        assert torch.equal(other["pixel_values"], example["pixel_values"]) and name in other["prompt"]
        trained = [dataset.visit(index, visit)["prompt"] for visit in range(20)]
        assert not [text for text in trained if f" {name}" in text.replace("light blue", "lightblue").replace("red apple", "")]


def _text(folder: Path) -> dict[str, Any]:
    tokenizer, encoder = data.load_tokenizer(folder / "tokenizer"), data.load_text_encoder(folder / "text_encoder", variant="fp16")
    return {"tokenizer": tokenizer, "text_encoder": encoder.float(), "max_sequence_length": 16}


def _noise_and_loss() -> tuple[torch.Tensor, LossSettings]:
    return train.scenes.noise_curve(0), train.scenes.SampleLossSettings(prediction_type="sample")


def test_a_wrong_caption_is_wrong_in_the_name_alone(folder, monkeypatch) -> None:
    """So that what it costs is the name's: the phrasing, the background and the skin tone stay."""
    monkeypatch.setattr(data, "TONED", 1)
    figures = EmojiFigures("base", folder, *_noise_and_loss(), count=14, **_text(folder))
    dataset = EmojiDataset("base", folder)
    names = [thing.name for thing in dataset.things]
    for number, wrong in enumerate(figures.wrong):
        right = dataset.shown(number)[0]["prompt"]
        named = ((right, names[number]), (wrong, names[(number + 1) % 14]))
        bare = [re.sub(r"\b(an?|the) (?=NAME)", "", text.replace(name, "NAME")) for text, name in named]
        assert bare[0] == bare[1] and "NAME" in bare[0]
    assert "raised hand with dark skin tone" in dataset.shown(1)[0]["prompt"] and "keycap 1 with dark skin tone" in figures.wrong[1]


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
    shutil.rmtree(tmp_path / "unet_3")
    with pytest.raises(OSError, match="has no stage sr1024 to begin with; leave --pretrained out"):
        train.build("sr1024", 48, tmp_path)
    assert f"{len(wider) - len(new)} of {len(wider)} tensors" in told and ", ".join(sorted(new)) in told


def test_an_encoder_is_asked_which_names_words_are_nearest_to(folder, monkeypatch, capsys) -> None:
    words = {"synonym": {"red apple juice": ["red apple"], "malus": ["bald man"]}, "scientific name": {}}
    for module in (synonyms, nearest_names):
        monkeypatch.setattr(module, "chosen", lambda: words)
    monkeypatch.setattr(synonyms, "caption_words", lambda things: set())

    def directions(asked, **text):
        """Each name has a direction of its own, and both words have the apple's."""
        names = [thing.name for thing in read_things(folder)]
        return torch.eye(len(names))[[names.index(word) if word in names else names.index("red apple") for word in asked]]

    monkeypatch.setattr(nearest_names, "directions", directions)
    nearest_names.main([f"--folder={folder}"])
    told = capsys.readouterr().out
    assert "among the 1 nearest of 14 names | 50.0 %" in told and "synonym: right at most, by any cascade on this encoder | 100.0 %" in told
    monkeypatch.undo()
    tokenizer, encoder = data.load_tokenizer(folder / "tokenizer"), data.load_text_encoder(folder / "text_encoder", variant="fp16")
    text = {"tokenizer": tokenizer, "text_encoder": encoder.float()}
    one, same, other = nearest_names.directions(["red apple", "red apple", "bald man"], **text)
    assert torch.allclose(one, same, atol=1e-6) and not torch.allclose(one, other, atol=1e-3)
    assert torch.stack((one, other)).norm(dim=-1) == pytest.approx(torch.ones(2), abs=1e-5)


def test_of_words_that_a_tokenizer_takes_for_the_same_what_most_of_them_mean_can_be_right() -> None:
    apple, man, woman = (SimpleNamespace(name=name) for name in ("apple", "man", "woman"))
    asked = {"ox": [man, woman], "axe": [man], "auk": [woman, man], "emu": [apple], "box": [apple]}  # four of them take "an"
    by_article = nearest_names.right_at_most(asked, lambda caption: {"input_ids": [" an " in caption]})
    assert by_article == 3 + 1
    assert nearest_names.right_at_most(asked, lambda caption: {"input_ids": list(caption.encode())}) == len(asked)


@pytest.mark.thorough
def test_the_cascade_is_trained_measured_put_together_and_sampled_from(folder, tmp_path, monkeypatch) -> None:
    tiny = {
        "base": (ImagenUNet2DConditionModel, {**TINY_BASE, "sample_size": 64, "patch_size": 4}),
        "sr256": (ImagenEfficientUNet2DConditionModel, {**TINY_SR, "sample_size": 256, "patch_size": 8}),
        "sr1024": (ImagenEfficientUNet2DConditionModel, {**TINY_SR, "sample_size": 1024, "patch_size": 16}),
    }
    monkeypatch.setattr(train, "EmojiFigures", partial(EmojiFigures, count=4))
    for stage, network in tiny.items():
        monkeypatch.setitem(train.NETWORKS, stage, network)
        given = [f"--stage={stage}", f"--folder={folder}", f"--output_dir={folder / stage}", "--max_train_steps=2", "--train_batch_size=2"]
        given += ["--mixed_precision=no", "--dataloader_num_workers=0", "--validation_steps=2", "--report_to=none"]
        train.main([*given, "--max_sequence_length=16"])
        (line,) = (folder / stage / "validation.jsonl").read_text().splitlines()
        figures = json.loads(line)
        assert {"log_snr_-2", "thing/log_snr_-2", "name/log_snr_-2"} <= figures.keys()
        assert ("bicubic" in figures) == (stage != "base")
        assemble.main([f"--folder={folder}", f"--output_dir={tmp_path / stage / 'imagen-emoji'}"])
    base, made = tmp_path / "base" / "imagen-emoji", tmp_path / "sr1024" / "imagen-emoji"
    assert "unet_2" not in ImagenCascadePipeline.load_config(base) or not (base / "unet_2").exists()
    assert (made / "NOTICE").read_bytes() == data.NOTICE.read_bytes()
    assert (made / "names.txt").read_text().splitlines() == sorted({thing.name for thing in read_things(folder)})
    assert not (made / data.ENCODERS_LICENSE).exists()  # the encoder was given, and is not the one that is fetched
    card = (made / "README.md").read_text()
    assert "license: apache-2.0" in card and 'from_pretrained("imagen-emoji", dtype=torch.float32)' in card and str(tmp_path) not in card
    pipe = ImagenCascadePipeline.from_pretrained(made, variant="fp16")
    assert pipe.scheduler.config.sample_max_value == pipe.scheduler_2.config.sample_max_value == 1.0
    assert pipe("a red cube", num_inference_steps=2).images[0].size == (1024, 1024)
    two = ImagenCascadePipeline.from_pretrained(tmp_path / "sr256" / "imagen-emoji", variant="fp16")
    assert two("a red cube", num_inference_steps=2).images[0].size == (256, 256)

    # The same with another notice of emoji, as of a folder without the flat style.
    (folder / "NOTICE").write_text(data.notice(flat=False))
    assemble.main([f"--folder={folder}", f"--output_dir={tmp_path / 'without'}"])
    assert (tmp_path / "without" / "NOTICE").read_text() == data.notice(flat=False) != data.notice(flat=True)

    # The same as of icons of one's own, with a judge: twice into one folder.
    (folder / "NOTICE").write_text("all rights reserved")
    (folder / "judge").mkdir()
    (folder / "judge" / "judge.safetensors").write_bytes(b"weights")
    (folder / data.ENCODERS_LICENSE).write_text("of the encoder")
    for _ in range(2):
        assemble.main([f"--folder={folder}", f"--output_dir={tmp_path / 'own'}"])
    assert (tmp_path / "own" / "judge" / "judge.safetensors").read_bytes() == b"weights"
    assert not (tmp_path / "own" / "NOTICE").exists()
    assert (tmp_path / "own" / data.ENCODERS_LICENSE).read_text() == "of the encoder"
    card = (tmp_path / "own" / "README.md").read_text()
    assert "license: unknown" in card and f'from_pretrained("{tmp_path / "own"}", dtype=torch.float32)' in card


def test_icons_of_ones_own_need_a_name_and_a_file(sources, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGBA", (300, 200), (9, 9, 9, 200)).save(tmp_path / "images" / "own.png")
    (tmp_path / LINES).write_text('{"name": "cube", "file": "own.png"}\n')
    data.main([f"--folder={tmp_path}", f"--encoder={sources['encoder']}"])
    assert EmojiDataset("base", tmp_path).visit(0, 0)["pixel_values"].shape == (3, 64, 64)
    data.main([f"--folder={tmp_path}", f"--encoder={sources['encoder']}", f"--emoji={sources['emoji']}"])
    assert f"{tmp_path / LINES} is there already" in capsys.readouterr().out
    assert not (tmp_path / data.ENCODERS_LICENSE).exists()
    monkeypatch.setattr(packages, "fetch_encoder", lambda place: sources["encoder"])
    data.main([f"--folder={tmp_path}"])
    assert "Apache License" in (tmp_path / data.ENCODERS_LICENSE).read_text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "things.jsonl is empty"),
        ("cube", "line 1 of .*things.jsonl is no JSON"),
        ('{"name": "cube"}', "line 1 of .*things.jsonl is no thing: it has to be an object with a name and a file"),
        ('{"name": "cube", "file": "own.png", "tag": []}', "may have group, meaning, mirrors, styles, tags, tones"),
        ('{"name": "", "file": "own.png"}', "its name is ''"),
        ('{"name": 5, "file": "own.png"}', "its name is 5"),
        ('{"name": "cube", "file": "own.png", "tags": "fruit"}', "its tags are 'fruit'; give a list"),
        ('{"name": "cube", "file": "own.png", "tones": {"dark": "own.png"}}', "its tones are .*; give a list"),
        ('{"name": "cube", "file": "own.png", "tones": [["dark"]]}', "its tones are .*; give a list"),
        ('{"name": "cube", "file": "own.png", "styles": {"pixel": "own.png"}}', "its styles are .*; give a file for the style .flat."),
        ('{"name": "cube", "file": "own.png", "styles": ["own.png"]}', "its styles are .*; give a file for the style .flat."),
        (
            '{"name": "cube", "file": "own.png", "styles": {"flat": "other.png"}}',
            "line 1 of .*things.jsonl names other.png, which is not in",
        ),
        ('{"name": "cube", "file": "own.png", "mirrors": "no"}', "mirrors is true or false"),
        ('{"name": "cube", "file": "own.png", "meaning": 5}', "group a word, and meaning words"),
        ('{"name": "cube", "file": "other.png"}', "line 1 of .*things.jsonl names other.png, which is not in"),
        ('{"name": "cube", "file": "things.txt"}', "line 1 of .*things.jsonl names things.txt, which is no image"),
    ],
)
def test_a_line_that_is_no_thing_is_named(tmp_path, line, said) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "things.txt").write_text("a cube")
    Image.new("RGBA", (8, 8)).save(tmp_path / "images" / "own.png")
    (tmp_path / LINES).write_text(line and line + "\n")
    with pytest.raises(OSError, match=said):
        read_things(tmp_path)


def test_images_that_show_nothing_are_named(folder, tmp_path) -> None:
    whole = next((folder / "images").glob("*.webp"))
    for name, kept in (("cut.webp", whole.read_bytes()[:-20]), ("words.webp", b"hello")):
        (tmp_path / name).write_bytes(kept)
        with pytest.raises(OSError, match=f"{name} cannot be read .*save it anew"):
            open_thing(tmp_path / name)
    Image.new("RGBA", (8, 8)).save(tmp_path / "empty.png")
    with pytest.raises(OSError, match=r"empty.png is transparent all over"):
        open_thing(tmp_path / "empty.png")


def test_emoji_are_not_mixed_with_icons_of_ones_own(sources, folder, tmp_path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "shoe.png").touch()
    (tmp_path / "NOTICE").write_text("by its owner")
    given = [f"--folder={tmp_path}", *(f"--{name}={path}" for name, path in sources.items())]
    with pytest.raises(OSError, match=r"holds images, and .*things.jsonl is not there: write it"):
        data.main(given)
    with pytest.raises(ValueError, match=r"--without_flat leaves out what --flat"):
        data.main([*given, "--without_flat"])
    with pytest.raises(OSError, match=r"nowhere/things.jsonl is not there, so there are no things to copy"):
        data.main([f"--folder={tmp_path}", "--things=nowhere"])
    assert [path.name for path in tmp_path.rglob("*.*")] == ["shoe.png"]
    with pytest.raises(OSError, match=r"tokenizer is not there; `python -m examples.emoji.data"):
        train.main([f"--folder={tmp_path}", "--stage=base", f"--output_dir={tmp_path / 'base'}", "--max_train_steps=1"])


def test_fetching_goes_on_where_it_was_ended(sources, folder, tmp_path) -> None:
    shutil.copytree(folder, tmp_path / "half")
    (tmp_path / "half" / "things.jsonl").unlink()
    (tmp_path / "half" / "NOTICE").write_text(data.notice(flat=True))  # whatever other tests have made of the folder's
    given = [f"--{name}={path}" for name, path in sources.items() if name != "flat"]
    data.main([f"--folder={tmp_path / 'half'}", *given, "--without_flat"])
    assert len(read_things(tmp_path / "half")) == len(read_things(folder))


def test_what_is_missing_is_said(sources, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OSError, match="npm is not there .* --emoji, --flat and --names"):
        packages.fetch_from_npm(packages.IMAGES, tmp_path / "emoji")
    with pytest.raises(OSError, match="holds no assets"):
        named_things(tmp_path, sources["names"])
    with pytest.raises(OSError, match="holds no names"):
        named_things(sources["emoji"], tmp_path)
    with pytest.raises(OSError, match="things.jsonl is not there; write it .*`python -m examples.emoji.data"):
        EmojiDataset("base", tmp_path)
    with pytest.raises(OSError, match="--stage base writes it"):
        assemble.assemble(tmp_path, "mine")
    for part, content in (("en/data.json", []), ("meta/groups.json", {"groups": {}})):
        (tmp_path / part).parent.mkdir()
        (tmp_path / part).write_text(json.dumps(content))
    with pytest.raises(OSError, match=f"none of the {len(FILES)} images"):
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
    place = tmp_path / "kept" / "there"
    killed = place.with_name("there.part")  # of a fetch that was ended from outside
    killed.mkdir(parents=True)
    (killed / "half").touch()
    for again in (False, True):
        assert (packages.fetch_from_npm("gone" if again else "there", place) / "file").read_text() == "content"
    with pytest.raises(OSError, match="npm did not get gone"):
        packages.fetch_from_npm("gone", tmp_path / "kept" / "gone")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["there"]
