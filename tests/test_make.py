"""The whole recipe of the scenes in one command, with everything tiny."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from examples.emoji import make as emoji
from examples.emoji.things import Thing, write_things
from examples.scenes import make as scenes
from examples.scenes.make import Plan, steps
from examples.scenes.steps import Step, run
from imagen_diffusers.finetuning.flags import run_script

TINY = (
    "--scenes=4 2 2",
    "--steps=2 2 2",
    "--batch_sizes=2 2 2",
    "--text_steps=2 2 2",
    "--oracle_scenes=2",
    "--oracle_steps=2",
    "--count=2",
)


def trained(folder: Path, steps: int, exported: bool = True) -> None:
    """What a run leaves after so many steps."""
    checkpoint = folder / f"checkpoint-{steps}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "progress.json").touch()
    if exported:
        (folder / "unet").mkdir(exist_ok=True)
        (folder / "unet" / "config.json").touch()


def made(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def older(path: Path) -> None:
    os.utime(path, (1, 1))


def test_steps_come_in_order_and_only_those_that_are_missing(tmp_path) -> None:
    todo = list(steps(Plan(), tmp_path, tmp_path / "pipeline"))
    names = ["train_text_encoder", "train", "train", "train", "oracle", "assemble", "evaluate"]
    assert [step.arguments[0] for step in todo] == [f"examples.scenes.{name}" for name in names]
    assert not any(step.done for step in todo)
    (tmp_path / "pipeline" / "text_encoder").mkdir(parents=True)
    assert not todo[0].done  # the tokenizer comes after it
    made(tmp_path / "pipeline" / "tokenizer" / "tokenizer.json")
    trained(tmp_path / "base", 20_000)
    trained(tmp_path / "sr256", 500)
    trained(tmp_path / "sr1024", 3000, exported=False)
    assert [step.done for step in todo] == [True, True, False, False, False, False, False]


def test_what_is_older_than_what_it_is_made_from_is_made_again(tmp_path) -> None:
    plan = replace(Plan(), steps=(20, 20, 20))
    for stage in ("base", "sr256", "sr1024"):
        trained(tmp_path / stage, 25)  # more than is asked for
    for path in ("tokenizer/tokenizer.json", "oracle/oracle.safetensors", "model_index.json"):
        made(tmp_path / "pipeline" / path)
    todo = list(steps(plan, tmp_path, tmp_path / "pipeline"))
    assert [step.done for step in todo] == [True] * 6 + [False]
    os.utime(tmp_path / "pipeline" / "tokenizer" / "tokenizer.json", (2**32, 2**32))
    assert [step.done for step in todo] == [True] * 6 + [False]  # a stage that was trained on another text encoder stays as it is
    older(tmp_path / "pipeline" / "model_index.json")
    assert [step.done for step in todo] == [True] * 5 + [False] * 2
    older(tmp_path / "sr256" / "unet" / "config.json")  # exported before the last checkpoint
    assert [step.done for step in todo] == [True] * 2 + [False] + [True] * 2 + [False] * 2


class Started:
    """A step's process that has ended already, in what is said by `code`."""

    code = 0
    makes: Path | None = None  # a folder in which each makes a file of its name
    commands: list[list[str]] = []

    def __init__(self, command: list[str]) -> None:
        self.args, self.returncode = command, self.code
        self.commands.append(command)

    def poll(self) -> int:
        if self.makes is not None:
            made(self.makes / self.args[2])
        return self.code

    def terminate(self) -> None:
        pass

    def wait(self) -> None:
        pass


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """The commands that were started, of which none does anything."""
    monkeypatch.setattr("subprocess.Popen", Started)
    monkeypatch.setattr(Started, "commands", [])
    return Started.commands


def test_a_slice_ends_when_its_time_does(tmp_path, started) -> None:
    step = Step(["train", "--stage=base"], tmp_path / "unet" / "config.json", trained=(tmp_path, 9))
    assert not run([step, step], 100.0)  # the first leaves no last checkpoint: its time is up, and ours
    assert len(started) == 1
    limit = float(started[0][-1].removeprefix("--time_limit="))
    assert 50 < limit < 60  # what a step needs beside its training is left
    assert not run([step], 60.0)  # less than what it needs beside its training, and some
    assert len(started) == 1
    trained(tmp_path, 9)
    assert run([step, step], 5.0)


def test_steps_that_need_nothing_of_one_another_run_side_by_side(tmp_path, started, monkeypatch) -> None:
    first, second = Step(["first"], tmp_path / "first"), Step(["second"], tmp_path / "second", needs=(tmp_path / "first",))
    third = Step(["third"], None)
    with pytest.raises(ChildProcessError, match="first has ended, and .*first is not there"):
        run([first, second, third], 100.0, at_once=2)
    assert [command[2] for command in started] == ["first", "third"]
    started.clear()
    monkeypatch.setattr(Started, "makes", tmp_path)
    assert run([first, second, third], 100.0, at_once=2)
    assert [command[2] for command in started] == ["first", "third", "second"]


def test_what_is_about_to_be_made_anew_is_waited_for(tmp_path, started, monkeypatch) -> None:
    monkeypatch.setattr(Started, "makes", tmp_path)
    made(source := tmp_path / "source")
    made(tmp_path / "first")
    older(tmp_path / "first")
    first = Step(["first"], tmp_path / "first", sources=(source,), needs=(source,))
    assert run([first, Step(["second"], tmp_path / "second", needs=(tmp_path / "first",))], 100.0, at_once=2)
    assert [command[2] for command in started] == ["first", "second"]


def test_a_mark_is_left_by_a_step_that_comes_to_its_end_alone(tmp_path, started, monkeypatch) -> None:
    step = Step(["train"], tmp_path / "mark", limited=True, marked=True)
    monkeypatch.setattr(Started, "code", 143)  # after a signal a stage has been exported, too
    with pytest.raises(ChildProcessError):
        run([step], 100.0)
    assert not step.done
    monkeypatch.setattr(Started, "code", 0)
    assert run([step], 100.0) and step.done


def test_another_step_begins_when_one_of_several_ends(tmp_path, monkeypatch) -> None:
    class Turns(Started):
        """The first ends after the second and the third, which has no place before the second has ended."""

        def poll(self) -> int | None:
            return None if self.args[2] == "first" and len(self.commands) < 3 else 0

    monkeypatch.setattr("subprocess.Popen", Turns)
    monkeypatch.setattr(Started, "commands", [])
    assert run([Step([name], None) for name in ("first", "second", "third")], 100.0, at_once=2)
    assert [command[2] for command in Started.commands] == ["first", "second", "third"]


def test_a_step_that_needs_more_time_than_is_left_waits_for_the_next_slice(tmp_path, started) -> None:
    long = Step(["long"], tmp_path / "long", needs=(tmp_path,), shortest=80.0)
    assert not run([long, Step(["short"], None, needs=(tmp_path,))], 60.0)
    assert [command[2] for command in started] == ["short"]


def test_what_may_need_a_step_that_does_not_fit_waits_for_it(tmp_path, started) -> None:
    """Of the scenes' steps, which say no needs: with the time that an oracle takes, and none for a stage, nothing is begun."""
    made(tmp_path / "pipeline" / "tokenizer" / "tokenizer.json")
    assert not run(list(steps(Plan(), tmp_path, tmp_path / "pipeline")), 40.0)
    assert not started


def test_what_is_begun_of_other_sources_is_removed(tmp_path, started) -> None:
    source, begun = tmp_path / "source", tmp_path / "report" / "run.json"
    made(source)
    made(begun)
    step = Step(["evaluate"], tmp_path / "report" / "report.md", sources=(source,), begins=begun)
    with pytest.raises(ChildProcessError, match="or older than what it is made of"):
        run([step], 100.0)
    assert begun.exists()
    older(begun)
    with pytest.raises(ChildProcessError, match="or older than what it is made of"):
        run([step], 100.0)
    assert not begun.parent.exists()


def test_steps_say_what_they_have_to_in_logs_and_a_failure_is_told(tmp_path, capfd, monkeypatch) -> None:
    (tmp_path / "good.py").write_text("print('made')")
    (tmp_path / "bad.py").write_text("print('one'); raise SystemExit('two')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    here = (tmp_path,)
    with pytest.raises(ChildProcessError, match="bad failed with exit code 1; what it said is in .*00-bad.log"):
        run([Step(["bad"], None, needs=here), Step(["good"], None, needs=here)], 100.0, logs=tmp_path / "logs")
    assert (tmp_path / "logs" / "01-good.log").read_text() == "made\n"  # it does not need the one that failed
    told = capfd.readouterr()
    assert "00-bad.log ends with exit code 1:\none\ntwo\n" in told.err and "made" not in told.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_step_ends_with_the_command_that_began_it(tmp_path, number) -> None:
    (tmp_path / "long.py").write_text("import time; print('begun', flush=True); time.sleep(100)")
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # which jobs in the background pass over
    make = f"{heard}; from examples.scenes.steps import Step, run; run([Step(['long'], None)], 100.0)"
    process = subprocess.Popen(
        [sys.executable, "-c", make],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:."},
    )
    assert process.stdout is not None
    while process.stdout.readline() != "begun\n":
        assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=30)  # which waits for whoever may still write, the step too
    assert process.returncode


def test_a_step_that_fails_ends_the_run(tmp_path, started, monkeypatch) -> None:
    monkeypatch.setattr(Started, "code", 3)
    with pytest.raises(ChildProcessError, match="first failed with exit code 3; what it said is above"):
        run([Step(["first"], None), Step(["second"], None)], 100.0)
    assert len(started) == 1


@pytest.mark.parametrize("name", ["scenes", "emoji"])
def test_a_step_that_fails_is_told_of_in_a_sentence(name, tmp_path, started, monkeypatch) -> None:
    module = {"scenes": scenes, "emoji": emoji}[name]
    monkeypatch.setattr(Started, "code", 3)
    monkeypatch.setattr("sys.argv", ["make", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit, match="^Error: examples.* failed with exit code 3; what it said is above$"):
        run_script(module.main)


def test_the_emoji_and_their_control_are_made_alike(tmp_path) -> None:
    todo = list(emoji.steps(emoji.Plan(), tmp_path))
    assert not any(step.done for step in todo)
    train = [step.arguments for step in todo if step.arguments[0] == "examples.emoji.train"]
    assert [arguments[1] for arguments in train] == ["--stage=base", "--stage=sr256", "--stage=sr1024", "--stage=base", "--stage=sr256"]
    assert [any("--pretrained=" in a for a in arguments) for arguments in train] == [True, True, False, True, True]
    assert ["--loss_type=huber" in arguments for arguments in train] == [False, False, True, False, False]
    in_the_pipeline = tmp_path / "sr1024" / "unet" / "config.json"
    assert [in_the_pipeline in step.sources for step in todo if step.arguments[0] == "examples.emoji.assemble"] == [True, False]
    assert not any(in_the_pipeline in step.sources for step in todo if step.arguments[0] == "imagen_diffusers.cli")  # of 256px images
    assert emoji.plan_for("cuda").stages == emoji.STAGES and emoji.plan_for("cuda", 540.0).stages == emoji.TO_256
    for own, other in zip(train[:2], train[3:], strict=True):
        assert [a for a in own if str(tmp_path) not in a] == [a for a in other if str(tmp_path) not in a]
    assert len(list(emoji.steps(emoji.Plan(), tmp_path, control=False))) == len(todo) - 6


def test_a_1024px_stage_makes_no_scores_of_256px_anew(tmp_path, started) -> None:
    plan = emoji.Plan()
    for path in ("tokenizer/tokenizer_config.json", "things.jsonl", "prompts.jsonl", "judge/judge.safetensors", "judge/measured.md"):
        made(tmp_path / path)
    for stage, count in zip(emoji.STAGES, plan.steps or (), strict=True):
        trained(tmp_path / stage, count)
    for path in ("pipeline/model_index.json", "report/run.json", "report/report.md"):
        made(tmp_path / path)

    def left() -> list[str]:
        return [step.arguments[0].rpartition(".")[2] for step in emoji.steps(plan, tmp_path, control=False) if not step.done]

    assert left() == []
    later = 2**32
    os.utime(tmp_path / "sr1024" / "unet" / "config.json", (later, later))
    assert left() == ["assemble"]
    os.utime(tmp_path / "pipeline" / "model_index.json", (later, later))
    assert left() == []
    # Scores that were begun are of a whole pipeline, and cannot go on with another.
    (tmp_path / "report" / "report.md").unlink()
    (score,) = (step for step in emoji.steps(plan, tmp_path, control=False) if not step.done)
    score.start(100.0)
    assert not (tmp_path / "report").exists()
    for path in ("report/run.json", "report/report.md"):
        made(tmp_path / path)
    for source in ("sr256/unet/config.json", "prompts.jsonl", "judge/judge.safetensors"):
        before = (tmp_path / source).stat().st_mtime
        os.utime(tmp_path / source, (later, later))
        assert "cli" in left()
        os.utime(tmp_path / source, (before, before))


def test_a_slice_on_a_gpu_is_all_the_time_that_a_stage_has(tmp_path, started) -> None:
    plan = emoji.plan_for("cuda", 540.0)
    made(tmp_path / "tokenizer" / "tokenizer_config.json")
    made(tmp_path / "things.jsonl")
    for stage in ("base", "sr256"):
        (tmp_path / stage).mkdir()
    with pytest.raises(ChildProcessError, match="control"):  # which makes nothing here
        run(list(emoji.steps(plan, tmp_path)), 540.0, plan.at_once)
    assert [command[2] for command in started[:3]] == ["examples.emoji.train"] * 2 + ["examples.emoji.control"]
    assert all("--lr_by_time" in command and float(command[-1].removeprefix("--time_limit=")) > 490 for command in started[:2])
    for stage in ("base", "sr256"):
        (tmp_path / stage / "trained_for_a_slice").unlink()  # a slice came to its end there
    made(tmp_path / "control" / "tokenizer" / "tokenizer_config.json")
    started.clear()
    with pytest.raises(ChildProcessError, match="control"):
        run(list(emoji.steps(plan, tmp_path)), 400.0, plan.at_once)  # where a stage would not have all of its slice, none is begun
    assert {command[2].rpartition(".")[2] for command in started} == {"control", "train_judge", "prompts"}
    assert not any(step.done for step in emoji.steps(plan, tmp_path) if "train" in step.arguments[0])
    for stage in ("base", "sr256"):
        made(tmp_path / stage / "trained_for_a_slice")
    made(tmp_path / "judge" / "measured.md")
    left = [step.arguments[0] for step in emoji.steps(plan, tmp_path) if not step.done]
    assert left[:3] == ["examples.emoji.control", "examples.emoji.prompts", "examples.emoji.train"]


@pytest.mark.slow
def test_the_whole_recipe_runs_and_a_second_run_has_nothing_left_but_the_scores(tmp_path) -> None:
    command = [sys.executable, "-m", "examples.scenes.make", f"--folder={tmp_path}"]
    for flag in TINY:
        name, values = flag.split("=")
        command += [name, *values.split()]

    def output() -> str:
        made = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr[-2000:]
        return made.stdout

    assert output().count("-m examples.scenes.") == 7
    assert list((tmp_path / "pipeline" / "unet").glob("*fp16*.safetensors"))
    assert (tmp_path / "base" / "validation.jsonl").exists()
    assert output().count("-m examples.scenes.") == 1


@pytest.mark.slow
def test_the_emoji_are_made_from_the_things_of_a_folder(tmp_path) -> None:
    """Everything tiny, with icons of one's own; nothing is left for a second run."""
    images = tmp_path / "icons"
    images.mkdir()
    for name, color in (("sun", (240, 200, 20, 255)), ("sea", (20, 60, 220, 255)), ("leaf", (30, 160, 40, 255))):
        Image.new("RGBA", (64, 64), color).save(images / f"{name}.png")
    write_things(tmp_path / "emoji", [Thing(name, f"{name}.png") for name in ("sun", "sea", "leaf")], images)
    tiny = ["--steps", 2, 2, 2, "--batch_sizes", 2, 2, 2, "--judge_steps", 2, "--control_steps", 2, "--count", 3, "--at_once", 2]
    tiny += ["--measured", 4, "--validations", 0]
    command = [sys.executable, "-m", "examples.emoji.make", f"--folder={tmp_path / 'emoji'}", *map(str, tiny)]

    def output() -> str:
        made = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr[-2000:]
        return made.stdout

    assert output().count("-m ") == 14
    for pipeline in ("pipeline", "control/pipeline"):
        assert (tmp_path / "emoji" / pipeline / "judge" / "judge.safetensors").exists() == (pipeline == "pipeline")
    assert (tmp_path / "emoji" / "control" / "report" / "report.md").exists()
    assert output() == ""
