"""The plan of the house: which room may import which, and how large files and functions may grow.

Imports are read from the source, so that those inside functions and those for type checkers count too.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
FLOORS = (
    *("errors", "models", "runtime", "features", "data", "checkpoints", "classifier", "export", "traintest"),
    *("doctor", "reports", "commands", "cli"),
)
"""Rooms of `src`, bottom to top; imports run downwards."""
LOOSE = {"__init__", "cli", "errors", "features"}
MODELS_NEED = {"torch", "timm", "numpy"}
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 350, 60

SOURCES = {path.relative_to(SRC).with_suffix("").as_posix().replace("/", "."): path for path in SRC.rglob("*.py")}
MODULES = {name.removesuffix(".__init__"): path for name, path in SOURCES.items() if name != "__init__"}
CODE = [
    *SRC.rglob("*.py"),
    *(path for folder in ("egs", "benchmarks", "pretrained_models") for path in (ROOT / folder).rglob("*.py")),
    *ROOT.glob("*.py"),
]


def imports(name: str) -> Iterator[tuple[str, int]]:
    """What a module imports, and in which line: modules of ours below `flexiast` (`models.resize`), others whole."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            module = ".".join(part for part in base if part)
            for alias in node.names:
                whole = f"{module}.{alias.name}".strip(".")
                yield (f".{whole}" if whole in MODULES else f".{module}"), node.lineno


def own_imports(name: str) -> Iterator[tuple[str, int]]:
    return ((target[1:], line) for target, line in imports(name) if target.startswith("."))


def floor(module: str) -> int:
    return FLOORS.index(module.split(".")[0])


def test_the_reader_of_imports_sees_them_all() -> None:
    targets = {target for target, _ in own_imports("cli")}
    # "" is `from . import __version__`
    of_commands = {f"commands.{name}" for name in ("command_line", "completion", "guard")}
    assert targets == {"", *of_commands, *(f"runtime.{name}" for name in ("bars", "output", "terminal"))}
    assert "features" in {target for target, _ in own_imports("data.dataset")}
    assert len([name for name in MODULES if name != "cli" and list(own_imports(name))]) > 40


def test_only_the_entry_and_the_errors_lie_outside_the_rooms() -> None:
    assert {path.stem for path in SRC.glob("*.py")} == LOOSE
    rooms = {path.name for path in SRC.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert rooms | LOOSE == {*FLOORS, "__init__"}
    assert all((path.parent / "__init__.py").exists() for path in MODULES.values())


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_run_downwards(name: str) -> None:
    upwards = [f"line {line}: {target}" for target, line in own_imports(name) if target and floor(target) > floor(name)]
    assert not upwards
    absolute = [f"line {line}: {target}" for target, line in imports(name) if target.split(".")[0] == "flexiast"]
    assert not absolute  # inside `src` imports are relative
    whole_package = [line for target, line in own_imports(name) if not target]
    text = MODULES[name].read_text().splitlines()
    assert all(
        text[line - 1].strip() == f"from {'.' * (name.count('.') + 1)} import __version__" for line in whole_package
    )


def test_there_is_no_circle() -> None:
    edges = {name: sorted({target for target, _ in own_imports(name)} & MODULES.keys()) for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for target in edges[name]:
                visit(target, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())
    assert done == MODULES.keys()


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.startswith("models")))
def test_the_network_needs_torch_and_timm_only(name: str) -> None:
    roots = {target.split(".")[0] for target, _ in imports(name) if not target.startswith(".")}
    assert roots - sys.stdlib_module_names <= MODELS_NEED


def test_no_file_is_too_long() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in CODE}
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}


@pytest.mark.slow
def test_no_function_is_too_long() -> None:
    long = {
        f"{path.relative_to(ROOT).as_posix()}:{node.name}"
        for path in (*CODE, *(ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_A_FUNCTION
    }
    assert not long


IMPORT_ALL = """
import importlib, json, os, sys

names, before = json.loads(sys.argv[1]), dict(os.environ)
for name in names:
    importlib.import_module(name)

# Once more, when all that they need is imported already, and torch's own changes to the environment are undone: what is
# done now, they do.
os.environ.clear()
os.environ.update(before)
for name in [name for name in sys.modules if name.split(".")[0] == "flexiast"]:
    del sys.modules[name]
done = []
WATCHED = ("subprocess.Popen", "socket.connect", "os.system", "os.putenv", "os.mkdir", "os.remove", "os.rename")
watching = False

def watch(event, arguments):
    opened = event == "open" and not str(arguments[0]).endswith((".py", ".pyc"))
    if watching and (opened or event in WATCHED):
        done.append(f"{event} {arguments[0]}")

watching = True
sys.addaudithook(watch)
for name in names:
    importlib.import_module(name)
watching = False
changed = {key for key in os.environ.keys() | before.keys() if os.environ.get(key) != before.get(key)}
with open("result.json", "w") as file:
    json.dump({"changed": sorted(changed), "done": done, "files": os.listdir()}, file)
"""


def test_importing_any_module_does_nothing_else(tmp_path: Path) -> None:
    """It prints nothing, changes no environment, opens and writes no file, and starts nothing."""
    names = ["flexiast", *(f"flexiast.{name}" for name in sorted(MODULES))]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", IMPORT_ALL, json.dumps(names)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads((tmp_path / "result.json").read_text()) == {"changed": [], "done": [], "files": ["result.json"]}
