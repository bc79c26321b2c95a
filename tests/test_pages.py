"""The pages: every command is read by the parser it is for, Python blocks run, links and named paths are there, lines are short."""

import argparse
import re
import runpy
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import HfArgumentParser
from typer.main import get_command

import imagen_diffusers
from imagen_diffusers.cli import app
from imagen_diffusers.models.conditioning_images import with_cond_channels
from imagen_diffusers.models.lora import add_lora, lora_layers, lora_metadata

from .conftest import TEXT_DIM, make_base, make_pipeline
from .test_architecture import PACKAGE, ROOMS
from .test_repository import setup_arguments

ROOT = Path(__file__).parent.parent
DOCS = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs" / "reference").glob("*.md"))]  # in full on the site alone
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *DOCS,
    *REFERENCE,
    "examples/scenes/README.md",
    "examples/emoji/README.md",
    "examples/inpainting/README.md",
    "examples/notebooks/README.md",
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
PLACES = (".", "imagen_diffusers", "examples", "examples/scenes")  # where a named file may be, and beside the page
ELSEWHERE = ("cd", "git", "hf", "jupyter", "python3", "source")  # commands that are not ours
# Blocks that need the Hub, a file of somebody, graphs, or the page (which tests/test_web_server.py runs).
AWAY = ("from_deepfloyd", "from_imagen_pytorch", "push_to_hub", "scenes-onnx", "gradio_client")


class Parsed(Exception):  # noqa: N818 (no error)
    """A command line was read without complaint."""


def blocks(page: str, *kinds: str) -> list[str]:
    return [body for kind, body in FENCE.findall((ROOT / page).read_text()) if kind in kinds]


def prose(page: str) -> str:
    """The page without its blocks."""
    return FENCE.sub("", (ROOT / page).read_text())


def commands(page: str) -> Iterator[list[str]]:
    """Words of each command of the shell blocks, and of inline code that is a whole command and not the name of one."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    yield from filter(None, (shlex.split(line, comments=True) for line in text.splitlines()))
    for code in SPAN.findall(prose(page)):
        program, *rest = code.split()
        if program in PROGRAMS and len(rest) >= (1 if program in ("make", "pytest") else 2):
            yield shlex.split(code)


def run_to_its_parser(monkeypatch, run, argv: list[str]) -> None:
    """Run a script up to where its command line has been read."""
    read_flags, read = HfArgumentParser.parse_args_into_dataclasses, argparse.ArgumentParser.parse_args

    def stop_after(method):
        def parse(self, *args, **kwargs):
            method(self, *args, **kwargs)
            raise Parsed

        return parse

    with monkeypatch.context() as patch:
        patch.setattr(HfArgumentParser, "parse_args_into_dataclasses", stop_after(read_flags))
        patch.setattr(argparse.ArgumentParser, "parse_args", stop_after(read))
        patch.setattr("sys.argv", argv)
        patch.syspath_prepend(str(ROOT))
        with pytest.raises(Parsed):
            run()


def of_the_command(words: list[str], monkeypatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    for word in words:
        if word.endswith((".png", ".json", ".jsonl", ".csv", ".npz", ".txt")):
            (folder / word).parent.mkdir(parents=True, exist_ok=True)
            (folder / word).touch()  # what an earlier command has made
    read = words[1:2] if words[0] in ("upscale", "evaluate-stats") else [b for a, b in pairwise(words) if a in ("--reference", "--stage")]
    for word in read:
        if not (folder / word).exists():
            (folder / word).mkdir(parents=True)  # of images, or a stage
    command = get_command(app)
    if "--help" not in words:
        context = command.make_context("imagen-diffusers", words[:1])
        command.commands[words[0]].make_context(words[0], words[1:], parent=context)  # type: ignore[attr-defined]


def of_accelerate(words: list[str], monkeypatch, folder: Path) -> None:
    if words[:3] == ["launch", "-m", "imagen_diffusers.cli"]:
        return of_the_command(words[3:], monkeypatch, folder)
    at = next(i for i, word in enumerate(words) if word.endswith(".py"))
    assert words[0] == "launch"
    assert all((ROOT / word).is_file() for word in words[2:at])  # of --config_file
    run_to_its_parser(monkeypatch, lambda: runpy.run_path(str(ROOT / words[at]), run_name="__main__"), words[at:])


def of_a_module(words: list[str], monkeypatch, _: Path) -> None:
    option, module, *rest = words
    assert option == "-m"
    path = ROOT / module.replace(".", "/")
    module, path = (f"{module}.__main__", path / "__main__.py") if path.is_dir() else (module, path.with_suffix(".py"))
    if "parse" not in path.read_text():
        assert not rest, f"{module} takes no options"
        return
    run_to_its_parser(monkeypatch, lambda: runpy.run_module(module, run_name="__main__"), [module, *rest])


def of_make(words: list[str], *_) -> None:
    assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text()


def of_pip(words: list[str], *_) -> None:
    known = setup_arguments()["extras_require"]
    assert words[0] == "install"
    named = [extra for word in words for extras in re.findall(r"^\.\[(.*)\]$", word) for extra in extras.split(",")]
    assert set(named) <= known.keys()
    assert all((ROOT / word).is_file() for word in words if word.endswith(".txt"))


def of_pytest(words: list[str], *_) -> None:
    assert all((ROOT / word).is_file() for word in words if not word.startswith("-"))


PROGRAMS = {
    "imagen-diffusers": of_the_command,
    "accelerate": of_accelerate,
    "python": of_a_module,
    "make": of_make,
    "pip": of_pip,
    "pytest": of_pytest,
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of runpy, for modules that other tests have imported
@pytest.mark.parametrize("line", sorted({shlex.join(words) for page in PAGES for words in commands(page)}))
def test_commands_are_read_by_their_parsers(line, monkeypatch, tmp_path) -> None:
    words = shlex.split(line)
    assert "..." not in words, "a reader can type whole lines only"
    if words[0] not in ELSEWHERE:
        PROGRAMS[words[0]](words[1:], monkeypatch, tmp_path)


def test_the_reader_sees_commands_and_code() -> None:
    """The tests above and below find what they are about."""
    assert len(list(commands("README.md"))) > 10
    assert sum(len(blocks(page, "python")) for page in PAGES) > 20


@pytest.fixture(scope="module")
def cascade(tmp_path_factory) -> Path:
    """A tiny cascade of one variant, as the bundled one is."""
    folder = tmp_path_factory.mktemp("cascade")
    make_pipeline().save_pretrained(folder, variant="fp16")
    return folder


def run_blocks(page: str, names: dict) -> None:
    for block in blocks(page, "python"):
        code = compile(block, f"{page}, a block", "exec")
        if not any(word in block for word in AWAY):
            exec(code, names)


@pytest.mark.thorough
@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in (ROOT / page).read_text()])
def test_python_blocks_run(page, cascade, monkeypatch, tmp_path) -> None:
    real = imagen_diffusers.bundled
    monkeypatch.setattr(imagen_diffusers, "bundled", lambda name: cascade if name == "imagen-scenes" else real(name))
    monkeypatch.chdir(tmp_path)
    pipe = make_pipeline()
    add_lora(pipe.unet, rank=2, seed=0)
    for name in ("my-style", "my-guidance"):
        pipe.save_lora_weights(name, unet_lora_layers=lora_layers(pipe.unet), unet_lora_adapter_metadata=lora_metadata(pipe.unet))
    (tmp_path / "my-word").mkdir()
    save_file({"<my-vase>": torch.ones(1, TEXT_DIM)}, tmp_path / "my-word" / "learned_embeds.safetensors")
    if "inpainting" in page:
        make_pipeline(unet=with_cond_channels(make_base(), 4)).save_pretrained("runs/inpainting/pipeline")
    run_blocks(page, {"__name__": "page", "torch": torch, "pipe": make_pipeline()})


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_python_blocks_run_on_the_bundled_cascade(page, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    run_blocks(page, names)
    assert names["out"].images[0].size in ((1024, 1024), (64, 64))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text())
    near = [link.partition("#")[0] for link in links if not link.startswith("http")]
    assert not [link for link in near if not ((ROOT / page).parent / link).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_named_files_are_there_and_hold_what_is_named(page) -> None:
    for code in SPAN.findall(prose(page)):
        match = re.fullmatch(r"([\w./-]+\.(?:py|yaml|md))(?:: ([\w, ]+))?", code)
        if match is None or match[1] == "utils.py":  # which there must not be
            continue
        places = [(ROOT / page).parent, *(ROOT / place for place in PLACES)]
        found = [place / match[1] for place in places if (place / match[1]).is_file()]
        found = found or list((ROOT / "examples").rglob(match[1])) if "/" not in match[1] else found
        assert found, f"{page} names {code}"
        for name in (match[2] or "").split(", "):
            assert not name or re.search(rf"^(?:def|class) {name}\b", found[0].read_text(), re.M), f"{page}: {code}"


def test_quoted_errors_are_what_the_code_says() -> None:
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    source = re.sub(r"\"\n\s*f?\"", "", source)  # of a message on several lines
    rows = re.findall(r"^\| (.*?) \|", (ROOT / "docs/troubleshooting.md").read_text(), re.M)
    said = [part.strip() for row in rows for quoted in re.findall(r'"([^"]+)"', row) for part in quoted.split("...") if part.strip()]
    assert len(said) > 10
    assert not [part for part in said if part not in source]


def test_every_page_is_linked_from_the_first() -> None:
    text = (ROOT / "README.md").read_text()
    assert all(f"]({page})" in text for page in DOCS)


def test_the_map_shows_the_rooms() -> None:
    (tree,) = (body for body in blocks("README.md", "") if body.startswith("imagen_diffusers/"))
    lines = [re.match(r"(\s*)([\w./]+)", line) for line in tree.splitlines()]
    shown = [match[2].rstrip("/") for match in lines if match and match[1]]
    assert shown == [f"{room}.py" if (PACKAGE / f"{room}.py").exists() else room for room in ROOMS]
    assert all((ROOT / match[2]).is_dir() for match in lines if match and not match[1])


def test_contributors_are_told_the_same_rooms() -> None:
    assert ", ".join(f"`{room}`" for room in ROOMS) in " ".join((ROOT / "CONTRIBUTING.md").read_text().split())


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_as_long_as_those_of_the_code(page) -> None:
    lines = enumerate((ROOT / page).read_text().splitlines(), start=1)
    assert not [(n, len(line)) for n, line in lines if len(line) > 140 and not line.startswith(("|", "!["))]


@pytest.mark.parametrize("page", PAGES)
def test_words_are_the_fields(page) -> None:
    """An image is an image, and it is generated or sampled."""
    text = re.sub(r"docs/pictures\.jpg", "", (ROOT / page).read_text())
    assert not re.findall(r"\b(?:pictures?|draws?|drew|drawing)\b(?! (?:three seeds|from the caller))", text)
