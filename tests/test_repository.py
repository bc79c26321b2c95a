"""What stands around the package: the size of what is committed, pins, and what the pages tell people to type."""

import ast
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").glob("*.md"))), "Makefile"]


class Repository:
    """A small one, with `.ci/size` in it."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        (path / ".ci").mkdir()
        (path / ".ci" / "size").write_text((ROOT / ".ci" / "size").read_text())
        self.commit("first", "a.bin", 10)

    def git(self, *words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *words], cwd=self.path, check=True, capture_output=True)

    def commit(self, message: str, name: str, size: int) -> None:
        (self.path / name).write_bytes(bytes(size))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def size(self, limit: int = 1) -> tuple[int, str]:
        done = subprocess.run(["bash", ".ci/size", str(limit)], cwd=self.path, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def repository(tmp_path) -> Repository:
    return Repository(tmp_path / "repository")


def test_a_first_commit_is_compared_with_nothing(repository) -> None:
    code, said = repository.size()
    assert (code, "no earlier commit" in said) == (0, True)


def test_on_main_the_last_commit_counts(repository) -> None:
    repository.commit("weights", "weights.bin", 1_500_000)
    code, said = repository.size()
    assert code == 1
    assert "1.5 MB added, of 1 allowed" in said
    assert "weights.bin is the largest" in said
    assert repository.size(limit=2)[0] == 0
    repository.commit("words", "b.txt", 10)
    assert repository.size()[0] == 0


def test_on_a_branch_all_its_commits_count_even_of_deleted_files(repository) -> None:
    repository.git("checkout", "--quiet", "-b", "work")
    repository.commit("weights", "weights.bin", 1_500_000)
    (repository.path / "weights.bin").unlink()
    repository.commit("without", "b.txt", 10)
    assert repository.size()[0] == 1


def test_a_shallow_clone_is_enough(repository, tmp_path) -> None:
    repository.commit("weights", "weights.bin", 1_500_000)
    for depth, code in ((1, 0), (2, 1)):
        shallow = tmp_path / f"depth-{depth}"
        words = ["git", "clone", "--quiet", f"--depth={depth}", repository.path.as_uri(), str(shallow)]
        subprocess.run(words, check=True, capture_output=True)
        done = subprocess.run(["bash", ".ci/size", "1"], cwd=shallow, capture_output=True, text=True)
        assert done.returncode == code, done.stdout


def test_what_must_pass_includes_size_and_types() -> None:
    steps = (ROOT / ".ci" / "run").read_text().splitlines()
    assert steps[-4:] == [".ci/size 160", "make quality", "make test", "make test-thorough"]
    assert "pyright" in (ROOT / "Makefile").read_text().split("quality: lint")[1].split("\n\n")[0]


@pytest.mark.parametrize("page", PAGES)
def test_installs_keep_the_pins(page) -> None:
    lines = [line for line in (ROOT / page).read_text().splitlines() if re.search(r"pip install.* -e ", line)]
    assert all("-c constraints.txt" in line for line in lines), lines
    if page in ("README.md", "docs/finetuning.md", "Makefile"):
        assert lines


def setup_arguments() -> dict:
    """What setup.py says, without running it."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    (call,) = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup")
    shared = [node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id in ("TRAIN", "WEB", "EVALUATION", "EMOJI")]  # type: ignore[attr-defined]
    names = {node.targets[0].id: ast.literal_eval(node.value) for node in shared}  # type: ignore[attr-defined]
    return {
        k.arg: eval(ast.unparse(k.value), names)
        for k in call.keywords
        if k.arg in ("install_requires", "extras_require", "python_requires")
    }


def bare(requirement: str) -> str:
    return re.split(r"[<>=\[]", requirement)[0].lower().replace("_", "-")


def test_every_requirement_is_pinned() -> None:
    told = setup_arguments()
    wanted = {bare(r) for r in [*told["install_requires"], *(r for extra in told["extras_require"].values() for r in extra)]}
    pinned = {bare(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert wanted <= pinned, wanted - pinned


@pytest.mark.parametrize(
    ("folders", "extras", "optional"),
    [
        (
            ["imagen_diffusers"],
            ["train", "web", "evaluation", "onnx", "jax"],
            {"bitsandbytes"},
        ),  # asked for by a flag, whose error names it
        # torchao is asked for by what is measured; griffe is what the site's own extension of mkdocstrings extends.
        (["benchmarks", "docs", "examples", "tests"], [*setup_arguments()["extras_require"]], {"torchao", "griffe"}),
    ],
)
def test_every_import_is_declared(folders, extras, optional) -> None:
    told = setup_arguments()
    wanted = [*told["install_requires"], *(r for extra in extras for r in told["extras_require"][extra])]
    declared = {bare(r).replace("-", "_") for r in wanted}
    names = {"PIL": "pillow", "yaml": "pyyaml"}
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).split(".")[0])
    third = {
        names.get(n, n) for n in found - set(sys.stdlib_module_names) - {"imagen_diffusers", "benchmarks", "docs", "examples", "tests"}
    }
    assert third <= declared | optional, third - declared - optional


def test_messages_name_an_extra_by_one_sentence_of_what_is_declared() -> None:
    """It is true of an installed wheel as well, which has no constraints.txt."""
    texts = {path.name: path.read_text() for path in (ROOT / "imagen_diffusers").rglob("*.py")}
    assert [name for name, text in texts.items() if re.search(r"pip install .*\[|constraints\.txt", text)] == ["extras.py"]
    named = {extra for text in texts.values() for extra in re.findall(r"""\binstall\(["'](\w+)["']\)""", text)}
    assert {"train", "web"} <= named <= setup_arguments()["extras_require"].keys()


def test_one_python_is_named_everywhere() -> None:
    least = setup_arguments()["python_requires"].removeprefix(">=")
    assert f"Python {least}+" in (ROOT / "README.md").read_text()
    assert f"Python {least}+" in (ROOT / "Makefile").read_text()
    assert f"({least.replace('.', ', ')})" in (ROOT / "Makefile").read_text()
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert ruff["target-version"] == f"py{least.replace('.', '')}"


def test_an_older_python_makes_no_environment(tmp_path) -> None:
    for name in ("setup.py", "constraints.txt"):
        (tmp_path / name).touch()
    old = tmp_path / "old.py"
    old.write_text("import sys\nsys.version_info = (3, 10, 2)\nexec(sys.argv[2])\n")
    words = ["make", "-f", str(ROOT / "Makefile"), ".venv/installed", f"PYTHON={sys.executable} {old}"]
    made = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode and "is Python 3.10, and 3.11 or later is needed" in made.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_page_on_installing_names_the_oldest_torch() -> None:
    (least,) = (r.removeprefix("torch>=") for r in setup_arguments()["install_requires"] if r.startswith("torch>="))
    assert f"torch {least} or later" in (ROOT / "docs" / "installation.md").read_text()


def test_the_first_thing_a_reader_types_is_a_clone_without_history() -> None:
    assert "git clone --depth 1" in (ROOT / "README.md").read_text().split("make demo")[0]


def test_a_call_of_ours_of_what_will_go_is_shown_and_one_of_others_is_not() -> None:
    with warnings.catch_warnings(record=True) as shown:
        for kind in (DeprecationWarning, FutureWarning):
            warnings.warn_explicit("theirs", kind, "file.py", 1, module="diffusers.models.unets")
            warnings.warn_explicit("ours", kind, "file.py", 1, module="imagen_diffusers.models.blocks")
    assert [(str(told.message), told.category) for told in shown] == [("ours", DeprecationWarning), ("ours", FutureWarning)]
