"""Flexibility curves (the accuracy of models at every patch size) as rows, as a text table and as a picture."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..classifier.curve import Cascade
from ..errors import DataError
from ..models.geometry import PatchSize
from ..traintest.cascade_report import Comparison
from ..traintest.evaluate import Result
from .cascades import draw_cascades, draw_front
from .pictures import MARKERS, Picture, name_lines, picture, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = [
    "model",
    "resize",
    "patch_freq",
    "patch_time",
    "tokens",
    "gflops",
    "clips_per_second",
    "accuracy",
    "mAP",
    "mAUC",
    "d_prime",
    "loss",
    "n_clips",
]


def as_row(result: Result) -> dict[str, Any]:
    """A result as a dict with the keys COLUMNS."""
    values = {
        "patch_freq": result.patch_size.freq,
        "patch_time": result.patch_size.time,
        "n_clips": len(result.scores),
        **dataclasses.asdict(result.metrics),
    }
    return {name: values[name] if name in values else getattr(result, name) for name in COLUMNS}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a flexibility.csv, as `as_row` makes them. Raises DataError if it is not one."""
    whole = ("patch_freq", "patch_time", "tokens", "n_clips")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                {
                    name: row[name]
                    if name in ("model", "resize")
                    else int(row[name])
                    if name in whole
                    else float(row[name] or "nan")
                    for name in COLUMNS
                }
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not readable as a flexibility table ({error!r})") from None


def best_of(results: Sequence[Result]) -> str:
    """The highest accuracy with its patch size, and with its model if there are several."""
    best = max(results, key=lambda result: result.metrics.accuracy)
    of = f", {best.model}" if len({result.model for result in results}) > 1 else ""
    return f"{100 * best.metrics.accuracy:.1f} % at patch size {best.patch_size}{of}"


def format_table(results: Sequence[Result]) -> str:
    """A text table: one line per model and resize, with the accuracy in percent at each patch size."""
    patches = list(dict.fromkeys(r.patch_size for r in results))
    lines = list(dict.fromkeys((r.model, r.resize) for r in results))
    width = max(len("accuracy, %"), *(len(f"{m} ({z})") for m, z in lines))
    by_key = {(r.model, r.resize, r.patch_size): r for r in results}
    cells = [["accuracy, %".ljust(width), *(f"{p!s:>6}" for p in patches), "  mean", " worst"]]
    for model, resize in lines:
        row = [100 * by_key[model, resize, p].metrics.accuracy for p in patches]
        numbers = (f"{value:6.1f}" for value in (*row, sum(row) / len(row), min(row)))
        cells.append([f"{model} ({resize})".ljust(width), *numbers])
    first_line = [by_key[(*lines[0], p)] for p in patches]
    cells.append(["tokens".ljust(width), *(f"{r.tokens:6d}" for r in first_line)])
    cells.append(["GFLOPs".ljust(width), *(f"{r.gflops:6.3g}" for r in first_line)])
    if excluded := results[0].excluded:
        cells.append([f"without {len(excluded)} unusable clips: {excluded[0].reason}" + ", ..." * (len(excluded) > 1)])
    return "\n".join(" ".join(line).rstrip() for line in cells)


def plot_flexibility(
    rows: Sequence[dict[str, Any]], clips: int, cascades: Sequence[Comparison] = (), front: Sequence[Cascade] = ()
) -> Picture:
    """Accuracy against patch size, and against GFLOPs per clip; one line per model and resize.

    cascades: their front by cost and validation score over the line of the sizes, and the same against time.
    front: of the one model's curve, with the accuracy that `flexiast curve` found on its validation clips.
    """

    def draw(figure: Figure) -> None:
        by_size, by_cost, *by_time = figure.subplots(1, 3 if cascades else 2, sharey=True)
        draw_by_size(by_size, rows)
        draw_by_cost(by_cost, rows)
        for axes in by_time:
            draw_by_time(axes, rows)
            draw_cascades(by_cost, cascades, "gflops")
            draw_cascades(axes, cascades, "ms")
            axes.set_title("dots: cascades chosen on validation data, 95 % paired", fontsize=9, loc="right")
        if front:
            points = [(one.gflops, 100 * one.score) for one in front]
            draw_front(by_cost, points, by_cost.get_lines()[0].get_color(), "cascades")
            by_cost.set_title("dots: cascades, on validation clips", fontsize=9, loc="right")
        figure.suptitle(f"Accuracy at every patch size, {clips:,} clips", fontsize=11)

    return picture(draw, 16 if cascades else 11, 4.4)


def draw_by_size(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Accuracy against patch size, in the order of the rows."""
    patches = list(dict.fromkeys(patch_of(row) for row in rows))
    for _, curve, style in _lines(rows):
        axes.plot([patches.index(patch_of(r)) for r in curve], [100 * r["accuracy"] for r in curve], **style)
    axes.set_xticks(range(len(patches)), [str(patch) for patch in patches])
    axes.set(xlabel="patch size, mel bins x frames of 10 ms (one number: square)", ylabel="accuracy, %", ylim=(0, 100))


def draw_by_cost(axes: Axes, rows: Sequence[dict[str, Any]], named: bool = True) -> None:
    """Accuracy against GFLOPs per clip. named: the lines have their names beside their ends."""
    ends = []
    for name, curve, style in _lines(rows):
        cost = sorted(curve, key=lambda r: r["gflops"])
        (line,) = axes.plot([r["gflops"] for r in cost], [100 * r["accuracy"] for r in cost], **style)
        ends.append((cost[-1]["gflops"], 100 * cost[-1]["accuracy"], name, line.get_color()))
    axes.set(xlabel="cost, GFLOPs per clip", xscale="log", ylim=(0, 100))
    plain_ticks(axes.xaxis)
    if named:
        name_lines(axes, ends)


def draw_by_time(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Accuracy against the measured milliseconds per clip, in batches."""
    for _, curve, style in _lines(rows):
        points = sorted((1e3 / r["clips_per_second"], 100 * r["accuracy"]) for r in curve)
        axes.plot(*zip(*points, strict=True), **style)
    axes.set(xlabel="measured cost, milliseconds per clip, in batches", xscale="log")
    plain_ticks(axes.xaxis)


def _lines(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """Name, rows and style of each model and resize."""
    resizes = {row["resize"] for row in rows}
    for number, (model, resize) in enumerate(dict.fromkeys((r["model"], r["resize"]) for r in rows)):
        name = f"{model} ({resize})" if len(resizes) > 1 else model
        dashes = "-" if resize == "pi" else "--"
        style = {"label": name, "marker": MARKERS[number % len(MARKERS)], "linestyle": dashes}
        yield name, [r for r in rows if (r["model"], r["resize"]) == (model, resize)], style


def patch_of(row: dict[str, Any]) -> PatchSize:
    """The patch size of a row."""
    return PatchSize(row["patch_freq"], row["patch_time"])
