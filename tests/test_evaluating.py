"""Evaluations of the tiny cascade: what is measured, what a report says of it, and that a run which was ended goes on to the same bits."""

import importlib
import json
import sys
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance
from PIL import Image
from safetensors.torch import save_file

from imagen_diffusers.evaluation import groups
from imagen_diffusers.evaluation.asked import as_json, cascade_digest, keep_or_refuse
from imagen_diffusers.evaluation.digests import source_digest
from imagen_diffusers.evaluation.figures import Figure
from imagen_diffusers.evaluation.generating import Point, generate, sweep
from imagen_diffusers.evaluation.intervals import wilson
from imagen_diffusers.evaluation.metrics import Judged, entries, figure_of
from imagen_diffusers.evaluation.report import write_report
from imagen_diffusers.evaluation.runs import Evaluation, evaluate
from imagen_diffusers.images import read_settings
from imagen_diffusers.models.lora import add_lora

from .conftest import forbid_networks, make_base, make_pipeline, seeded
from .measures import bright

ROWS = [{"prompt": f"a {color} {shape}"} for color in ("red", "blue", "green") for shape in ("cube", "sphere", "cube")][:7]


def run(pipe, folder, *, values=(1, 3), **changes):
    given = {"batch_size": 3, **changes}
    metrics = given.pop("metrics", [Judged("bright", bright)])
    rows, setting, call = given.pop("rows", ROWS), given.pop("setting", "guidance_scale"), given.pop("call", {"stop_at": 1})
    return evaluate(pipe, Evaluation(rows, metrics, folder, **given), sweep(pipe, setting, values, **call))


def test_each_prompt_has_its_seed_and_no_batch_changes_its_image(shared_pipe) -> None:
    (point,) = sweep(shared_pipe, stop_at=2)
    together = generate(shared_pipe, ROWS, range(1, 4), point, seed=10)
    alone = shared_pipe(ROWS[2]["prompt"], generator=seeded(12), stop_at=2, output_type="pt").images
    assert (together[1] - alone[0]).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(together * 255, (together * 255).round())  # as a file holds it


def test_the_first_stage_is_swept_and_later_ones_keep_their_settings(shared_pipe) -> None:
    one, two = sweep(shared_pipe, "guidance_scale", [1, 2.5], stop_at=2)
    assert (one.name, two.name) == ("guidance-1", "guidance-2.5")
    assert two.call == {"guidance_scale": [2.5, 2.0], "stop_at": 2}
    (steps,) = sweep(shared_pipe, "num_inference_steps", [5])
    assert steps == Point("steps-5", {"num_inference_steps": 5}, {"num_inference_steps": [5, 2, 2], "stop_at": None})
    near = sweep(shared_pipe, "guidance_scale", [1.0000001, 1.0000002])
    assert [point.name for point in near] == ["guidance-1.0000001", "guidance-1.0000002"]
    assert len(generate(shared_pipe, ROWS, range(1), two, seed=0)) == 1
    with pytest.raises(ValueError, match="give each value once"):
        sweep(shared_pipe, "guidance_scale", [2, 2.0])


@pytest.mark.thorough
def test_a_report_holds_what_a_scorer_says_of_every_image(shared_pipe, tmp_path) -> None:
    found = run(shared_pipe, tmp_path / "report", save_images=True)
    points, parts = sweep(shared_pipe, "guidance_scale", [1, 3], stop_at=1), groups.groups(7, 3)
    images = [torch.cat([generate(shared_pipe, ROWS, part, point, 0) for part in parts]) for point in points]
    for name, batch in zip(("guidance-1", "guidance-3"), images, strict=True):
        judged = bright(batch, ROWS)
        assert found[name]["light"].value == pytest.approx(sum(judged["light"]) / 7)
        assert found[name]["lightness"].value == pytest.approx(sum(judged["lightness"]) / 7, abs=1e-9)
        channels = [value for one in judged["channels of red ones"] if one is not None for value in one]
        assert found[name]["channels of red ones"].count == len(channels) == 9
        assert found[name]["channels of red ones"].value == pytest.approx(sum(channels) / 9)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [point["settings"] for point in report["points"]] == [{"guidance_scale": 1}, {"guidance_scale": 3}]
    assert report["points"][1]["figures"]["light"] == found["guidance-3"]["light"]._asdict()
    assert (report["asked"]["count"], report["asked"]["batch_size"]) == (7, 3)
    table = (tmp_path / "report" / "report.md").read_text()
    assert "| | guidance 1 | guidance 3 | of |" in table and f"| light | {found['guidance-1']['light']} |" in table
    kept = tmp_path / "report" / "guidance-3" / "images" / "000005.png"
    assert torch.equal(torch.from_numpy(np.array(Image.open(kept))), (images[1][5] * 255).byte().permute(1, 2, 0))
    told = {"guidance_scale": [3], "stop_at": 1, "prompt": ROWS[5]["prompt"], "seed": 5}
    assert read_settings(kept) == told


@pytest.mark.thorough
def test_a_run_that_was_ended_goes_on_to_the_same_bits(tmp_path, monkeypatch) -> None:
    pipe, whole, ended = make_pipeline(), tmp_path / "whole", tmp_path / "ended"
    run(pipe, whole)
    write, written = groups.save_file, []

    def stop_later(tensors, path):
        write(tensors, path)
        written.append(path)
        if len(written) == 4:
            raise KeyboardInterrupt  # beside the file that it has not put in place

    monkeypatch.setattr(groups, "save_file", stop_later)
    with pytest.raises(KeyboardInterrupt):
        run(pipe, ended)
    assert not (ended / "report.json").exists() and written[-1].exists()
    run(pipe, ended)
    assert len(written) == 4 + 3  # of six groups three were there
    assert not list(ended.rglob("*.part"))
    for name in ("report.json", "report.md"):
        assert (ended / name).read_bytes() == (whole / name).read_bytes()
    groups_of = [sorted(p.relative_to(folder) for p in folder.rglob("group-*")) for folder in (whole, ended)]
    assert len(groups_of[0]) == 6 and groups_of[0] == groups_of[1]
    assert all((whole / path).read_bytes() == (ended / path).read_bytes() for path in groups_of[0])


@pytest.mark.thorough
def test_more_points_may_be_asked_for_later(shared_pipe, tmp_path, monkeypatch) -> None:
    run(shared_pipe, tmp_path, values=[1])
    made: list = []
    monkeypatch.setattr("imagen_diffusers.evaluation.runs.generate", lambda *given: made.append(given[3].name) or generate(*given))
    run(shared_pipe, tmp_path, values=[1, 2])
    assert set(made) == {"guidance-2"}
    found = run(shared_pipe, tmp_path, values=[3])  # the report holds what is there, whatever is asked for last
    assert list(found) == ["guidance-1", "guidance-2", "guidance-3"] and set(made) == {"guidance-2", "guidance-3"}
    assert "| | guidance 1 | guidance 2 | guidance 3 | of |" in (tmp_path / "report.md").read_text()
    (tmp_path / "guidance-2" / "group-000001.safetensors").unlink()
    assert list(run(shared_pipe, tmp_path, values=[3])) == ["guidance-1", "guidance-3"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"batch_size": 2}, "batch_size was 3 and is now 2"),
        ({"rows": ROWS[:6]}, "count was 7 and is now 6"),
        ({"metrics": [Judged("other", bright)]}, "metrics was"),
        ({"told": {"model": "another"}}, 'model was null and is now "another"'),
        ({"call": {"stop_at": 2}}, "points was"),
        ({"call": {"stop_at": 1, "negative_prompt": "dark"}}, "points was"),
        ({"setting": "num_inference_steps"}, "points was"),
        ({"save_images": True}, "save_images was false and is now true"),
    ],
)
def test_another_evaluation_is_refused(shared_pipe, tmp_path, changes, named) -> None:
    run(shared_pipe, tmp_path, values=[1])
    before = (tmp_path / "report.json").read_bytes()
    with pytest.raises(ValueError, match="holds another evaluation") as error:
        run(shared_pipe, tmp_path, values=[1], **changes)
    assert named in str(error.value) and "Give another --output, or delete that folder" in str(error.value)
    assert (tmp_path / "report.json").read_bytes() == before


def test_other_weights_and_another_scheduler_are_another_evaluation(tmp_path) -> None:
    pipe = make_pipeline()
    run(pipe, tmp_path, values=[1])
    with torch.no_grad():
        next(pipe.unet.parameters()).mul_(1.5)
    with pytest.raises(ValueError, match="cascade was"):
        run(pipe, tmp_path, values=[1])
    other = make_pipeline()
    other.scheduler = type(other.scheduler).from_config(other.scheduler.config, thresholding=False)
    with pytest.raises(ValueError, match="cascade was"):
        run(other, tmp_path, values=[1])
    run(make_pipeline(), tmp_path, values=[1])


def test_a_damaged_group_is_named(shared_pipe, tmp_path) -> None:
    run(shared_pipe, tmp_path, values=[1])
    path = tmp_path / "guidance-1" / "group-000001.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(OSError, match="group-000001.safetensors is damaged"):
        run(shared_pipe, tmp_path, values=[1])
    path.with_name("group-000000.safetensors").unlink()
    with pytest.raises(OSError, match="group-000001.safetensors is damaged"):
        run(shared_pipe, tmp_path, values=[1])


@pytest.mark.parametrize("text", ["", "no JSON", "[1]", "\udcff"])
@pytest.mark.parametrize(
    ("name", "remedy"),
    [("run.json", "Give another --output, or delete"), ("guidance-1/settings.json", "delete it, and run the command again")],
)
def test_damaged_notes_are_named(shared_pipe, tmp_path, name, remedy, text) -> None:
    run(shared_pipe, tmp_path, values=[1])
    (tmp_path / name).write_text(text, errors="surrogateescape")
    with pytest.raises((OSError, ValueError), match=f"{name} is damaged.*{remedy}"):
        run(shared_pipe, tmp_path, values=[1])


def test_settings_of_another_kind_are_named(shared_pipe, tmp_path) -> None:
    run(shared_pipe, tmp_path, values=[1, 3])
    (tmp_path / "guidance-1" / "settings.json").write_text('{"guidance_scale": "x"}')
    with pytest.raises(OSError, match="the settings.json of .* are of different kinds; delete the foreign ones"):
        run(shared_pipe, tmp_path, values=[3])


def test_groups_of_other_images_are_named(shared_pipe, tmp_path) -> None:
    found, path = run(shared_pipe, tmp_path, values=[1]), tmp_path / "guidance-1" / "group-000001.safetensors"
    last = path.with_name("group-000002.safetensors")
    path.write_bytes(last.read_bytes())  # of one image, and not of three
    with pytest.raises(OSError, match="group-000001.safetensors is damaged .it is of other images than these 3."):
        run(shared_pipe, tmp_path, values=[1])
    path.unlink()
    groups.save_file({name: torch.zeros(3, 5) for name in groups.load_file(last)}, path)
    with pytest.raises(OSError, match="group-000001.safetensors is damaged .its values are of another shape than those of group-000000"):
        run(shared_pipe, tmp_path, values=[1])
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="group-000001.safetensors is damaged"):
        run(shared_pipe, tmp_path, values=[1])
    path.rmdir()
    assert run(shared_pipe, tmp_path, values=[1]) == found
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match="holds measurements and no run.json that says what of. Give another --output, or delete"):
        run(shared_pipe, tmp_path, values=[1])


def test_a_scorer_judges_every_image(shared_pipe, tmp_path) -> None:
    with pytest.raises(ValueError, match='the scorer short gave 1 values of "x" for 3 images; give one each'):
        run(shared_pipe, tmp_path, metrics=[Judged("short", lambda images, rows: {"x": [True]})])
    listed: Any = lambda images, rows: [True] * len(rows)  # noqa: E731
    with pytest.raises(ValueError, match="the scorer listed returned a list; it must return a dictionary"):
        run(shared_pipe, tmp_path, metrics=[Judged("listed", listed)])


def test_a_scorer_says_none_where_there_is_nothing_to_judge(shared_pipe, tmp_path) -> None:
    with pytest.raises(ValueError, match='the scorer odd gave nan as "x"; give None where there is nothing to judge'):
        run(shared_pipe, tmp_path, metrics=[Judged("odd", lambda images, rows: {"x": [float("nan")] * len(rows)})])


def test_networks_that_take_no_text_are_evaluated_by_the_names_of_prompts(tmp_path) -> None:
    pipe = make_pipeline(unet=make_base(encoder_hid_dim=None), unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None)
    assert run(pipe, tmp_path, values=[1], rows=ROWS[:3])


def test_what_a_function_of_ones_own_is_made_of_is_its_own_file(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    kinds = {
        "plain": "def plain(x): return x",
        "decorated": "import torch\n@torch.no_grad()\ndef decorated(x): return x",
        "partial": "import functools\npartial = functools.partial(print, 1)",
        "made": "from torch import nn\nmade = nn.Sequential()",
    }
    for name, text in kinds.items():
        digests = []
        for more in ("", "\n# another"):
            (tmp_path / f"own_{name}.py").write_text(text + more)
            sys.modules.pop(f"own_{name}", None)
            importlib.invalidate_caches()
            digests.append(source_digest(getattr(importlib.import_module(f"own_{name}"), name), f"own_{name}:{name}"))
        assert digests[0] != digests[1], name


@pytest.mark.parametrize(("call", "size"), [({"stop_at": 1}, "16x16"), ({"stop_at": 2, "width": 48}, "48x32"), ({}, "64x64")])
def test_what_metrics_refuse_is_heard_of_before_anything_is_generated(tmp_path, monkeypatch, call, size) -> None:
    def large(images, rows):
        raise ValueError(f"an image of {images.shape[-1]}x{images.shape[-2]} is too small")

    pipe = make_pipeline()
    forbid_networks(monkeypatch, pipe)
    with pytest.raises(ValueError, match=f"an image of {size} is too small"):
        run(pipe, tmp_path, metrics=[Judged("large", large)], call=call)


def test_what_fails_in_a_metric_is_said_and_leaves_the_folder_free(shared_pipe, tmp_path) -> None:
    def mistaken(images, rows):
        return {"right": [row["wrong"] for row in rows]}

    with pytest.raises(ValueError, match="a metric failed on an image of noise, .* before any is generated, with KeyError: 'wrong'"):
        run(shared_pipe, tmp_path, metrics=[Judged("mistaken", mistaken)], values=[1])
    assert run(shared_pipe, tmp_path, values=[1])


def test_figures_of_one_name_are_refused(shared_pipe, tmp_path) -> None:
    two = [Judged("bright", bright), Judged("other", lambda images, rows: {"light": [0.5] * len(rows)})]
    with pytest.raises(ValueError, match='two metrics call what they measure "light"; give one of them another name'):
        run(shared_pipe, tmp_path, metrics=two)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_names_that_change_from_batch_to_batch_are_refused_at_once(shared_pipe, tmp_path) -> None:
    asked: list = []

    def moody(images, rows):
        asked.append(len(rows))
        return {"x" if len(asked) <= 2 else "y": [1.0] * len(rows)}

    with pytest.raises(ValueError, match="was measured and groups without it.*group-000001"):
        run(shared_pipe, tmp_path, metrics=[Judged("moody", moody)], values=[1])
    assert len(asked) == 3  # an image before any is generated, and two groups
    with pytest.raises(ValueError, match="group-000001"):
        run(shared_pipe, tmp_path, metrics=[Judged("moody", moody)], values=[1])  # the second of them in another run
    for i, name in enumerate("xyx"):
        groups.save_file({name: torch.zeros(1, 3)}, tmp_path / f"group-{i:06d}.safetensors")
    with pytest.raises(ValueError, match="group-000001.safetensors differs"):
        groups.gathered(tmp_path, 3, 1)


def test_other_weights_of_an_adapter_and_other_tiles_are_another_cascade() -> None:
    """Neither is among the weights, and an evaluation in Python does not go on from what was measured with others."""
    pipe = make_pipeline()
    digests = [cascade_digest(pipe)]
    pipe.enable_tiling(16)
    digests.append(cascade_digest(pipe))
    pipe.disable_tiling()
    assert cascade_digest(pipe) == digests[0]
    add_lora(pipe.unet, rank=2)
    for change in (lambda: None, lambda: pipe.set_adapters("default", 0.5), pipe.disable_lora):
        change()
        digests.append(cascade_digest(pipe))
    pipe.enable_lora()
    assert len(set(digests)) == 5 and cascade_digest(pipe) == digests[3]


def test_arguments_that_are_no_json_are_told_apart_and_written(tmp_path) -> None:
    """A guider, or an image that networks are conditioned on: the report ended in an error, and two large tensors were one."""
    (tmp_path / "own-settings").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "own-settings" / "group-000000.safetensors")
    large = torch.zeros(1, 3, 64, 64)
    (tmp_path / "run.json").write_text(as_json({"guider": ClassifierFreeGuidance(2.0), "image": Image.new("RGB", (2, 2)), "cond": large}))
    keep_or_refuse(tmp_path, {"guider": ClassifierFreeGuidance(2.0), "image": Image.new("RGB", (2, 2)), "cond": large.clone()})
    asked = {
        "guider": ClassifierFreeGuidance(3.0),
        "image": Image.new("RGB", (2, 2), "red"),
        "cond": large.index_fill(3, torch.tensor(30), 1),
    }
    with pytest.raises(ValueError, match="guider was .* image was .* cond was "):
        keep_or_refuse(tmp_path, asked)
    write_report(tmp_path, asked, [], {}, [])
    assert "ClassifierFreeGuidance" in json.loads((tmp_path / "report.json").read_text())["asked"]["guider"]


def test_judgements_become_shares_and_means() -> None:
    share = figure_of(entries([True, False, None, [True, True, False]]))
    assert (share.value, share.count, share.share) == (3 / 5, 5, True)
    assert 0 <= share.low < 3 / 5 < share.high <= 1
    assert figure_of(entries([True, False, True]))[1:3] == wilson(2, 3)
    mean = figure_of(entries([1, None, 2.0, 6]))
    assert (mean.value, mean.count, mean.share) == (3.0, 3, False)
    assert 1 <= mean.low < 3 < mean.high <= 6
    assert str(figure_of(entries([None, None]))) == "-"
    truths: Any
    for truths in ([np.True_, np.False_], torch.tensor([True, False]), np.array([True, False])):
        assert figure_of(entries(truths)).share
    truths = torch.tensor([1.0, 0.0])
    assert not figure_of(entries(truths)).share


def test_several_judgements_of_one_image_are_not_independent() -> None:
    """Four judgements that are always the same say no more than one."""
    images = (torch.rand(200, 60, generator=seeded(3)) < 0.7).tolist()
    inside = [figure_of(entries([[right] * 4 for right in one])) for one in images]
    assert 0.9 <= sum(figure.low <= 0.7 <= figure.high for figure in inside) / 200 <= 0.98
    assert figure_of(entries([[True, True]] * 10))[1:4] == (*wilson(10, 10), 20)
    assert figure_of(entries([[True] * 3, [False] * 3] * 10))[1:3] == pytest.approx(wilson(10, 20), abs=1e-9)
    assert figure_of(entries([[True, False]]))[1:3] == (0.0, 1.0)


def test_few_wrong_judgements_leave_the_whole_out_of_reach() -> None:
    """Two of 400, in images of their own, are as unsure as if all were independent; resampling images would find all right in some."""
    figure = figure_of(entries([[True, True]] * 198 + [[True, False]] * 2))
    assert figure[1:3] == pytest.approx(wilson(398, 400), abs=1e-4) and figure.high < 1
    assert figure_of(entries([[True, True]] * 199 + [[False, False]])).low < figure_of(entries([[True, True]] * 199 + [[True, False]])).low


def test_figures_are_written_for_people() -> None:
    assert str(Figure(0.78125, 0.6670, 0.8641, 64, share=True)) == "78.1 % (66.7 to 86.4)"
    assert str(Figure(12.345, 11.9, 12.71, 500)) == "12.35 (11.90 to 12.71)"
    assert str(Figure(0.001234, -0.0002, 0.00301, 500)) == "0.0012 (-0.0002 to 0.0030)"
    assert str(Figure(float("nan"), 0, 1, 0)) == "-"
