"""The notebooks run whole on the shipped checkpoint or on sounds they make, and are kept with clean outputs."""

import ast
import importlib
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PICTURES = {"flexiast": 3, "which_size": 1, "your_own_sounds": 2}
"""Notebooks, with the number of pictures in each."""
SOUNDS = {"flexiast", "your_own_sounds"}
"""Notebooks that play a sound."""


@pytest.fixture(params=sorted(PICTURES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code_of(notebook: nbformat.NotebookNode) -> ast.Module:
    return ast.parse("\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code"))


def test_every_notebook_is_listed() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == PICTURES.keys()


def test_kept_outputs_are_whole_and_clean(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == PICTURES[name]
    assert any("audio" in o.get("data", {}).get("text/html", "") for o in outputs) == (name in SOUNDS)
    text = (NOTEBOOKS / f"{name}.ipynb").read_text()
    assert not re.search(r"/home/|/root/|/work/|/tmp/", text)
    assert len(text) < 600_000


def test_it_imports_flexiast_and_defines_nothing(name: str) -> None:
    tree = code_of(read(name))
    assert any(isinstance(node, ast.Import) and node.names[0].name == "flexiast" for node in ast.walk(tree))
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node for node in ast.walk(tree) if isinstance(node, definitions)]


def test_what_it_imports_from_flexiast_is_there(name: str) -> None:
    for node in ast.walk(code_of(read(name))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("flexiast"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), node.module


def test_a_new_one_says_first_what_it_gives_and_how_long_it_takes() -> None:
    for name in ("which_size", "your_own_sounds"):
        first = read(name).cells[0]
        assert first.cell_type == "markdown"
        assert "At the end you" in first.source
        assert re.search(r"takes about \w+ minute", first.source)


def run_afresh(name: str) -> tuple[str, int]:
    """What a notebook prints when all its cells are run, and the number of its pictures."""
    from nbclient import NotebookClient

    fresh = read(name)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(fresh, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}})
    client.execute()  # raises on the first cell that fails
    outputs = [output for cell in fresh.cells for output in cell.get("outputs", [])]
    printed = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    return printed, sum("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.slow
def test_the_tour_runs_whole() -> None:
    printed, pictures = run_afresh("flexiast")
    assert len(re.findall(r"^ *\d+ +\d+ .* seven ", printed, re.MULTILINE)) == 11  # the answer at every patch size
    assert "0.00 to  0.96 s  seven" in printed
    assert pictures == PICTURES["flexiast"]


@pytest.mark.slow
def test_your_own_sounds_runs_whole_and_learns() -> None:
    printed, pictures = run_afresh("your_own_sounds")
    assert pictures == PICTURES["your_own_sounds"]
    doctor, after = printed.split("nothing found")  # the faults are found, and gone once mended
    assert "[duplicates-with-other-labels]" in doctor
    assert "[silent]" in doctor
    accuracy = re.search(r"validation accuracy, %: +16: ([\d.]+)", after)
    simple = re.search(r"log-mel: ([\d.]+)", after)
    assert accuracy
    assert simple
    assert float(accuracy[1]) > float(simple[1]) + 15
    rows = {
        row[1]: [float(value) for value in row[2].split()] for row in re.finditer(r"^(\w+) \(pi\) +(.*)$", after, re.M)
    }
    (*_, mean, worst), (*_, fixed_mean, _) = rows["flexible"], rows["fixed"]
    assert mean > 75  # of three classes
    assert worst > 50
    assert mean > fixed_mean + 20
    assert len(re.findall(r"^patch .*\[Prediction\(label='trill'", after, re.MULTILINE)) == 3


@pytest.mark.slow
def test_which_size_runs_whole_and_its_choices_hold() -> None:
    pytest.importorskip("espeakng_loader")
    printed, pictures = run_afresh("which_size")
    assert pictures == PICTURES["which_size"]
    points = re.findall(r"^ +\d+ +\d+ +[\d.]+ +[\d.]+ +([\d.]+) +[\d.]+ +[\d.]+ +[\d.]+$", printed, re.MULTILINE)
    assert len(points) == 9
    assert all(float(accuracy) > 70 for accuracy in points)  # of 35 words
    assert re.search(r"^30MFLOPs +seven .* \(best for 30MFLOPs: ", printed, re.MULTILINE)
    assert "cheapest for accuracy>=0.8" in printed
    assert "which no size of the curve keeps" in printed
    single, cascade = (
        (float(right), float(cost))
        for right, cost in re.findall(r"on the other clips: ([\d.]+)% right, ([\d.]+) MFLOPs", printed)
    )
    assert single[0] > 75
    assert cascade[0] > single[0]
    assert max(single[1], cascade[1]) < 1.2 * 30
