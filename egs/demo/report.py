#!/usr/bin/env python3
"""The demo's results from `flexibility.csv`: a Markdown table, and four sentences that sum it up.

python egs/demo/report.py EXP_DIR      writes EXP_DIR/flexibility/RESULTS.md and prints it

Models of one size each, EXP_DIR/specialists, have a row and a line of their own, if they were trained.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from flexiast.commands.guard import run_on_folder
from flexiast.errors import DataError
from flexiast.reports.flexibility import patch_of, plot_flexibility, read_rows
from flexiast.runtime.files import file_errors, write_atomically

Curve = dict[str, float]
"""Accuracy in percent by patch size, written `16` or `16x32`."""


def read_measured(exp: Path) -> list[dict[str, Any]]:
    """What was measured, the specialists last. Raises DataError if a model of the demo is missing."""
    path = exp / "flexibility" / "flexibility.csv"
    rows = read_rows(path)
    models = {row["model"] for row in rows}
    if missing := {"fixed", "control", "supervised", "distilled"} - models:
        raise DataError(f"{path}: found models {sorted(models)}, expected also {sorted(missing)}")
    alone = [row for file in exp.glob("specialists/patch*/flexibility/flexibility.csv") for row in read_rows(file)]
    if alone:
        alone += [row for row in rows if row["model"] == "control" and str(patch_of(row)) == "16"]
    return rows + sorted((row | {"model": "specialists"} for row in alone), key=patch_of)


def curves_of(rows: Sequence[dict[str, Any]]) -> dict[str, Curve]:
    """Accuracy curves by model."""
    curves: dict[str, Curve] = {}
    for row in rows:
        curves.setdefault(row["model"], {})[str(patch_of(row))] = 100 * row["accuracy"]
    return curves


def table(curves: dict[str, Curve]) -> str:
    """Markdown: a row per model, a column per patch size, then mean and worst of those that have every size."""
    patches = list(next(iter(curves.values())))
    lines = [["test accuracy, %", *patches, "mean", "worst"], ["---", *["---:"] * (len(patches) + 2)]]
    for model, curve in curves.items():
        of_all = [mean(curve.values()), min(curve.values())] if len(curve) == len(patches) else [None, None]
        values = [*(curve.get(patch) for patch in patches), *of_all]
        lines.append([model, *("" if value is None else f"{value:.1f}" for value in values)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def findings(curves: dict[str, Curve]) -> list[str]:
    """What the numbers say, in sentences."""
    fixed, control = curves["fixed"], curves["control"]
    large = {patch: fixed[patch] for patch in ("32", "40", "48") if patch in fixed}
    sentences = [
        f"The fixed AST reads {fixed['16']:.1f} % of the words at its own patch size 16"
        + (f", and at most {max(large.values()):.1f} % at {', '.join(large)}." if large else "."),
        f"Trained further at patch 16 (control) it reads {control['16']:.1f} % there,"
        f" {mean(control.values()):.1f} % on average.",
    ]
    for name in ("supervised", "distilled"):
        curve = curves[name]
        worst = min(curve, key=curve.__getitem__)
        sentences.append(
            f"The {name} flexible model reads {mean(curve.values()):.1f} % on average, {curve[worst]:.1f} % at its"
            f" worst size ({worst}), and {curve['16']:.1f} % at 16, {control['16'] - curve['16']:.1f} points under the"
            " control."
        )
    return sentences


def report(exp: Path) -> str:
    """The whole report as Markdown; also written to flexibility/RESULTS.md; with specialists, a new picture."""
    rows, directory = read_measured(exp), exp / "flexibility"
    curves = curves_of(rows)
    if "specialists" in curves:
        plot_flexibility(rows, rows[0]["n_clips"]).write(directory / "flexibility.png")
    with file_errors(directory):
        source = json.loads((directory / "flexibility.json").read_text())["provenance"]
    hardware = ", ".join(str(value) for value in source["hardware"].values())
    text = "\n\n".join(
        [
            table(curves),
            "\n".join(f"- {sentence}" for sentence in findings(curves)),
            f"{source['data']['clips']} test clips; training seeds {sorted(set(source['seeds'].values()))};"
            f" commit {source['commit'][:12]}; {hardware}; torch {source['versions']['torch']}.",
        ]
    )
    write_atomically(directory / "RESULTS.md", (text + "\n").encode())
    return f"{text}\n\npicture: {directory / 'flexibility.png'}"


if __name__ == "__main__":
    sys.exit(run_on_folder(report))
