"""The import rules. If this fails, move the code; do not edit the table."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "imagen_diffusers"
MAY_IMPORT = {
    "models": set(),
    "schedulers": set(),
    "text": set(),
    "pipelines": {"models", "schedulers", "text"},
    "training": {"models", "schedulers", "text"},
    "interop": {"models", "schedulers", "pipelines"},
    "recipes": {"models", "schedulers", "text", "pipelines", "training", "hub", "pictures", "sharing"},
    "cli": {"models", "text", "pipelines", "training", "interop", "hub", "pictures"},
}


def imports(path: Path) -> list[str]:
    """Full names of what a file of the package imports from the package."""
    found = []
    place = ("imagen_diffusers", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            prefix = ".".join(place[: len(place) - node.level + 1]) + "." if node.level else ""
            found += [prefix + (node.module or "")] + [f"{prefix}{node.module or ''}.{alias.name}" for alias in node.names]
    return [name for name in found if name.startswith("imagen_diffusers.")]


@pytest.mark.parametrize("folder", sorted(p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()))
def test_folders_import_only_what_they_may(folder: str) -> None:
    for path in (PACKAGE / folder).rglob("*.py"):
        for name in imports(path):
            other = name.split(".")[1]
            assert other == folder or other in MAY_IMPORT[folder], f"{path.name} imports {name}"


def test_nothing_imports_the_command() -> None:
    for path in (p for p in PACKAGE.rglob("*.py") if p.parent.name != "cli"):
        assert not any(name.split(".")[1] == "cli" for name in imports(path)), path


def test_files_read_in_one_sitting() -> None:
    long = {path.name: n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 350}
    assert not long


def test_root_folders_hold_data_only() -> None:
    for folder in ("pipelines", "schedulers"):
        assert not list((PACKAGE.parent / folder).rglob("*.py"))
