"""The documentation site: its navigation, the tables of commands, an entry for every public name, and links that stay within it."""

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

import imagen_diffusers
from docs.hooks import commands
from imagen_diffusers.cli import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
OUTSIDE = "repository/"  # on the site, what is not in docs/
ENTRY = re.compile(r'^::: ([\w.]+)$|<a id="([\w.]+)"></a>', re.MULTILINE)
COMMANDS = list(get_command(app).commands)  # type: ignore[attr-defined]


def navigation(part) -> Iterator[str]:
    """The pages that mkdocs.yml lists, in their order."""
    if isinstance(part, str):
        yield part
    else:
        for inner in part.values() if isinstance(part, dict) else part:
            yield from navigation(inner)


def entries() -> set[str]:
    """Names, of objects and whole modules, that the reference has entries for."""
    return {a or b for page in (DOCS / "reference").glob("*.md") for a, b in ENTRY.findall(page.read_text())}


def imports(page: Path) -> Iterator[str]:
    """What the Python blocks of a page import from the package, by full name."""
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("imagen_diffusers"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_page_is_in_the_navigation_once_and_every_page_there_exists() -> None:
    listed = list(navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert len(listed) == len(set(listed))
    assert {page for page in listed if not page.startswith(OUTSIDE)} == {"index.md", *pages}  # README is the index
    assert all((ROOT / page.removeprefix(OUTSIDE)).is_file() for page in listed if page.startswith(OUTSIDE))


def test_the_tables_of_commands_are_what_the_commands_say() -> None:
    assert commands.PAGE.read_text() == commands.page(), "run: python -m docs.hooks.commands"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_that_help_shows_is_in_the_tables(name) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output.partition("Options:")[2]
    options = set(re.findall(r"^  (--[\w-]+)", shown, re.MULTILINE)) - {"--help"}
    own, shared = (f"## {part}" for part in (name, commands.SHARED))
    page = commands.PAGE.read_text()
    rows = page.split(f"{own}\n")[1].split("\n## ")[0].splitlines()
    rows += [row for row in page.split(shared)[1].strip().splitlines() if name in row.split("|")[-2].strip().split(", ")]
    told = {option for row in rows for option in re.findall(r"^\| `(--[\w-]+)[`,]", row)}
    assert len(options) >= 5
    assert told == options


def test_every_public_name_has_an_entry_in_the_reference() -> None:
    assert {f"imagen_diffusers.{name}" for name in imagen_diffusers.__all__} <= entries()


def test_whatever_a_page_imports_has_an_entry_in_the_reference() -> None:
    names = {name for page in (ROOT / "README.md", *DOCS.glob("*.md")) for name in imports(page)}
    known = entries()
    assert len(names) > 15
    assert not [name for name in names if name not in known and name.rpartition(".")[0] not in known]


def test_settings_say_in_the_reference_what_their_flags_say() -> None:
    settings = pytest.importorskip("docs.hooks.settings", reason="griffe is missing: pip install -c constraints.txt -e '.[docs]'")

    def told(value: str) -> str | None:
        return settings.help_of(ast.parse(value, mode="eval").body)

    assert told('field(default=1, metadata={"help": "How many."})') == "How many."
    assert told('field(metadata={"help": f"One of {names}."})') == "One of `names`."
    assert told('_flag(1, "How " "many.")') == "How many."
    assert told('field(metadata={"other": 1})') is told("field(default=1)") is told("1") is None


@pytest.mark.slow
def test_arguments_that_stable_diffusion_has_too_are_named_the_same() -> None:
    """The second list of the page, against the signatures."""
    from diffusers import StableDiffusionXLInpaintPipeline

    page = (DOCS / "from-stable-diffusion.md").read_text()
    (listed,) = re.findall(r"^- In a call (.*?)(?=^- )", page, re.DOTALL | re.MULTILINE)
    names = set(re.findall(r"`(\w+)`", listed))
    theirs, ours = (
        set(inspect.signature(pipeline.__call__).parameters)
        for pipeline in (StableDiffusionXLInpaintPipeline, imagen_diffusers.ImagenCascadeInpaintPipeline)
    )
    assert names == (theirs & ours) - {"self"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` builds it."""
    pytest.importorskip("mkdocs", reason="mkdocs is missing: pip install -c constraints.txt -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # of the theme, about its successor
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.mark.slow
def test_the_built_site_has_every_name_and_every_command(site) -> None:
    reference = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    ids = set(re.findall(r'id="([^"]+)"', reference))
    assert {f"imagen_diffusers.{name}" for name in imagen_diffusers.__all__} <= ids
    assert "imagen_diffusers.training.losses.LossSettings.text_dropout" in ids  # fields are there, by their flags' help
    assert set(COMMANDS) <= set(re.findall(r'id="([^"]+)"', (site / "commands.html").read_text()))


@pytest.mark.slow
def test_the_built_site_needs_no_network_and_its_links_stay_within_it(site) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text()
        assert not re.findall(r'<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]+"', text), page
        near = {link.partition("#")[0] for link in re.findall(r'\b(?:src|href)="([^"]+)"', text) if "://" not in link}
        missing = [link for link in near if link and page.name != "404.html" and not (page.parent / link).exists()]
        assert not missing, (page, missing)
    first = (site / "index.html").read_text()
    assert 'href="repository/CONTRIBUTING.html"' in first
    assert 'href="repository/imagen_diffusers/sampling/guidance.py.html"' in (site / "paper.html").read_text()
