"""The bundled folders are found in a clone, in an editable install and in a wheel; presets load."""

import ast
import json
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

import imagen_diffusers
from imagen_diffusers import ImagenCascadePipeline, bundled
from imagen_diffusers.hub.classes import MODULES
from imagen_diffusers.hub.versions import version_of
from imagen_diffusers.models import configurations

from .conftest import seeded

ROOT = Path(__file__).parent.parent
# As pip does, but that 54 MB of weights are not compressed, twice, and that nothing of it stays in the clone.
SOURCE = ("setup.py", "--quiet", "egg_info", "--egg-base", "{0}", "sdist", "--formats=tar", "--dist-dir", "{0}")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1], {'--build-option': ['--compression=stored']})"
# By the module itself: the package's own name for it imports diffusers first.
FIND = "from imagen_diffusers.hub.places import bundled; print(bundled('imagen-scenes'), bundled('ddpm-cosine'), flush=True)"


def test_clone_and_editable_install_find_the_folders_beside_the_package() -> None:
    assert bundled("imagen-scenes") == ROOT / "pipelines" / "imagen-scenes"
    assert bundled("ddpm-cosine") == ROOT / "schedulers" / "ddpm-cosine"


def build_wheel(folder: Path) -> Path:
    """Of the source distribution, which is all that other packagers have."""
    subprocess.run([sys.executable, *(word.format(folder) for word in SOURCE)], cwd=ROOT, check=True, capture_output=True)
    (source,) = folder.glob("*.tar")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=source.with_suffix(""), check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_a_wheel_generates_an_image_in_an_environment_of_its_own(tmp_path) -> None:
    """Everything it needs is installed with it, which takes a package index."""
    wheel = build_wheel(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    programs = tmp_path / "env" / "bin"
    subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    command = [programs / "imagen-diffusers", "generate", "a large red cube", "--seed", "1", "--output", "image.png"]
    subprocess.run(command, check=True, cwd=tmp_path)
    with Image.open(tmp_path / "image.png") as image:
        assert image.size == (1024, 1024)
    listed = subprocess.run([programs / "python", "-m", "pip", "check"], capture_output=True, text=True)
    assert listed.returncode == 0, listed.stdout


def test_a_wheel_carries_them(tmp_path) -> None:
    wheel = build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        carried = {name for name in archive.namelist() if ".dist-info" not in name}
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    modules = [ROOT / "imagen_diffusers" / "py.typed", *(ROOT / "imagen_diffusers").rglob("*.py")]
    data = [
        path for kind in ("pipelines", "schedulers") for path in (ROOT / kind).rglob("*") if path.suffix in (".json", ".safetensors", ".md")
    ]
    expected = {path.relative_to(ROOT) for path in modules} | {
        Path("imagen_diffusers", "hub_data", path.relative_to(ROOT)) for path in data
    }
    assert carried == {path.as_posix() for path in expected if "imagen-emoji" not in path.parts}
    assert not list(tmp_path.glob("*/tests"))  # which could not run without what is in the repository alone
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {FIND}; bundled('imagen-emoji')"
    asked = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    found = [Path(path) for path in asked.stdout.split()]
    assert len(found) == 2 and all(path.is_relative_to(tmp_path / "site") and path.is_dir() for path in found), asked.stderr
    assert "clone the repository, and give its pipelines/imagen-emoji" in asked.stderr


def test_the_command_answers_before_torch_is_imported() -> None:
    code = "import sys, imagen_diffusers.cli; print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_the_package_is_run_as_the_command_is(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["imagen-diffusers", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("imagen_diffusers", run_name="__main__")
    assert (ended.value.code, capsys.readouterr().out) == (0, f"imagen-diffusers {version_of('imagen_diffusers')}\n")


def test_every_public_name_is_found_where_the_package_says() -> None:
    (typed,) = (node for node in ast.parse(Path(imagen_diffusers.__file__).read_text()).body if isinstance(node, ast.If))
    told = {alias.name: "." * node.level + (node.module or "") for node in typed.body for alias in node.names}
    assert told == MODULES
    for name in imagen_diffusers.__all__:
        assert getattr(imagen_diffusers, name).__name__ == name
    assert not hasattr(imagen_diffusers, "ImagenVideo")


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(
        ValueError,
        match="pipelines imagen-emoji, imagen-medium, imagen-paper, imagen-scenes; presets balanced, fast, quality; schedulers ddim-cosine",
    ):
        bundled("imagen-moon")


@pytest.mark.parametrize("folder", sorted(p.parent.name for p in ROOT.glob("schedulers/*/scheduler_config.json")))
def test_scheduler_presets_load(folder) -> None:
    config = json.loads((bundled(folder) / "scheduler_config.json").read_text())
    scheduler = getattr(imagen_diffusers, config["_class_name"]).from_pretrained(bundled(folder))
    assert scheduler.config.thresholding
    scheduler.set_timesteps(5)


PAPER = (configurations.PAPER_BASE, configurations.PAPER_SR256, configurations.PAPER_SR1024)
MEDIUM = (configurations.MEDIUM_BASE, configurations.MEDIUM_SR256, configurations.MEDIUM_SR1024)


@pytest.mark.parametrize(("name", "presets"), [("imagen-paper", PAPER), ("imagen-medium", MEDIUM)])
def test_folders_without_weights_hold_the_configurations(name, presets) -> None:
    index = json.loads((bundled(name) / "model_index.json").read_text())
    for slot, preset in zip(("unet", "unet_2", "unet_3"), presets, strict=True):
        network = getattr(imagen_diffusers, index[slot][1])
        with torch.device("meta"):
            built = network.from_config(network.load_config(bundled(name), subfolder=slot))
        for key, value in preset.items():
            assert built.config[key] == (list(value) if isinstance(value, tuple) else value)


def test_the_bundled_pipeline_draws() -> None:
    wanted = {"default": torch.float32}
    pipe = ImagenCascadePipeline.from_pretrained(bundled("imagen-scenes"), variant="fp16", dtype=wanted)
    pipe.set_progress_bar_config(disable=True)
    prompt = "a large red metal sphere on a gray floor"
    out = pipe(prompt, generator=seeded(), output_type="pt", num_inference_steps=[8, 1, 1])
    assert [s.shape[-1] for s in out.stage_images] == [64, 256, 1024]
    red, green, blue = out.stage_images[0][0]
    assert ((red - torch.maximum(green, blue)) > 0.25).float().mean() > 0.02  # a red thing is there
    assert (red - green).abs().median() < 0.1  # on a gray floor
