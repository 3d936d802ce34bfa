#!/usr/bin/env python3
"""The average of a flexibility curve over the folds of a data set.

    python egs/average.py EXP_DIR

EXP_DIR/fold*/flexibility/flexibility.csv are what `flexiast measure` wrote for each fold. Prints mean and standard
deviation of the accuracy at each patch size, and writes them, with mAP and the number of folds, to EXP_DIR/average.csv.
"""

import csv
import re
import sys
from pathlib import Path
from statistics import mean, stdev

from flexiast.commands.guard import run_on_folder
from flexiast.errors import DataError
from flexiast.reports.flexibility import patch_of, read_rows
from flexiast.runtime.files import file_errors

METRICS = ("accuracy", "mAP")
Key = tuple[str, str, str]
"""Model, resize and patch size."""


def read_folds(directory: Path) -> dict[Key, dict[str, list[float]]]:
    """Metrics of all folds by model, resize and patch size. Raises DataError if a fold lacks some of them."""
    files = sorted(directory.glob("fold*/flexibility/flexibility.csv"))
    if not files:
        raise DataError(f"{directory}: found no fold*/flexibility/flexibility.csv")
    curves: dict[Key, dict[str, list[float]]] = {}
    for path in files:
        for row in read_rows(path):
            model = re.sub(r"/?fold\d+$", "", row["model"]) or directory.name
            values = curves.setdefault((model, row["resize"], str(patch_of(row))), {})
            for metric in METRICS:
                values.setdefault(metric, []).append(row[metric])
    for (model, _, patch), values in curves.items():
        if len(values[METRICS[0]]) != len(files):
            raise DataError(
                f"{directory}: found {len(values[METRICS[0]])} folds of {model} at {patch}, expected {len(files)}"
            )
    return curves


def average(directory: Path) -> str:
    """Write average.csv; returns the table for people."""
    lines = [f"{'model':30} {'patch':>8} {'accuracy, %':>14}"]
    with file_errors(directory), open(directory / "average.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "resize", "patch", "folds", *(f"{m}_{s}" for m in METRICS for s in ("mean", "std"))])
        for (model, resize, patch), values in read_folds(directory).items():
            spread = {m: (mean(v), stdev(v) if len(v) > 1 else 0.0) for m, v in values.items()}
            folds = len(values[METRICS[0]])
            writer.writerow([model, resize, patch, folds, *(f"{x:.6g}" for m in METRICS for x in spread[m])])
            centre, width = spread["accuracy"]
            lines.append(f"{model:30} {patch:>8} {100 * centre:8.1f} ± {100 * width:.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_on_folder(average))
