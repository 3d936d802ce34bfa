#!/usr/bin/env python3
"""Flexible models beside specialists, one model per patch size: a table, a CSV and a picture.

    python egs/specialists.py EXP_DIR

Reads what `flexiast measure` wrote: EXP_DIR/specialists/patch*/flexibility/flexibility.csv, each specialist at its own
size, and EXP_DIR/flexible_*/flexibility/flexibility.csv, the flexible models with the model that they started from.
With folds (.../fold*/flexibility/...), the mean over them. A flexible model with a curve has cascades.csv beside
it, which are drawn too. Writes comparison.csv and comparison.png, light and dark, to
EXP_DIR/specialists.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from flexiast.commands.guard import run_on_folder
from flexiast.errors import DataError
from flexiast.reports.cascades import draw_cascades, read_cascades
from flexiast.reports.flexibility import draw_by_cost, draw_by_size, patch_of, read_rows
from flexiast.reports.pictures import Picture, picture
from flexiast.reports.tables import to_csv
from flexiast.runtime.files import write_atomically
from flexiast.traintest.cascade_report import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = list[dict[str, Any]]
FIELDS = ("accuracy", "gflops")
SPEED = "clips_per_second"
"""Left out: it depends on what else the machine did in each of the measurements."""


def read_mean(directory: Path, model: str | None = None) -> Rows:
    """Rows of a measured directory, averaged over its folds. model: the name they get, instead of their own."""
    files = sorted(directory.glob("flexibility/flexibility.csv")) or sorted(
        directory.glob("fold*/flexibility/flexibility.csv")
    )
    groups: dict[tuple[str, str, str], Rows] = {}
    for file in files:
        for row in read_rows(file):
            name = model or re.sub(r"/?fold\d+$", "", row["model"]) or directory.name
            groups.setdefault((name, row["resize"], str(patch_of(row))), []).append(row)
    for (name, _, patch), rows in groups.items():
        if len(rows) != len(files):
            raise DataError(f"{directory}: found {len(rows)} folds of {name} at {patch}, expected {len(files)}")
    return [
        rows[0] | {"model": name} | {field: mean(row[field] for row in rows) for field in FIELDS}
        for (name, _, _), rows in groups.items()
    ]


def compare(exp: Path) -> str:
    """Write comparison.csv and comparison.png; returns the table. Raises DataError if no specialist was measured."""
    rows = [row for folder in sorted(exp.glob("specialists/patch*")) for row in read_mean(folder, "specialists")]
    if not rows:
        raise DataError(f"{exp}: found no specialists/patch*/flexibility/flexibility.csv")
    clips = rows[0]["n_clips"]
    for folder in sorted(exp.glob("flexible_*")):
        measured = {(row["model"], patch_of(row)) for row in rows}
        rows += [row for row in read_mean(folder) if (row["model"], patch_of(row)) not in measured]
    order = list(dict.fromkeys(row["model"] for row in rows))
    rows.sort(key=lambda row: (patch_of(row), order.index(row["model"])))
    out = exp / "specialists"
    cascades = [one for path in sorted(exp.glob("flexible_*/flexibility/cascades.csv")) for one in read_cascades(path)]
    kept = [{name: value for name, value in row.items() if name != SPEED} for row in rows]
    write_atomically(out / "comparison.csv", to_csv(kept).encode())
    plot(rows, clips, cascades).write(out / "comparison.png")
    return table(rows, order)


def plot(rows: Rows, clips: int, cascades: Sequence[Comparison]) -> Picture:
    """Accuracy against patch size and against GFLOPs; with the cascades of models that have a curve."""

    def draw(figure: Figure) -> None:
        by_size, by_cost = figure.subplots(1, 2, sharey=True)
        draw_by_size(by_size, rows)
        draw_by_cost(by_cost, rows)
        draw_cascades(by_cost, cascades, "gflops")
        if cascades:
            by_cost.set_title("dots: cascades, 95 % paired", fontsize=9, loc="right")
        figure.suptitle(f"One flexible model and a specialist for each size, {clips:,} clips", fontsize=11)

    return picture(draw, 11, 4.4)


def table(rows: Rows, models: list[str]) -> str:
    """Accuracy in percent at the sizes of the specialists, one line per model."""
    accuracy = {(row["model"], patch_of(row)): 100 * row["accuracy"] for row in rows}
    sizes = [patch for model, patch in accuracy if model == "specialists"]
    width = max(len(name) for name in (*models, "accuracy, %"))
    lines = ["accuracy, %".ljust(width) + "".join(f" {size!s:>6}" for size in sizes)]
    for model in models:
        cells = (f"{accuracy[model, size]:7.1f}" if (model, size) in accuracy else " " * 7 for size in sizes)
        lines.append(model.ljust(width) + "".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_on_folder(compare))
