"""The numbers behind the pictures of a run's page, as rows that become CSV."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..classifier.curve import Curve
from .curve import MOST_LINES, sizes_of
from .tables import spread, to_csv

Rows = list[dict[str, Any]]


def csv_link(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as the address of a CSV file that the page itself holds; "" for no rows."""
    if not rows:
        return ""
    return "data:text/csv;base64," + base64.b64encode(to_csv(rows).encode(errors="backslashreplace")).decode()


def cascade_rows(curve: Curve) -> Rows:
    """Every cascade on the front of a curve, with what it cost and gave on the validation clips."""
    return [
        {
            "sizes": sizes_of(one),
            "thresholds": " ".join(f"{threshold:.4g}" for threshold in one.rule.thresholds),
            "gflops": one.gflops,
            curve.score_name: one.score,
            "n_clips": curve.clips,
        }
        for one in curve.cascades
    ]


def cascade_table(curve: Curve | None) -> dict[str, Any] | None:
    """The front as a table of at most MOST_LINES rows, if there is one."""
    if curve is None or not curve.cascades:
        return None
    rows = cascade_rows(curve)
    shown = [rows[place] | {"score": curve.cascades[place].score} for place in spread(len(rows), MOST_LINES)]
    return {
        "clips": curve.clips,
        "score_name": curve.score_name,
        "count": len(rows),
        "rows": shown,
        "csv": csv_link(rows),
    }


def training_rows(records: Sequence[dict[str, Any]], metric: str) -> Rows:
    """The validations of a run, a row for each patch size in each."""
    return [
        {
            "epoch": record["epoch"],
            "train_loss": record.get("train_loss"),
            "patch_size": size,
            "loss": one["loss"],
            metric: one.get(metric),
        }
        for record in records
        for size, one in record["validation"].items()
    ]


def confusion_rows(counts: np.ndarray, names: Sequence[str]) -> Rows:
    """How many clips of each class were taken for each, from counts (C, C), without the zeros."""
    return [
        {"class": names[row], "taken_for": names[column], "clips": int(counts[row, column])}
        for row, column in zip(*np.nonzero(counts), strict=True)
    ]


def target_rows(row: dict[str, Any], names: Sequence[str]) -> Rows:
    """The metrics of each target, from a row of flexibility.csv; those of a single one stand for all."""
    kinds = ("R2", "RMSE", "pearson")
    return [{"target": name} | {kind: row.get(f"{kind} {name}", row[kind]) for kind in kinds} for name in names]


def predicted_rows(paths: Sequence[object], values: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> Rows:
    """Predicted and true values (n, C) of each clip, a row for each target."""
    return [
        {
            "clip": str(path),
            "target": name,
            "true": float(targets[clip, place]),
            "predicted": float(values[clip, place]),
        }
        for clip, path in enumerate(paths)
        for place, name in enumerate(names)
    ]


def as_rows(records: Sequence[Any]) -> Rows:
    """Dataclasses as rows."""
    return [dataclasses.asdict(record) for record in records]
