"""The worked example: scenes, captions and the ray tracer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from examples.scenes.captions import RELATION_PHRASES, caption, facts, swapped
from examples.scenes.data import SceneDataset, project
from examples.scenes.raytrace import render
from examples.scenes.scene import FINE_TEXTURES, HELD_OUT, Object, Scene, mirrored, relation, sample_scene

LIGHT = (1.0, 6.0, -3.0)


def one(**changes) -> Scene:
    look = {"shape": "sphere", "color": "red", "material": "rubber", "size": "large", "texture": "plain", "x": 0.0, "z": 0.0, "yaw": 0.3}
    return Scene((Object(**{**look, **changes}),), "gray", "plain", LIGHT)


def test_a_seed_is_a_scene() -> None:
    assert sample_scene(5) == sample_scene(5)
    assert sample_scene(5) != sample_scene(6)


def test_held_out_pairs_never_occur_in_training() -> None:
    pairs = {(o.color, o.shape) for seed in range(2000) for o in sample_scene(seed).objects}
    assert not pairs & set(HELD_OUT)
    assert len(pairs) == 28
    for seed in range(20):
        first, *others = sample_scene(seed, num_objects=2, held_out=True).objects
        assert (first.color, first.shape) in HELD_OUT
        assert all((o.color, o.shape) not in HELD_OUT for o in others)


def test_relations_are_clear_and_opposite() -> None:
    opposite = {"left of": "right of", "right of": "left of", "in front of": "behind", "behind": "in front of"}
    for seed in range(300):
        first, *others = sample_scene(seed).objects
        for other in others:
            assert relation(other, first) == opposite[relation(first, other)]


def test_complete_captions_name_everything() -> None:
    rng = np.random.default_rng(0)
    for seed in range(200):
        scene = sample_scene(seed)
        text = caption(scene, rng, complete=True)
        for o in scene.objects:
            assert all(word in text for word in (o.shape, o.color, o.size, o.material)), text
        assert f"{scene.floor_color} " in text
        if len(scene.objects) == 2:
            word = relation(*scene.objects)
            assert any(p in text for p in RELATION_PHRASES[word])
            assert swapped(swapped(scene)) == scene


def test_facts_are_true() -> None:
    rng = np.random.default_rng(0)
    for seed in range(100):
        scene = sample_scene(seed, num_objects=2)
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


def test_a_window_is_the_same_pixels_as_the_whole() -> None:
    scenes = [sample_scene(i) for i in (3, 4)]
    whole = render(scenes, 96, samples=2)
    windows = render(scenes, 96, crops=[(10, 20), (40, 50)], crop_size=32, samples=2)
    # The same rays; sums in another order.
    torch.testing.assert_close(windows[0], whole[0, :, 10:42, 20:52], atol=1e-4, rtol=0)
    torch.testing.assert_close(windows[1], whole[1, :, 40:72, 50:82], atol=1e-4, rtol=0)


def test_small_pictures_are_large_ones_averaged() -> None:
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
    picture = render([one(shape=shape, color="red", x=1.0, z=0.5)], 64)[0]
    redness = (picture[0] - picture[1:].amax(0)).clamp(min=0)
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


def test_the_dataset_is_drawn_once_and_told_in_many_ways(tmp_path) -> None:
    data = SceneDataset("base", 3, tmp_path, compile=False)
    again = SceneDataset("base", 3, tmp_path, compile=False)
    assert len(data) == 24
    assert torch.equal(data[1]["pixel_values"], again[1]["pixel_values"])
    assert data[1]["prompt"] == again[1]["prompt"]
    assert len({data[1 + 3 * k]["prompt"] for k in range(8)}) > 3


def test_a_mirrored_scene_is_the_mirror_image() -> None:
    scene = sample_scene(12)
    # A solid mirrored is the same solid turned the other way; textures are not symmetric, so compare plain ones.
    scene = replace(scene, objects=tuple(replace(o, texture="plain") for o in scene.objects))
    picture, other = render([scene], 64, samples=2), render([mirrored(scene)], 64, samples=2)
    assert (picture.flip(-1) - other).abs().mean() < 0.01
