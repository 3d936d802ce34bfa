"""Flexibility curves (the accuracy of models at every patch size) as rows, as a text table and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..classifier.curve import Cascade
from ..models.geometry import PatchSize
from ..traintest.cascade_report import Comparison
from ..traintest.evaluate import Result
from ..traintest.metrics import figure, heading, number
from ..traintest.regression import RegressionMetrics
from .cascades import draw_cascades, draw_front
from .pictures import MARKERS, Picture, name_lines, picture, plain_ticks
from .tables import read_table

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
FIRST_METRIC = COLUMNS.index("accuracy")


def as_row(result: Result) -> dict[str, Any]:
    """A result as a dict with the keys COLUMNS; of numbers to predict their metrics take the place of the classes'."""
    metrics = result.metrics.as_dict()
    values = {
        "patch_freq": result.patch_size.freq,
        "patch_time": result.patch_size.time,
        "n_clips": len(result.scores),
        **metrics,
    }
    columns = list(dict.fromkeys([*COLUMNS[:FIRST_METRIC], *metrics, "loss", "n_clips"]))
    return {name: values[name] if name in values else getattr(result, name) for name in columns}


def score_of(result: Result) -> float:
    """Accuracy, or R2 of numbers to predict."""
    return result.metrics.R2 if isinstance(result.metrics, RegressionMetrics) else result.metrics.accuracy


def score_name(results: Sequence[Result]) -> str:
    """What `score_of` gives."""
    return "R2" if isinstance(results[0].metrics, RegressionMetrics) else "accuracy"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a flexibility.csv, as `as_row` makes them. Raises DataError if it is not one."""
    return [{name: row[name] for name in COLUMNS} for row in read_table(path, COLUMNS)]


def best_of(results: Sequence[Result]) -> str:
    """The highest accuracy or R2 with its patch size, and with its model if there are several."""
    best = max(results, key=score_of)
    of = f", {best.model}" if len({result.model for result in results}) > 1 else ""
    return f"{figure(score_name(results), score_of(best))} at patch size {best.patch_size}{of}"


def format_table(results: Sequence[Result]) -> str:
    """A text table: one line per model and resize, with the accuracy in percent, or R2, at each patch size.

    Of several numbers to predict, further lines have the R2 of each; and the RMSE in its unit.
    """
    metric = score_name(results)
    patches = list(dict.fromkeys(r.patch_size for r in results))
    lines = list(dict.fromkeys((r.model, r.resize) for r in results))
    by_key = {(r.model, r.resize, r.patch_size): r for r in results}
    cells = [[heading(metric), *(f"{p!s:>6}" for p in patches), "  mean", " worst"]]
    for model, resize in lines:
        row = [score_of(by_key[model, resize, p]) for p in patches]
        numbers = (f"{number(metric, value):>6}" for value in (*row, sum(row) / len(row), min(row)))
        cells.append([f"{model} ({resize})", *numbers])
        details = [by_key[model, resize, p].metrics.as_dict() for p in patches]
        for kind in (kind for kind in details[0] if kind.startswith(("R2 ", "RMSE"))):
            if kind != "RMSE" or not any(name.startswith("RMSE ") for name in details[0]):
                shown = "{:6.3g}" if kind.startswith("RMSE") else "{:6.3f}"
                cells.append([f"  {kind}", *(shown.format(one[kind]) for one in details)])
    first_line = [by_key[(*lines[0], p)] for p in patches]
    cells.append(["tokens", *(f"{r.tokens:6d}" for r in first_line)])
    cells.append(["GFLOPs", *(f"{r.gflops:6.3g}" for r in first_line)])
    width = max(len(line[0]) for line in cells)
    cells = [[line[0].ljust(width), *line[1:]] for line in cells]
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

    def draw(canvas: Figure) -> None:
        by_size, by_cost, *by_time = canvas.subplots(1, 3 if cascades else 2, sharey=True)
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
        metric = _metric(rows)
        canvas.suptitle(f"{metric[0].upper()}{metric[1:]} at every patch size, {clips:,} clips", fontsize=11)

    return picture(draw, 16 if cascades else 11, 4.4)


def draw_by_size(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Accuracy against patch size, in the order of the rows."""
    patches = list(dict.fromkeys(patch_of(row) for row in rows))
    for _, curve, style in _lines(rows):
        axes.plot([patches.index(patch_of(r)) for r in curve], list(map(_height, curve)), **style)
    axes.set_xticks(range(len(patches)), [str(patch) for patch in patches])
    axes.set(xlabel="patch size, mel bins x frames of 10 ms (one number: square)", ylabel=heading(_metric(rows)))
    axes.set_ylim(*_range(rows))


def draw_by_cost(axes: Axes, rows: Sequence[dict[str, Any]], named: bool = True) -> None:
    """Accuracy against GFLOPs per clip. named: the lines have their names beside their ends."""
    ends = []
    for name, curve, style in _lines(rows):
        cost = sorted(curve, key=lambda r: r["gflops"])
        (line,) = axes.plot([r["gflops"] for r in cost], list(map(_height, cost)), **style)
        ends.append((cost[-1]["gflops"], _height(cost[-1]), name, line.get_color()))
    axes.set(xlabel="cost, GFLOPs per clip", xscale="log", ylim=_range(rows))
    plain_ticks(axes.xaxis)
    if named:
        name_lines(axes, ends)


def draw_by_time(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Accuracy against the measured milliseconds per clip, in batches."""
    for _, curve, style in _lines(rows):
        points = sorted((1e3 / r["clips_per_second"], _height(r)) for r in curve)
        axes.plot(*zip(*points, strict=True), **style)
    axes.set(xlabel="measured cost, milliseconds per clip, in batches", xscale="log")
    plain_ticks(axes.xaxis)


def _metric(rows: Sequence[dict[str, Any]]) -> str:
    return "R2" if "R2" in rows[0] else "accuracy"


def _height(row: dict[str, Any]) -> float:
    """What is drawn of a row: accuracy in per cent, or R2."""
    return row["R2"] if "R2" in row else 100 * row["accuracy"]


def _range(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Lower and upper end of the axis of scores; R2 has no lower bound, and far below 0 says nothing more."""
    return (max(-1.0, min(0.0, *map(_height, rows))), 1.0) if _metric(rows) == "R2" else (0.0, 100.0)


def _lines(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """Name, rows and style of each model and resize."""
    resizes = {row["resize"] for row in rows}
    for place, (model, resize) in enumerate(dict.fromkeys((r["model"], r["resize"]) for r in rows)):
        name = f"{model} ({resize})" if len(resizes) > 1 else model
        dashes = "-" if resize == "pi" else "--"
        style = {"label": name, "marker": MARKERS[place % len(MARKERS)], "linestyle": dashes}
        yield name, [r for r in rows if (r["model"], r["resize"]) == (model, resize)], style


def patch_of(row: dict[str, Any]) -> PatchSize:
    """The patch size of a row."""
    return PatchSize(row["patch_freq"], row["patch_time"])
