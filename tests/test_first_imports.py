"""What a program may import first: diffusers is told of our pipelines by whatever comes first, and networks of IF join by an import."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from subprocess import PIPE, CompletedProcess

import pytest

from imagen_diffusers.hub.after_import import after_import
from imagen_diffusers.hub.upload import BY_DIFFUSERS_ALONE

from .conftest import make_pipeline
from .test_sharing import uploads  # noqa: F401 (a fixture)

ROOT = Path(__file__).parent.parent
# Runs programs one after the other, each in a fork of its own: of what they have imported the others know nothing.
FORKS = """
import gc, json, os, sys, traceback
import peft, requests, scipy.stats, torch
from transformers import T5EncoderModel  # with the others most of what an import takes, and none of them knows of diffusers or of us

assert not {"diffusers", "imagen_diffusers"} & set(sys.modules)
gc.freeze()
for line in sys.stdin:
    code, out, err = json.loads(line)
    pid = os.fork()
    if pid == 0:
        for path, number in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        failed = 0
        try:
            exec(compile(code, "program", "exec"), {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            failed = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(failed)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[subprocess.Popen]:
    with subprocess.Popen([sys.executable, "-c", FORKS], cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def program(forks, tmp_path) -> Callable[[str], CompletedProcess]:
    """Run a program in a process that has imported torch and transformers, and nothing of diffusers or of this package."""

    def run(code: str) -> CompletedProcess:
        out, err = tmp_path / "stdout", tmp_path / "stderr"
        print(json.dumps([code, str(out), str(err)]), file=forks.stdin, flush=True)
        return CompletedProcess("program", int(forks.stdout.readline()), out.read_bytes().decode(), err.read_bytes().decode())

    return run


@pytest.mark.thorough
def test_a_program_starts_without_us_and_its_errors_are_told(program) -> None:
    done = program("import sys; print('diffusers' in sys.modules, 'imagen_diffusers' in sys.modules)")
    assert (done.returncode, done.stdout) == (0, "False False\n")
    failed = program("import imagen_diffusers.nowhere")
    assert failed.returncode == 1 and "ModuleNotFoundError" in failed.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("first", ["pipelines.pipeline_imagen_cascade", "finetuning.cascade", "pipelines.cascade"])
def test_any_module_may_be_the_first_that_is_imported(program, first) -> None:
    """diffusers is told of our pipelines in the middle of whatever imports it first."""
    done = program(f"import imagen_diffusers.{first}, imagen_diffusers.pipelines.tasks")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("cascade")
    make_pipeline().save_pretrained(path)
    return str(path)


IMPORTS = ["import imagen_diffusers", "from diffusers import AutoModel, AutoPipelineForInpainting, DiffusionPipeline"]


@pytest.mark.thorough
@pytest.mark.parametrize("lines", [IMPORTS, IMPORTS[::-1]], ids=["first", "last"])
def test_pipelines_and_networks_are_found_when_the_package_is_imported_and_none_of_its_classes(program, folder, lines) -> None:
    """By a program that imports the package first, and by one that imports it last."""
    use = [
        f"assert type(AutoPipelineForInpainting.from_pretrained({folder!r})).__name__ == 'ImagenCascadeInpaintPipeline'",
        f"assert type(DiffusionPipeline.from_pretrained({folder!r})).__name__ == 'ImagenCascadePipeline'",
        f"assert type(AutoModel.from_pretrained({folder + '/unet_2'!r})).__name__ == 'ImagenEfficientUNet2DConditionModel'",
        f"assert type(AutoModel.from_config({folder + '/unet'!r})).__name__ == 'ImagenUNet2DConditionModel'",
    ]
    done = program("\n".join(lines + use))
    assert done.returncode == 0, done.stderr


LOAD_BY_DIFFUSERS_ALONE = f"""
import sys
from diffusers import DiffusionPipeline

assert "imagen_diffusers" not in sys.modules
pipe = {BY_DIFFUSERS_ALONE}
print(type(pipe).__name__, type(pipe.unet_2).__name__)
"""


@pytest.mark.thorough
def test_what_is_pushed_loads_in_a_program_that_imports_diffusers_alone(program, uploads, tmp_path) -> None:  # noqa: F811
    place = tmp_path / "new"
    make_pipeline().save_pretrained(place, push_to_hub=True, repo_id="me/new")
    assert BY_DIFFUSERS_ALONE in (place / "pipeline.py").read_text() and "pipeline.py" in uploads[0]["files"]
    done = program(f"repo = {str(place)!r}\n{LOAD_BY_DIFFUSERS_ALONE}")
    assert done.stdout.split() == ["ImagenCascadePipeline", "ImagenEfficientUNet2DConditionModel"], done.stderr


@pytest.mark.thorough
def test_the_command_says_no_more_than_it_must(program, folder, tmp_path) -> None:
    words = ["generate", "a red cube", "--model", folder, "--dtype", "float32", "--output", str(tmp_path / "a.png"), "--seed", "1"]
    done = program(f"from imagen_diffusers.cli import app; app({words!r}, standalone_mode=False)")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'a.png'} (64x64, seed 1)\n"
    lines = [line.split("\r")[-1] for line in done.stderr.split("\n") if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("unet_3 64x64: 100%")


def test_what_waits_for_a_module_waits_until_it_is_imported(tmp_path, monkeypatch) -> None:
    """Others ask where it is before, or try to import it while it cannot be."""
    place, done, before = tmp_path / "waited_for.py", [], list(sys.meta_path)
    monkeypatch.syspath_prepend(tmp_path)
    place.write_text("raise RuntimeError")
    for number in range(2):
        after_import("waited_for", lambda number=number: done.append((number, sys.modules["waited_for"].there)))
    assert importlib.util.find_spec("waited_for").loader.get_filename() == str(place)
    with pytest.raises(RuntimeError):
        importlib.import_module("waited_for")
    place.write_text("there = 'all of it'")
    importlib.invalidate_caches()
    module = importlib.import_module("waited_for")
    assert sorted(done) == [(0, "all of it"), (1, "all of it")]
    assert type(module.__loader__) is type(module.__spec__.loader) is SourceFileLoader and sys.meta_path == before
    after_import("waited_for", lambda: done.append("at once"))
    assert done[-1] == "at once"
    del sys.modules["waited_for"]


def test_importing_the_package_imports_no_diffusers() -> None:
    said = "import sys, imagen_diffusers; assert 'diffusers' not in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", said], check=True, capture_output=True)


@pytest.mark.thorough
def test_the_help_of_every_command_comes_without_torch() -> None:
    said = """
import sys
from typer.testing import CliRunner
from imagen_diffusers.cli import app

helped = [CliRunner().invoke(app, [command.callback.__name__.replace("_", "-"), "--help"]) for command in app.registered_commands]
assert len(helped) > 8 and all(one.exit_code == 0 for one in helped)
assert not {"torch", "diffusers", "matplotlib"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", said], check=True, capture_output=True)


def test_what_lets_networks_of_if_be_stages_is_said_where_it_is_missing(program) -> None:
    done = program("""
from diffusers import UNet2DConditionModel
from imagen_diffusers.sampling.network import adapt

unet = UNet2DConditionModel(16, 3, 6, block_out_channels=(8, 16), norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
    up_block_types=("UpBlock2D",) * 2)
try:
    adapt(unet)
except ValueError as error:
    print(error)
import imagen_diffusers.interop
print(type(adapt(unet)).__name__)
""")
    said, kind = done.stdout.splitlines()
    assert "one of ImagenUNet2DConditionModel, ImagenEfficientUNet2DConditionModel. Networks of other origins join by import" in said
    assert kind == "DeepFloydNetwork", done.stderr


def test_cleaning_captions_says_nothing_of_image_processors(program) -> None:
    done = program("from imagen_diffusers.text.cleaning import clean_captions; print(clean_captions(['A Red Cube']))")
    assert (done.returncode, done.stdout) == (0, "['a red cube']\n"), done.stderr
    assert "CLIPImageProcessor" not in done.stderr


WITHOUT_EXTRAS = """
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):  # finds what an installation without extras has
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        extra = name.partition(".")[0] in ("datasets", "gradio", "matplotlib", "peft", "tensorboard", "torchmetrics", "torchvision")
        return None if extra else super().find_spec(name, path, target)

sys.meta_path = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
from imagen_diffusers import *
from imagen_diffusers import ImagenCascadePipeline, bundled

pipe = ImagenCascadePipeline.from_pretrained(bundled("imagen-scenes"))
print(pipe("a red cube", num_inference_steps=1, stop_at=1).images[0].size, pipe.fused_loras)
"""


@pytest.mark.thorough
def test_images_are_generated_without_the_packages_of_extras() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "(64, 64) set()\n", result.stderr
