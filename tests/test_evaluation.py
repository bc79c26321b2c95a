"""Scores and the oracle that they rest on."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from examples.scenes import evaluate, guidance, oracle, style, subject
from examples.scenes.captions import listing
from examples.scenes.data import ORACLE_SEEDS, TEST_SEEDS
from examples.scenes.edits import around_last, border_jump, rendered, without_second
from examples.scenes.evaluate import all_right, fine_right, first_of, frechet, score_set, share, table, told_apart
from examples.scenes.oracle import FLOOR, GRID, WIDTHS, Oracle, cell_of, load, misread, objects_and_floors, oracle_loss, softened
from examples.scenes.raytrace import render
from examples.scenes.scene import FINE_TEXTURES, Scene, Seen, relation, sample_scene
from imagen_diffusers.evaluation.intervals import wilson

from .conftest import seeded

ROOT = Path(__file__).parent.parent


def read_perfectly(scene: Scene) -> list[Seen]:
    return [Seen(o.shape, o.color, o.material, o.size, o.texture, o.x, o.z) for o in scene.objects]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_perfect_reading_is_right_and_any_slip_is_wrong(count) -> None:
    for seed in range(30):
        scene = sample_scene(seed, num_objects=count)
        seen = read_perfectly(scene)
        assert all_right(scene, seen[::-1])
        assert not all_right(scene, seen[1:])
        assert not all_right(scene, [*seen, seen[0]])
        for field in ("shape", "color", "material", "size", "texture"):
            assert not all_right(scene, [replace(seen[0], **{field: "other"}), *seen[1:]])
        if count == 2:
            exchanged = [replace(seen[0], x=seen[1].x, z=seen[1].z), replace(seen[1], x=seen[0].x, z=seen[0].z)]
            assert not all_right(scene, exchanged), relation(*scene.objects)


def test_objects_are_told_apart_by_the_attributes_that_count() -> None:
    scene = sample_scene(0, num_objects=2, unnamed_share=0.0)
    seen = [replace(one, size="other", material="other") for one in read_perfectly(scene)]
    assert told_apart(scene, seen[::-1], ("color", "shape")) == seen
    assert not told_apart(scene, seen)
    assert not told_apart(scene, [*seen, replace(seen[0], color="other")], ("color", "shape"))
    assert not told_apart(scene, [seen[0], seen[0]], ("color", "shape"))
    assert not told_apart(scene, [seen[0], replace(seen[0], x=0.0)], ("color", "shape"))


def test_of_prompts_that_list_two_objects_those_without_a_third_are_right(monkeypatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(evaluate, "draw", lambda pipe, prompts, batch, stop_at: told.extend(prompts) or torch.zeros(len(prompts), 1))
    scenes, _ = evaluate.scenes_and_prompts(4, 2, TEST_SEEDS + 40_000)
    monkeypatch.setattr(evaluate, "draw_scenes", lambda scenes: torch.ones(len(scenes), 1))
    read, true = ([read_perfectly(scene)[::-1] for scene in scenes] for _ in range(2))
    read[1].append(replace(read[1][0], shape="other"))
    read[2][0] = replace(read[2][0], color="other")
    oracle = SimpleNamespace(read=lambda images: [(seen, None) for seen in (true if images.all() else read)])
    assert [figure.value for figure in evaluate.listed_right(None, oracle, 4, 8).values()] == [1.0, 0.5]
    assert told == [listing(scene) for scene in scenes]


def test_fine_detail_is_judged_by_itself() -> None:
    scene = next(s for s in map(sample_scene, range(100)) if s.objects[0].texture == "dotted" and len(s.objects) == 1)
    (seen,) = read_perfectly(scene)
    assert fine_right(scene, [replace(seen, size="other", material="other")]) == [True]
    assert fine_right(scene, [replace(seen, texture="finely striped")]) == [False]


def test_fine_detail_stands_beside_that_of_true_renders_and_image_i_has_seed_i(monkeypatch) -> None:
    made: list[tuple[str, int]] = []

    def drawn(pipe, prompts, batch, stop_at, *, first_seed, quiet):
        made.append((prompts[0], first_seed))
        return torch.zeros(1, 1)

    scenes, prompts = evaluate.scenes_and_prompts(12, 1, TEST_SEEDS + 30_000)
    chosen = [i for i, scene in enumerate(scenes) if scene.objects[0].texture in FINE_TEXTURES][:3]
    rendered: list[Scene] = []
    monkeypatch.setattr(evaluate, "draw", drawn)
    monkeypatch.setattr(evaluate, "render", lambda scenes, *_, **__: rendered.extend(scenes) or torch.ones(1, 1))
    oracle = SimpleNamespace(read=lambda image: [(read_perfectly(rendered[-1]) if image.all() else [], None)])
    figures = evaluate.fine_detail_right(None, oracle, 3)
    assert [(figure.value, figure.count) for figure in figures.values()] == [(1.0, 3), (0.0, 3)]
    assert made == [(prompts[i], n) for n, i in enumerate(chosen)]
    assert rendered == [scenes[i] for i in chosen]


def test_shares_are_written_as_in_reports() -> None:
    assert "| half | 50.0 % (40.4 to 59.6) | 100 |" in table({"half": share(50, 100)})
    assert "| all | 100.0 % (72.2 to 100.0) | 10 |" in table({"all": share(10, 10)})
    assert "| nothing | - | 0 |" in table({"nothing": share(0, 0)})


class Sees:
    """An oracle that reads these scenes, whatever the images."""

    def __init__(self, scenes: list[Scene]):
        self.scenes = scenes

    def read(self, images: torch.Tensor) -> list:
        return [(read_perfectly(scene), {}) for scene in self.scenes]


@pytest.mark.parametrize(("count", "shuffled"), [(3, "0.0 % (0.0 to 56.1)"), (1, "-")])
def test_no_prompt_stands_for_another_one(count, shuffled) -> None:
    scenes = [sample_scene(seed, num_objects=2) for seed in range(count)]
    found = score_set("x", Sees(scenes), torch.empty(0), scenes)
    assert found["x: every attribute and relation"].value == 1.0
    assert str(found["x: the same, prompts shuffled"]) == shuffled
    assert found["x: an object's colour, shape, texture"].count == 2 * count
    assert found["x: an object's colour, shape, texture"].low == wilson(count, count).low  # two of one image may be right for one reason
    assert first_of(found) == {"x: every attribute and relation": found["x: every attribute and relation"]}


def test_frechet_distance_in_closed_form() -> None:
    a = torch.randn(20_000, 3, generator=seeded(0), dtype=torch.float64)
    b = 2 * torch.randn(20_000, 3, generator=seeded(1), dtype=torch.float64) + 1
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a, b) == pytest.approx(3 * 1 + 3 * (2 - 1) ** 2, rel=0.05)  # |means|^2 + sum (std - std)^2


def bundled_oracle() -> Oracle:
    return load(ROOT / style.read_flags([]).oracle)


@pytest.mark.thorough
def test_the_bundled_oracle_reads_renders() -> None:
    scenes = [sample_scene(TEST_SEEDS + i) for i in range(4)]
    read = bundled_oracle().read(render(scenes, 256, samples=2))
    assert all(all_right(s, r) for s, (r, _) in zip(scenes, read, strict=True))
    assert [floor["floor_color"] for _, floor in read] == [s.floor_color for s in scenes]


def test_the_oracle_reads_an_image_as_its_mirror_image() -> None:
    images = render([sample_scene(30_000_000 + i) for i in range(2)], 256, samples=1)
    reader = bundled_oracle()
    maps, floors, _ = reader.look(images)
    other_maps, other_floors, _ = reader.look(images.flip(-1))
    other_maps[:, 1] *= -1
    torch.testing.assert_close(maps, other_maps.flip(-1))
    torch.testing.assert_close(floors, other_floors)
    assert torch.equal(reader.features(images), reader.look(images)[2])


def test_an_image_that_is_as_wide_as_the_oracle_reads_and_higher_is_read_whole() -> None:
    image = render([sample_scene(TEST_SEEDS)], 256, samples=1)
    ((seen, _),) = bundled_oracle().read(image)
    ((higher, _),) = bundled_oracle().read(image.repeat_interleave(2, dim=2))
    assert higher == seen


def test_two_cells_that_are_exactly_alike_hold_one_object() -> None:
    maps, floors = torch.zeros(1, 3 + sum(WIDTHS), GRID, GRID), torch.zeros(1, sum(len(values) for values in FLOOR.values()))
    maps[:, 0] = -5
    maps[:, 0, 9, 15:17] = 5  # of a symmetric image
    assert len(objects_and_floors(maps, floors)[0][0]) == 1


@pytest.mark.thorough
def test_the_oracle_learns() -> None:
    scenes = [sample_scene(i) for i in range(2)]
    images, losses = render(scenes, 256, samples=1), []
    torch.manual_seed(0)
    oracle = Oracle()
    optimizer = torch.optim.Adam(oracle.parameters(), lr=3e-3)
    for _ in range(9):
        losses.append(oracle_loss(oracle, images, scenes))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


def test_every_second_image_is_softened_and_still_has_its_fine_texture() -> None:
    scene = next(s for s in map(sample_scene, range(100)) if s.objects[0].texture == "finely striped" and len(s.objects) == 1)
    sharp = render([scene] * 4, 256, samples=1)
    torch.manual_seed(0)
    images = softened(sharp)
    assert torch.equal(images[1::2], sharp[1::2])
    steps = [image.diff(dim=-2).abs().mean() for image in images]
    assert all(0.2 * steps[1] < soft < 0.98 * steps[1] for soft in steps[::2])


@pytest.mark.slow
def test_the_oracle_learns_a_few_images_by_heart() -> None:
    scenes = [sample_scene(i) for i in range(4)]
    images = render(scenes, 256, samples=1)
    torch.manual_seed(0)
    oracle = Oracle()
    optimizer = torch.optim.Adam(oracle.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        oracle_loss(oracle, images, scenes).backward()
        optimizer.step()
    oracle.eval()
    for module in oracle.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()  # statistics of these four images
    read = oracle.read(images)
    assert sum(all_right(s, r) for s, (r, _) in zip(scenes, read, strict=True)) >= 3
    assert [floor["floor_color"] for _, floor in read] == [s.floor_color for s in scenes]


def test_cells_are_inside_the_grid() -> None:
    for seed in range(200):
        for o in sample_scene(seed).objects:
            assert all(0 <= v < GRID for v in cell_of(o))


def test_prompts_are_scored_by_the_bundled_oracle() -> None:
    for script in (style, subject):
        assert isinstance(load(ROOT / script.read_flags([]).oracle), Oracle)


def test_an_oracle_is_there_in_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    def half(_, file) -> None:
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt  # killed here

    for name, stand_in in {"SceneDataset": lambda *_, **__: None, "train": lambda *_, **__: Oracle(), "save_file": half}.items():
        monkeypatch.setattr(oracle, name, stand_in)
    monkeypatch.setattr("sys.argv", ["", "--output_dir", str(tmp_path)])
    with pytest.raises(KeyboardInterrupt):
        oracle.main()
    assert not (tmp_path / "oracle.safetensors").exists()


@pytest.mark.parametrize("script", [style, subject, guidance])
def test_an_image_that_a_script_teaches_is_there_in_whole_or_not_at_all(tmp_path, monkeypatch, script) -> None:
    def half(image, file, *_) -> None:
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt  # killed here

    monkeypatch.setattr(script, "render", lambda *_, **__: torch.zeros(1, 3, 1024, 1024))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Image.Image, "save", half)
        script.write_images(tmp_path, 1)
    script.write_images(tmp_path, 1)
    (path,) = tmp_path.glob("*.png")
    with Image.open(path) as image:
        image.load()


def test_a_subject_is_learned_from_as_many_images_as_are_asked_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(subject, "render", lambda *_, **__: torch.zeros(1, 3, 8, 8))
    for count in (12, 10):
        subject.write_images(tmp_path, count)
        assert len(list(tmp_path.iterdir())) == count


@pytest.mark.parametrize("script", [evaluate, style, subject, guidance])
@pytest.mark.parametrize("count", ["0", "-2", "x"])
def test_no_images_to_measure_on_are_refused_at_once(script, count, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["script", "--count", count])
    with pytest.raises(SystemExit):
        script.main()
    assert f"argument --count: {count} is given; it must be a whole number, at least 1" in capsys.readouterr().err


def test_images_of_a_subject_are_measured_by_seeds_of_which_none_is_trained_on(tmp_path, monkeypatch) -> None:
    """`dreambooth.py` generates the class by seeds from 0 on, and trains on these images."""
    given, measured = [], []

    def drawn(pipe, prompts, batch, stop_at, *, first_seed=0):
        measured.append(range(first_seed, first_seed + len(prompts)))
        return torch.zeros(len(prompts), 3, 8, 8)

    pipe = SimpleNamespace(load_lora_weights=lambda *_: None, unload_lora_weights=lambda: None)
    stand_ins = {"load": lambda _: None, "write_images": lambda *_: None, "load_cascade": lambda: pipe, "draw": drawn}
    for name, stand_in in (stand_ins | {"score_set": lambda name, *_: {name: share(1, 1)}}).items():
        monkeypatch.setattr(subject, name, stand_in)
    monkeypatch.setattr(subject.classifier, "draw_scenes", lambda scenes: torch.zeros(len(scenes), 3, 8, 8))
    monkeypatch.setattr(subject.classifier, "train", lambda *_: SimpleNamespace(count=lambda _: 0))
    monkeypatch.setattr(subject.dreambooth, "main", given.append)
    monkeypatch.setattr("sys.argv", ["", "--output_dir", str(tmp_path), "--count", "1"])
    subject.main()
    trained = {*range(int(given[0][given[0].index("--num_class_images") + 1]))}
    assert len(measured) == 9
    assert not trained & {seed for seeds in measured for seed in seeds}


def test_the_oracle_learns_to_read_drawings_from_scenes_of_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("examples.scenes.data._rendered", lambda *_, **__: None)
    monkeypatch.setattr("examples.scenes.classifier.draw_scenes", lambda scenes: torch.zeros(len(scenes), 3, 8, 8))
    monkeypatch.setattr(style.oracle, "load", lambda folder: "of renders")
    monkeypatch.setattr(style.oracle, "train", lambda data, steps, *_, **how: seen.append((data, steps, how["redraw"])) or "of drawings")
    monkeypatch.setattr(style, "score_set", lambda name, reader, *_: {name: reader})
    seen: list = []
    args = style.read_flags(["--oracle_scenes", "5", "--oracle_steps", "7", "--folder", str(tmp_path)])
    drawn = {style.BEFORE: torch.zeros(1, 3, 8, 8), style.AFTER: torch.zeros(1, 3, 8, 8)}
    scores = dict(style.measure_prompts(drawn, [sample_scene(0)], args))
    assert (
        scores["true drawings"] == scores[style.AFTER] == "of drawings" and scores["true renders"] == scores[style.BEFORE] == "of renders"
    )
    ((data, steps, redraw),) = seen
    assert (data.first_seed, len(data.scenes), steps, redraw) == (ORACLE_SEEDS, 5, 7, style.pencil)
    assert list(tmp_path.rglob("scenes.jsonl"))  # renders are kept there, and not beside the oracle


@pytest.mark.thorough
def test_small_drawings_are_those_that_are_taught_resized() -> None:
    """A network of 256px is taught drawings of 1024px, resized; what judges its images must have seen the same, and not wider strokes."""
    scenes = [sample_scene(3, num_objects=1)]
    taught = style.as_image(style.pencil(render(scenes, 1024, samples=2))[0]).resize((256, 256), Image.Resampling.BICUBIC)
    small = style.as_image(style.pencil(render(scenes, 256, samples=2))[0])
    taught, small, other = (
        np.asarray(image, np.float32) for image in (taught, small, style.as_image(style.stroked(render(scenes, 256))[0]))
    )
    assert np.abs(taught - small).mean() < 0.1 * np.abs(taught - other).mean()


def test_drawings_are_made_where_the_renders_are() -> None:
    assert style.pencil(torch.zeros(1, 3, 64, 64, device="meta")).device.type == "meta"


def test_a_line_is_at_an_edge_and_a_fine_texture_keeps_its_colour() -> None:
    """Slopes are all over a fine texture; lines on all of them would leave nothing of what a prompt says of colours."""
    orange = torch.tensor([1.0, 0.1, -0.8])[:, None, None].expand(3, 256, 256)
    places = torch.arange(256)
    finely_checkered = torch.where((places[:, None] // 4 + places // 4) % 2 == 0, orange, 1.0)
    on_white = torch.where(places < 128, orange, 1.0)
    plain, fine, edge = ((style.stroked(image[None])[0] + 1) / 2 for image in (orange, finely_checkered, on_white))
    inside = slice(32, 224)
    assert (fine[:, inside, inside].mean((1, 2)) > 0.95 * plain[:, inside, inside].mean((1, 2))).all()
    assert edge[:, inside, 126:129].mean() < 0.6 * edge[:, inside, 100:120].mean()


@pytest.mark.thorough
@pytest.mark.parametrize("objects", [1, 2])
def test_a_mask_holds_all_that_an_edit_changes(objects) -> None:
    scenes = [sample_scene(seed, num_objects=objects, unnamed_share=0.0) for seed in (1, 2)]
    repainted = [replace(s, objects=(*s.objects[:-1], replace(s.objects[-1], paint=(1.0, 0.0, 0.0)))) for s in scenes]
    images = rendered(scenes)
    changed = (images - rendered(repainted)).abs().amax(1, keepdim=True)
    if objects == 2:
        changed = torch.maximum(changed, (images - rendered([without_second(s, 0) for s in scenes])).abs().amax(1, keepdim=True))
    masks = around_last(scenes, images)
    assert (changed > 0.3).any((1, 2, 3)).all()
    assert changed[~masks].max() <= 0.02
    assert masks.float().mean((1, 2, 3)).max() < 0.5


def test_a_border_jump_is_a_step_over_the_other_steps() -> None:
    columns = np.arange(12) * 2.0
    columns[4:8] += 10  # what is known is 10 lighter: steps of 12 and -8 among steps of 2
    image = Image.fromarray(np.broadcast_to(columns[None, :, None], (3, 12, 3)).astype(np.uint8))
    assert border_jump(image, left=4, width=4) == pytest.approx((12 + 8) / 2 / 2)


def test_what_an_oracle_misreads_is_found_and_shown_more_often(monkeypatch, tmp_path) -> None:
    scenes = [sample_scene(seed, num_objects=2) for seed in range(20)]
    data = SimpleNamespace(count=20, scenes=scenes, images=np.zeros((20, 3, 4, 4), np.uint8))
    seen = [read_perfectly(scene)[::-1] for scene in scenes]  # in whatever order
    seen[3] = seen[3][1:]
    seen[18][0] = replace(seen[18][0], material="other")
    monkeypatch.setattr(Oracle, "read", lambda self, images: [(seen.pop(0), {}) for _ in images])
    monkeypatch.setattr(oracle, "SceneDataset", lambda *_, first_seed, **__: data if first_seed == 7 else None)
    monkeypatch.setattr(oracle, "load", lambda folder: Oracle())
    given = {}
    monkeypatch.setattr(oracle, "train", lambda *_, **how: given.update(how) or Oracle())
    told = ["oracle", "--output_dir", str(tmp_path), "--pretrained", "there", "--mistakes", "6", "--first_seed", "7"]
    monkeypatch.setattr("sys.argv", told)
    oracle.main()
    expected = np.ones(20)
    expected[[3, 18]] = 6
    assert np.allclose(given["chances"], expected / 30)

    monkeypatch.setattr("sys.argv", ["oracle", "--mistakes", "6"])
    with pytest.raises(SystemExit):
        oracle.main()


@pytest.mark.thorough
def test_an_oracle_sees_scenes_as_often_as_it_is_told() -> None:
    scenes, shown = [sample_scene(seed) for seed in range(4)], []
    data = SimpleNamespace(count=4, scenes=scenes, images=np.zeros((4, 3, 256, 256), np.uint8))
    data.images[2] = 255
    oracle.train(data, 2, 3, redraw=lambda images: shown.append(images.mean().item()) or images, chances=np.array([0.0, 0.0, 1.0, 0.0]))
    assert shown == [1.0, 1.0]
    assert not misread(Sees(scenes), data).any()


def test_parts_of_an_evaluation_are_told_alone(monkeypatch, capsys) -> None:
    asked = []
    monkeypatch.setattr(evaluate, "load_cascade", lambda *_, **__: "cascade")
    monkeypatch.setattr(evaluate, "load", lambda folder: "oracle")
    monkeypatch.setattr(
        evaluate, "prompts_right", lambda pipe, reader, kind, count, batch: asked.append((kind, count)) or {kind: share(1, 2)}
    )
    monkeypatch.setattr(evaluate, "listed_right", lambda pipe, reader, count, batch: asked.append(("listed", count)) or {})
    monkeypatch.setattr(evaluate, "fine_detail_right", lambda pipe, reader, count: asked.append(("fine", count)) or {})
    monkeypatch.setattr(
        evaluate, "super_resolution_distances", lambda pipe, reader, count, stage, batch: asked.append((stage, count)) or (1.0, 4.0, 2.0)
    )
    monkeypatch.setattr("sys.argv", ["evaluate", "--part", "distance_1024", "--part", "one", "--count", "9", "--distance_count", "10"])
    evaluate.main()
    assert asked == [(3, 3), ("one", 9)]  # four windows an image
    assert "stage 3: 1.000, bicubic 4.000, ratio 0.250; true renders of other scenes 2.000" in capsys.readouterr().out
    asked.clear()
    monkeypatch.setattr("sys.argv", ["evaluate", "--fine_count", "5", "--distance_count", "10"])
    evaluate.main()
    assert asked == [("one", 200), ("two", 200), ("unseen", 200), ("listed", 200), ("fine", 5), (2, 10), (3, 3)]
