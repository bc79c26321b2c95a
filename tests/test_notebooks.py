"""Notebooks: what is committed, and, slowly, from top to bottom."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
SECONDS = 1200  # a cell: the machine that runs the tests may do other things


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_committed_without_outputs_and_can_be_read(path) -> None:
    code = cells(path, "code")
    assert len(code) > 4
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    for cell in code:
        ast.parse("".join(cell["source"]))
    (title, *_) = cells(path, "markdown")
    assert "".join(title["source"]).startswith("# ")
    named = {other.name for other in NOTEBOOKS}
    links = [word for cell in cells(path, "markdown") for word in "".join(cell["source"]).split("](")[1:]]
    assert all(link.split(")")[0] in named or link.startswith("http") for link in links)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_run_from_top_to_bottom(path) -> None:
    nbclient = pytest.importorskip("nbclient", reason='needs pip install -e ".[notebooks]"')
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(path.parent)}}).execute()
    images = [data for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in (data := out.get("data", {}))]
    assert len(images) >= 4
