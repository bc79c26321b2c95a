"""The import rules. If this fails, move the code; do not edit the table."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

PACKAGE = Path(__file__).parent.parent / "imagen_diffusers"
# Each room and the rooms, or single files, that it imports from besides its own; all of them stand above it.
# `extras` and `images` are files.
ROOMS: dict[str, tuple[str, ...]] = {
    "models": (),
    "schedulers": (),
    "extras": (),
    "text": ("extras",),
    "images": (),
    "hub": ("extras",),  # public classes are names there, until one is asked for
    "sampling": ("models", "schedulers", "text"),
    # What a network is asked for is the same in sampling and in training, so that file, and no other of that room, is both's.
    "training": ("models", "schedulers", "extras", "text", "sampling.network"),
    # Networks of other origins register themselves where a network is adapted, and know no more of sampling.
    "interop": ("models", "schedulers", "text", "sampling.network"),
    # A cascade knows where bundled folders are and writes its card; its class methods open what interop reads.
    "pipelines": ("models", "schedulers", "text", "sampling", "hub", "interop"),
    "finetuning": ("models", "schedulers", "text", "sampling", "training", "images", "hub", "pipelines"),
    # Evaluations are shared among processes, and kept in folders, as runs of training are; of training they know no more.
    "evaluation": ("extras", "text", "images", "hub", "sampling", "pipelines", "training.processes", "training.folders"),
    # The page is given what loads cascades; the command, which has it, starts the page.
    "web": ("text", "images", "hub", "pipelines"),
    # A graph's network is a stage by its origin's adapter; pipelines come in by argument, and load graphs by the names of their classes.
    # It writes folders that are there in whole or not at all, as training does.
    "export": ("models", "extras", "text", "sampling", "interop", "training.folders"),
    # A command reads words, weight files and captions before it loads what takes seconds.
    "cli": ("models", "extras", "text", "training", "images", "hub", "interop", "pipelines", "evaluation", "web", "export"),
}
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(("imagen_diffusers", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path for path in FILES
}
LONGEST_FILE, LONGEST_MEDIAN, LONGEST_FUNCTION, MOST_ARGUMENTS = 350, 90, 50, 12


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports; of `from package import name` the module `package.name` if it is one."""
    found: set[str] = set()
    place = ("imagen_diffusers", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = [*place[: len(place) - node.level + 1]] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= names & MODULES.keys() or {module}
    return {name for name in found if name.split(".")[0] == "imagen_diffusers"}


def room_of(module: str) -> str:
    """The room of a module; the package itself, which imports everything by name when it is asked, is a room below all."""
    return (module.split(".") + [""])[1]


def graph() -> dict[str, set[str]]:
    return {module: imports(path) for module, path in MODULES.items()}


def test_the_list_is_the_tree() -> None:
    there = {p.stem for p in PACKAGE.iterdir() if (p.is_dir() and (p / "__init__.py").exists()) or p.suffix == ".py"}
    assert there == {*ROOMS, "__init__", "__main__"}


def allowed(module: str, other: str) -> bool:
    """Whether one module may import another. The package itself imports all of them by name, and as a program the command."""
    if module in ("imagen_diffusers", "imagen_diffusers.__main__"):
        return module == "imagen_diffusers" or other == "imagen_diffusers.cli"
    name = other.removeprefix("imagen_diffusers.")
    return any(name == one or name.startswith(f"{one}.") for one in (room_of(module), *ROOMS[room_of(module)]))


def test_the_table_goes_one_way() -> None:
    rooms = list(ROOMS)
    for room, others in ROOMS.items():
        assert all(rooms.index(other.split(".")[0]) < rooms.index(room) for other in others), room


def test_every_import_is_in_the_table() -> None:
    assert not [f"{module} imports {other}" for module, others in graph().items() for other in others if not allowed(module, other)]


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("models.attention", "schedulers.noise"),
        ("models.attention", "text.encoding"),
        ("schedulers.noise", "models.attention"),
        ("schedulers.noise", "text.encoding"),
        ("text.encoding", "models.attention"),
        ("text.encoding", "schedulers.noise"),
        ("sampling.stage", "training.losses"),
        ("training.loop", "sampling.stage"),
        ("training.loop", "pipelines.stages"),
        ("interop.deepfloyd.network", "sampling.stage"),
        ("hub.places", "models.attention"),
        ("pipelines.stages", "cli.options"),
        ("pipelines.stages", "evaluation.distances"),
        ("evaluation.features", "training.loop"),
        ("pipelines.stages", "hubs"),
    ],
)
def test_other_imports_are_not_in_the_table(module, other) -> None:
    assert not allowed(f"imagen_diffusers.{module}", f"imagen_diffusers.{other}")
    assert not allowed(f"imagen_diffusers.{module}", "imagen_diffusers")


def test_the_package_itself_imports_nothing_large() -> None:
    """Its classes are imported when they are first asked for; only type checkers see the list of imports."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    at_once = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in at_once] == ["typing", "hub.classes"]


def test_no_circle() -> None:
    files = {module: others for module, others in graph().items() if module != "imagen_diffusers"}
    list(TopologicalSorter(files).static_order())  # raises CycleError, naming the circle


def test_origins_of_networks_know_nothing_of_each_other() -> None:
    for module, others in graph().items():
        if module.startswith("imagen_diffusers.interop."):
            own = module.split(".")[2]
            assert not any(o.startswith("imagen_diffusers.interop.") and o.split(".")[2] != own for o in others), module


def test_files_and_functions_read_in_one_sitting() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in FILES if path.name != "__init__.py"}
    assert not {path.name: n for path, n in lengths.items() if n > LONGEST_FILE}
    assert median(lengths.values()) <= LONGEST_MEDIAN
    assert max(lengths[PACKAGE / "pipelines" / name] for name in ("pipeline_imagen_cascade.py", "cascade.py")) < 300
    for path in FILES:
        for function in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)):
            if function.name in ("__call__", "__init__"):
                continue  # a call has what diffusers' users expect of it, a constructor one argument a value of its config
            body = function.body[1:] if ast.get_docstring(function) else function.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0  # pyright: ignore[reportOptionalOperand]
            assert length <= LONGEST_FUNCTION, f"{path.name}: {function.name} has {length} lines"


def calls(name: str) -> list[str]:
    """Where something of this name is called with several arguments, as a file and the line's receiver; `super()`'s own apart."""
    found = []
    for path in FILES:
        for node in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and len(node.args) > 1):
            function = ast.unparse(node.func)
            if function.split(".")[-1] == name and not function.startswith("super()"):
                found.append(f"{path.relative_to(PACKAGE).as_posix()}: {function}")
    return found


def test_there_is_one_denoising_loop() -> None:
    """The steps of optimizers, learning rates and averaged weights take one argument or none."""
    assert calls("step") == ["sampling/stage.py: scheduler.step"]
    assert calls("guide") == ["sampling/stage.py: guide"]


def test_root_folders_hold_data_only() -> None:
    for folder in ("pipelines", "schedulers"):
        assert not list((PACKAGE.parent / folder).rglob("*.py"))
