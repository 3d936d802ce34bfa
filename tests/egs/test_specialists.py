"""Specialists beside flexible models: one line of many models, means over folds, no model twice."""

import csv
import dataclasses
from pathlib import Path

import pytest

from flexiast.errors import DataError
from flexiast.reports.cascades import read_cascades
from flexiast.reports.flexibility import COLUMNS
from flexiast.reports.tables import to_csv
from flexiast.traintest.cascade_report import Comparison
from tests.scripts import script

SCRIPT = Path(__file__).resolve().parents[2] / "egs" / "specialists.py"
specialists = script(SCRIPT)


def write(directory: Path, accuracies: dict[tuple[str, int], float]) -> None:
    """A flexibility.csv as `flexiast measure` writes it, from accuracies by model and size."""
    rows = []
    for (model, size), accuracy in accuracies.items():
        row = dict.fromkeys(COLUMNS, 1.0) | {
            "model": model,
            "resize": "pi",
            "accuracy": accuracy,
            "gflops": 99.0 / size,
        }
        rows.append(row | {"patch_freq": size, "patch_time": size, "tokens": 12, "n_clips": 40, "d_prime": None})
    (directory / "flexibility").mkdir(parents=True)
    (directory / "flexibility" / "flexibility.csv").write_text(to_csv(rows))


def test_specialists_are_one_line_beside_the_flexible_models(tmp_path: Path, capsys) -> None:
    write(tmp_path / "specialists" / "patch8", {("patch8", 8): 0.85})
    write(tmp_path / "specialists" / "patch48", {("patch48", 48): 0.8})
    start = {("patch16", 8): 0.5, ("patch16", 48): 0.1}
    write(tmp_path / "flexible_a", start | {("flexible_a", 8): 0.8, ("flexible_a", 16): 0.84, ("flexible_a", 48): 0.82})
    write(tmp_path / "flexible_b", start | {("flexible_b", 8): 0.81, ("flexible_b", 48): 0.7})
    assert specialists.compare(tmp_path).splitlines() == [
        "accuracy, %      8     48",
        "specialists   85.0   80.0",
        "patch16       50.0   10.0",
        "flexible_a    80.0   82.0",
        "flexible_b    81.0   70.0",
    ]
    out = tmp_path / "specialists"
    with open(out / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["patch_freq"] for row in rows] == ["8"] * 4 + ["16"] + ["48"] * 4
    comparison = Comparison(
        "flexible_a", "48 > 8", "0.5", "1 0.2", 5.0, 1.0, "accuracy", 0.9, "gflops", "8", 0.8, 0.1, 0.0, 0.2
    )
    path = tmp_path / "flexible_a" / "flexibility" / "cascades.csv"
    path.write_text(to_csv([dataclasses.asdict(comparison)]))
    assert read_cascades(path) == [comparison]
    drawn = (out / "comparison.png").read_bytes()
    specialists.compare(tmp_path)
    assert (out / "comparison.png").read_bytes() != drawn
    assert min((out / name).stat().st_size for name in ("comparison.png", "comparison-dark.png")) > 10_000


def test_folds_are_averaged(tmp_path: Path) -> None:
    for fold, accuracy in ((1, 0.7), (2, 0.9)):
        write(tmp_path / "specialists" / "patch8" / f"fold{fold}", {(f"fold{fold}", 8): accuracy})
        flexible = {(f"patch16/fold{fold}", 8): 0.1, (f"flexible_a/fold{fold}", 8): accuracy - 0.1}
        write(tmp_path / "flexible_a" / f"fold{fold}", flexible)
    lines = specialists.compare(tmp_path).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["specialists", "80.0"],
        ["patch16", "10.0"],
        ["flexible_a", "70.0"],
    ]
    write(tmp_path / "flexible_a" / "fold3", {("flexible_a/fold3", 8): 0.5})
    with pytest.raises(DataError, match=r"found 2 folds of patch16 at 8, expected 3"):
        specialists.compare(tmp_path)


def test_without_specialists_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found no specialists/patch\*/flexibility/flexibility.csv"):
        specialists.compare(tmp_path)
