"""The worked example: scenes, captions and the ray tracer."""

import copy
import re
from dataclasses import replace
from functools import cache
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import T5EncoderModel

from examples.scenes import brief, data, train
from examples.scenes.camera import project
from examples.scenes.captions import RELATION_PHRASES, caption, facts, listing, swapped
from examples.scenes.data import ORACLE_SEEDS, VIEWS, SceneDataset, TimeIsUp, object_windows
from examples.scenes.raytrace import render
from examples.scenes.scene import (
    COLORS,
    FINE_TEXTURES,
    FLOOR_COLORS,
    FLOOR_PATTERNS,
    HELD_OUT,
    MATERIALS,
    PAINT_JITTER,
    PAINTS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    UNNAMED_DISTANCE,
    WORLD,
    Object,
    Scene,
    hidden,
    mirrored,
    relation,
    sample_scene,
)
from examples.scenes.train import build, noise_curve
from examples.scenes.train_text_encoder import build_model, build_tokenizer, mean_of_known
from examples.scenes.validation import SceneFigures, next_word, places_exchanged
from imagen_diffusers.sampling.network import ImagenNetwork, adapt
from imagen_diffusers.training.losses import LossSettings

from .conftest import make_base, make_sr
from .test_validation import TEXT

ROOT = Path(__file__).parent.parent

LIGHT = (1.0, 6.0, -3.0)


def one(**changes) -> Scene:
    look = {"shape": "sphere", "color": "red", "material": "rubber", "size": "large", "texture": "plain", "x": 0.0, "z": 0.0, "yaw": 0.3}
    look |= changes
    return Scene((Object(**look, paint=PAINTS[look["color"]]),), "gray", "plain", LIGHT)


def test_a_seed_is_a_scene() -> None:
    assert sample_scene(5) == sample_scene(5)
    assert sample_scene(5) != sample_scene(6)


@cache
def objects(held_out: bool | None = False) -> list[Object]:
    """Those of a thousand scenes, at which several tests look."""
    return [o for seed in range(1000) for o in sample_scene(seed, held_out=held_out).objects]


def test_held_out_pairs_never_occur_in_training() -> None:
    pairs = {(o.color, o.shape) for o in objects()}
    assert not pairs & set(HELD_OUT)
    assert len(pairs) == 28 + 4  # and paints without a name, in every shape
    for seed in range(20):
        first, *others = sample_scene(seed, num_objects=2, held_out=True).objects
        assert (first.color, first.shape) in HELD_OUT
        assert all((o.color, o.shape) not in HELD_OUT for o in others)


def test_captions_without_images_may_name_every_pair() -> None:
    assert set(HELD_OUT) < {(o.color, o.shape) for o in objects(held_out=None)}


@pytest.mark.thorough
def test_every_texture_that_is_named_is_seen() -> None:
    scene = sample_scene(3, num_objects=1, unnamed_share=0)
    pairs = [(color, texture) for color in COLORS for texture in TEXTURES[1:]]
    assert {pair for pair in pairs if hidden(pair[1], pair[0])} == {("white", "striped"), ("white", "checkered")}
    assert not any(hidden(o.texture, o.color) for o in objects(held_out=None))
    for color in COLORS:
        plain = replace(scene.objects[0], shape="sphere", color=color, paint=PAINTS[color], texture="plain", x=0.0, z=0.5)
        told = [replace(scene, objects=(replace(plain, texture=texture),)) for texture in TEXTURES]
        images, where = render(told, 64, samples=2), torch.from_numpy(object_windows(told[0], 64, (0, 0), 64)) > 0
        for texture, image in zip(TEXTURES[1:], images[1:], strict=True):  # from 7 levels of 255 up, or a tenth of one
            assert (127.5 * (image - images[0]).abs().mean(0)[where].mean() < 1) == hidden(texture, color), (color, texture)


def test_paints_are_near_their_names_and_far_from_all_others() -> None:
    named = np.sqrt(np.array(list(PAINTS.values())))
    for o in objects():
        distances = np.linalg.norm(named - np.sqrt(o.paint), axis=1)
        if o.color is None:
            assert distances.min() >= UNNAMED_DISTANCE - 1e-6
        else:
            assert COLORS[distances.argmin()] == o.color
            assert distances.min() <= PAINT_JITTER * 3**0.5 + 1e-6
    assert all(o.color is not None for seed in range(300) for o in sample_scene(seed, unnamed_share=0).objects)


def test_relations_are_clear_and_opposite() -> None:
    opposite = {"left of": "right of", "right of": "left of", "in front of": "behind", "behind": "in front of"}
    for seed in range(300):
        first, *others = sample_scene(seed).objects
        for other in others:
            assert relation(other, first) == opposite[relation(first, other)]


def test_complete_captions_name_everything() -> None:
    rng = np.random.default_rng(0)
    for seed in range(200):
        scene = sample_scene(seed, unnamed_share=0)
        text = caption(scene, rng, complete=True)
        for o in scene.objects:
            assert all(word in text for word in (o.shape, o.color, o.size, o.material)), text
        assert f"{scene.floor_color} " in text
        if len(scene.objects) == 2:
            word = relation(*scene.objects)
            assert any(p in text for p in RELATION_PHRASES[word])
            assert swapped(swapped(scene)) == scene


def test_a_list_names_objects_by_colour_and_shape() -> None:
    both = one(color="orange", shape="cube").objects + one(shape="cone").objects
    assert listing(replace(one(), objects=both)) == "an orange cube and a red cone"


def test_a_list_is_the_caption_without_relations_word_by_word() -> None:
    told = "there is a red cube to the left of a blue cone and in back of a green sphere on a blue floor"
    words, aside, stands_for = brief.listed(told)
    assert words == "there is a red cube and a blue cone and a green sphere on a blue floor"
    assert aside == "there is a red cube left of a blue cone and left of a green sphere on a blue floor"
    meant = [" ".join(aside.split()[n] for n in numbers) for numbers in stands_for]
    assert meant == [w if w != "and" else m for w, m in zip(words.split(), meant, strict=True)]
    assert [m for w, m in zip(words.split(), meant, strict=True) if w == "and"] == ["left of", "and left of"]
    assert brief.listed("a red cube before a blue cone")[:2] == ("a red cube and a blue cone", "a red cube left of a blue cone")


def test_a_caption_is_completed_by_what_it_leaves_open() -> None:
    told = "there is an orange metal object behind a large cone with dots"
    full, places = brief.completed(told, np.random.default_rng(0))
    assert re.fullmatch(
        r"there is a (small|large) orange metal object behind a large (rubber|metal) cone with dots on a \w+ ((tiled|checkered) )?floor",
        full,
    )
    kept = [full.split()[n] for n in places]
    assert kept == told.replace("an orange", "a orange").split()
    assert len({brief.completed(told, np.random.default_rng(seed))[0] for seed in range(40)}) > 20
    assert brief.completed(full, np.random.default_rng(1)) == (full, [*range(len(full.split()))])


@pytest.mark.thorough
def test_an_encoder_is_taught_what_brief_captions_mean(capsys) -> None:
    tokenizer = build_tokenizer(scenes=300)
    torch.manual_seed(0)
    encoder = T5EncoderModel(build_model(tokenizer).config).eval()
    teacher = copy.deepcopy(encoder)
    full = "a large red rubber cube left of a small blue metal cone on a gray floor"
    listed = full.replace("left of", "and")
    lessons = {brief.lesson(full, np.random.default_rng(seed)).brief for seed in range(20)}
    assert lessons == {full, listed}
    nothing, alike = brief.errors(encoder, teacher, tokenizer, ["a small red metal cube on a gray floor"], np.random.default_rng(0))
    assert nothing == 0 and alike < 1e-9
    told = [full] * 8 + ["a red cube"] * 8
    before, kept = brief.errors(encoder, teacher, tokenizer, told, np.random.default_rng(0))
    assert before > 0.05 and kept < 1e-9  # batches are padded to another length
    brief.teach(encoder, tokenizer, torch.optim.AdamW(encoder.parameters(), 3e-3), lambda step: told, told, 80)
    assert re.search(r"brief ones [\d.]+% of the variance, of full ones [\d.]+%", capsys.readouterr().out)
    (as_it_was,) = brief.encode(teacher, tokenizer, [full])
    states, of_list = brief.encode(encoder, tokenizer, [full, listed])
    scale = as_it_was.var(0).mean()
    assert (states - as_it_was).square().mean() < 0.01 * scale
    assert (of_list[-10:] - as_it_was[-10:]).square().mean() < 0.02 * scale  # a small blue metal cone, the floor, and the end
    (open_one,) = brief.encode(encoder, tokenizer, ["a red cube"])
    completions = [brief.completed("a red cube", np.random.default_rng(seed)) for seed in range(64)]
    own = [
        state[[*places, -1]]
        for state, (_, places) in zip(brief.encode(teacher, tokenizer, [f for f, _ in completions]), completions, strict=True)
    ]
    assert (open_one - torch.stack(own).mean(0)).square().mean() < 0.05 * scale


def test_captions_leave_out_each_word_now_and_then() -> None:
    rng = np.random.default_rng(0)
    scene = one(color="red", shape="cone")
    told = [caption(scene, rng) for _ in range(400)]
    for word in ("red", "cone", "rubber", "large"):
        assert 0 < sum(word not in t for t in told) < 200
    assert all("cone" in t or "object" in t for t in told)
    unnamed = replace(scene, objects=(replace(scene.objects[0], color=None),))
    assert not any(color in caption(unnamed, rng, complete=True).split(" on ")[0] for color in COLORS)


def test_facts_are_true() -> None:
    rng = np.random.default_rng(0)
    for seed in range(100):
        scene = sample_scene(seed, num_objects=2, unnamed_share=0)
        first, second = scene.objects
        if first.shape == second.shape:
            continue
        for fact in facts(scene, rng):
            start, end = fact.split(" is ")
            if start == "the floor":
                assert end == scene.floor_color
                continue
            about, other = (first, second) if first.shape in start else (second, first)
            told = {about.color, about.size, about.material, about.texture, f"{relation(about, other)} the {other.color} {other.shape}"}
            assert end in told


@pytest.mark.thorough
def test_no_object_hides_another() -> None:
    """Counted in renders: most of the pixels of the object behind are the same with and without the one before it."""
    checked = 0
    for seed in range(60):
        scene = sample_scene(seed, num_objects=2)
        back = max(scene.objects, key=lambda o: o.z)
        empty, alone = replace(scene, objects=(replace(back, x=50.0),)), replace(scene, objects=(back,))
        bare, image, both = render([empty, alone, scene], 64, samples=1)
        covered = (image - bare).abs().amax(0) > 0.1
        covered &= torch.from_numpy(object_windows(alone, 64, (0, 0), 64)) > 0  # and not its shadow
        if covered.sum() > 40:
            checked += 1
            assert ((both - image).abs().amax(0) < 0.05)[covered].float().mean() > 0.4, seed
    assert checked > 40


def test_a_window_is_the_same_pixels_as_the_whole() -> None:
    scenes = [sample_scene(i) for i in (3, 4)]
    whole = render(scenes, 96, samples=2)
    windows = render(scenes, 96, crops=[(10, 20), (40, 50)], crop_size=32, samples=2)
    # The same rays; sums in another order.
    torch.testing.assert_close(windows[0], whole[0, :, 10:42, 20:52], atol=1e-4, rtol=0)
    torch.testing.assert_close(windows[1], whole[1, :, 40:72, 50:82], atol=1e-4, rtol=0)


def test_small_images_are_large_ones_averaged() -> None:
    scenes = [sample_scene(i) for i in range(4)]
    small, large = render(scenes, 64, samples=3), render(scenes, 256, samples=1)
    assert (F.avg_pool2d(large, 4) - small).abs().mean() < 0.02


@pytest.mark.parametrize("texture", FINE_TEXTURES)
def test_fine_textures_cannot_be_told_apart_at_64_but_can_at_256(texture) -> None:
    scene, other = one(texture=texture), one(texture=next(t for t in FINE_TEXTURES if t != texture))
    assert torch.equal(render([scene], 64), render([other], 64))
    assert (render([scene], 256) - render([other], 256)).abs().max() > 0.5


@pytest.mark.parametrize("shape", ["sphere", "cube", "cylinder", "cone"])
def test_objects_are_where_they_should_be_and_of_their_colour(shape) -> None:
    image = render([one(shape=shape, color="red", x=1.0, z=0.5)], 64)[0]
    redness = (image[0] - image[1:].amax(0)).clamp(min=0)
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    mask = (redness > 0.4).float()
    x, y = project((1.0, 0.6, 0.5), 64)
    assert mask.sum() > 60
    assert abs((columns * mask).sum() / mask.sum() - x) < 2
    assert abs((rows * mask).sum() / mask.sum() - y) < 4


def test_metal_mirrors_and_shadows_fall() -> None:
    rubber, metal = (render([one(material=m)], 64)[0] for m in ("rubber", "metal"))
    assert (rubber - metal).abs().max() > 0.3
    empty = render([one(x=30.0)], 64)[0]
    floor = (rubber - empty).mean(0)
    assert (floor < -0.2).sum() > 20  # darker than an empty floor: a shadow, or the object


def test_rendering_goes_on_where_time_was_up(tmp_path, monkeypatch, capsys) -> None:
    drawn = []

    def draw(scenes, size, *, crop_size, **_):
        drawn.append(len(scenes))
        return torch.stack([torch.full((3, crop_size, crop_size), scene.objects[0].yaw % 1.0) for scene in scenes])

    monkeypatch.setattr(data, "render", draw)
    whole = SceneDataset("sr256", 20, tmp_path / "whole")
    drawn.clear()
    clock = iter([0.0, 2.0, 0.0, 0.0, 2.0])
    with monkeypatch.context() as timed:
        timed.setattr(data, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        for words in ("images.npy has 16 of 20", "low_res.npy has 16 of 20"):
            with pytest.raises(TimeIsUp, match=words):
                SceneDataset("sr256", 20, tmp_path / "parts", until=1.0)
    again = SceneDataset("sr256", 20, tmp_path / "parts")
    assert drawn == [16, 4, 16, 4]
    assert np.array_equal(again.images, whole.images) and np.array_equal(again.low_res, whole.low_res)
    assert sorted(path.name for path in (tmp_path / "parts").rglob("*.*")) == ["images.npy", "low_res.npy", "scenes.jsonl"]
    given = ["--stage=base", "--scenes=2", "--max_train_steps=1", "--time_limit=0", "--report_to=none"]
    train.main([*given, f"--folder={tmp_path}", f"--output_dir={tmp_path / 'out'}"])
    assert "images.npy has 0 of 2 renders" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_the_dataset_is_rendered_once_and_told_in_many_ways(tmp_path) -> None:
    data = SceneDataset("base", 3, tmp_path, compile=False)
    again = SceneDataset("base", 3, tmp_path, compile=False)
    assert [path.name for path in tmp_path.iterdir()] == [f"world-{WORLD}"]
    assert len(data) == 3
    assert data.scenes == again.scenes == [sample_scene(i) for i in range(3)]
    for name, value in data.visit(1, 4).items():
        assert torch.equal(value, again.visit(1, 4)[name]) if isinstance(value, torch.Tensor) else value == again.visit(1, 4)[name]
    assert len({data.visit(1, k)["prompt"] for k in range(8)}) > 3
    images = [data.visit(1, k)["pixel_values"] for k in range(8)]
    assert any(torch.equal(image, images[0].flip(-1)) for image in images)


def test_a_mirrored_image_has_the_mirrored_caption(tmp_path) -> None:
    data = SceneDataset("base", 1, tmp_path, compile=False)
    data.scenes = [next(s for s in map(sample_scene, range(99)) if len(s.objects) == 2 and relation(*s.objects) == "left of")]
    first, second = (o.shape for o in data.scenes[0].objects)
    assert first != second
    seen = 0
    for number in range(30):
        example = data.visit(0, number)
        prompt, flipped = str(example["prompt"]), not torch.equal(example["pixel_values"], torch.from_numpy(data.images[0].copy()))
        if first in prompt and second in prompt:
            seen += 1
            assert ("left" in prompt) == ((prompt.find(first) < prompt.find(second)) != flipped), prompt
    assert seen > 15


@pytest.mark.thorough
def test_windows_are_around_objects_and_move_with_the_view(tmp_path) -> None:
    scene = one(x=0.5, z=0.3)
    whole = object_windows(scene, 64, (0, 0), 64)
    bare, image = render([one(x=50.0), scene], 64)
    red = ((image - bare)[0] - (image - bare)[1:].amax(0)) > 0.2
    assert red.sum() > 100
    assert whole[red].all()
    assert 0.05 < whole.mean() < 0.4
    assert np.array_equal(object_windows(scene, 64, (10, 20), 32), whole[10:42, 20:52])
    weight = SceneDataset("sr256", 2, tmp_path, compile=False).visit(0, 0)["pixel_weight"]
    assert weight.shape == (128, 128)
    assert weight.mean().item() == pytest.approx(1, abs=1e-4)


def test_wrong_words_are_wrong() -> None:
    told = "a small {} cube on the left of a large {} sphere on a green tiled floor"
    assert next_word(COLORS)(told.format(*COLORS[:2])) == told.format(*COLORS[1:3])
    assert next_word(SHAPES)("a red sphere behind a cone") == "a red cube behind a sphere"
    assert next_word(COLORS)("a red cube left of an orange cone") == "an orange cube left of a yellow cone"
    opposite = {"left of": "right of", "right of": "left of", "in front of": "behind", "behind": "in front of"}
    for seed in range(20):
        scene = sample_scene(seed, num_objects=2)
        assert relation(*places_exchanged(scene).objects) == opposite[relation(*scene.objects)]


def test_the_oracle_alone_sees_every_pair(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("examples.scenes.data._rendered", lambda *_, **__: np.zeros(0))
    seen = {}
    for stage in ("sr256", "oracle"):
        data = SceneDataset(stage, 60, tmp_path)
        seen[stage] = {(o.color, o.shape) for scene in data.scenes for o in scene.objects}
        assert (data.first_seed >= ORACLE_SEEDS) == (stage == "oracle")
    assert not seen["sr256"] & set(HELD_OUT)
    assert set(HELD_OUT) <= seen["oracle"]


class Gray(torch.nn.Module):
    """Returns a gray image, whatever it is asked."""

    text_dim, has_low_res, device, dtype, config = None, False, torch.device("cpu"), torch.float32, {"in_channels": 3}

    def forward(self, noisy, times, return_dict):
        return (torch.zeros_like(noisy),)


adapt.register(Gray, ImagenNetwork)


@pytest.mark.thorough
def test_figures_of_a_base_network(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("examples.scenes.validation.COUNT", 4)
    monkeypatch.setattr("examples.scenes.validation.WORD_COUNT", 4)
    figures = SceneFigures(
        "base", tmp_path, noise_curve(VIEWS["base"].log_snr_shift), LossSettings(prediction_type="sample"), compile=False, **TEXT
    )
    values = figures(make_base(sample_size=64, patch_size=4, encoder_hid_dim=32))
    assert {"log_snr_-6", "objects/log_snr_0", "shape/log_snr_-2", "relation/log_snr_0", "unseen_shape/log_snr_-4"} <= set(values)
    assert len(values) == 2 * 8 + 5 * 3
    windowed, wrong = figures.words["relation"]
    right = [example["prompt"] for example in windowed.data.examples]
    assert right and len(windowed.windows) == len(right)
    assert all(one != other for one, other in zip(right, wrong, strict=True))  # of two objects each
    images = torch.stack([e["pixel_values"] for e in figures.all.data.examples]).float() / 127.5 - 1
    expected = (images.square().mean(1) * figures.all.windows).sum() / figures.all.windows.sum()
    torch.testing.assert_close(figures.all.around(figures.all.data.errors(Gray())), expected.expand(8))


@pytest.mark.thorough
def test_figures_of_a_super_resolution_network_stand_beside_bicubics(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("examples.scenes.validation.COUNT", 6)
    figures = SceneFigures(
        "sr256", tmp_path, noise_curve(VIEWS["sr256"].log_snr_shift), LossSettings(prediction_type="sample"), compile=False, **TEXT
    )
    values = figures(make_sr(encoder_hid_dim=32))
    assert len(values) == 2 * 8 + 2 + 3
    windowed, wrong = figures.words["texture"]
    right = [example["prompt"] for example in windowed.data.examples]
    assert 0 < len(right) < 6 and all(one != other for one, other in zip(right, wrong, strict=True))
    examples, errors = figures.all.data.examples, []
    for example in examples:
        small = (example["low_res"][None].float() / 127.5 - 1).clamp(-1, 1)
        enlarged = torch.nn.functional.interpolate(small, (128, 128), mode="bicubic", antialias=True).clamp(-1, 1)
        errors.append((enlarged[0] - (example["pixel_values"].float() / 127.5 - 1)).square().mean())
    assert values["bicubic"] == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


@pytest.mark.parametrize(("texture", "pattern"), zip(TEXTURES, cycle(FLOOR_PATTERNS), strict=False))
def test_a_mirrored_scene_is_the_mirror_image(pattern, texture) -> None:
    scene = sample_scene(12)
    scene = replace(scene, floor_pattern=pattern, objects=tuple(replace(o, texture=texture, yaw=0.4) for o in scene.objects))
    image, other = render([scene], 128, samples=2), render([mirrored(scene)], 128, samples=2)
    # Points on the light are not mirrored, so the edges of shadows differ a little.
    assert (image.flip(-1) - other).abs().mean() < 0.01


def test_weights_and_what_a_pass_shows_depend_on_the_seed(tmp_path) -> None:
    one, two, other = (build("base", seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    one, two, other = (SceneDataset("base", 4, tmp_path, compile=False, seed=seed) for seed in (0, 0, 1))
    prompts = [[data.visit(i, 0)["prompt"] for i in range(4)] for data in (one, two, other)]
    assert prompts[0] == prompts[1] != prompts[2]


def test_a_prediction_that_stages_do_not_make_is_refused(tmp_path, capsys) -> None:
    given = ["--stage=base", "--scenes=2", "--max_train_steps=1", f"--output_dir={tmp_path}", "--prediction_type=epsilon"]
    with pytest.raises(SystemExit):
        train.main(given)
    assert 'error: prediction_type is "epsilon"; stages of this cascade predict the sample' in capsys.readouterr().err


def test_answers_that_are_not_there_do_not_spoil_the_loss() -> None:
    scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    none = mean_of_known(scores, torch.full((3,), -100))
    none.backward()
    assert none == 0 and not scores.grad.any()
    answers = torch.tensor([1, -100, 3])
    torch.testing.assert_close(mean_of_known(scores, answers), F.cross_entropy(scores, answers))


def test_the_readme_lists_every_word_of_the_scenes() -> None:
    (known,) = re.findall(r"^It knows (.*?)\. On other words", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    objects, floors = " ".join(known.split()).split("; on ")
    said = {"dotted": "dots", "finely striped": "fine stripes", "finely checkered": "engraved checks"}
    for word in (*SHAPES, *SIZES, *MATERIALS, *COLORS, *(said.get(t, t) for t in TEXTURES), *RELATIONS):
        assert re.search(rf"\b{word}s?\b", objects), word
    for word in (*FLOOR_COLORS, *FLOOR_PATTERNS):
        assert re.search(rf"\b{word}\b", floors), word
