"""Cascades against single sizes as a table for people, and their front in a picture."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..traintest.cascade_report import AtSize, Comparison
from .curve import MOST_LINES
from .tables import spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def format_cascades(rows: Sequence[Comparison]) -> str:
    """A line for each cascade, by GFLOPs; every few of a model's, where there are many."""
    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        mine = [row for row in rows if row.model == model and row.by == "gflops"]
        shown = [mine[place] for place in spread(len(mine), MOST_LINES)]
        of = "" if len(shown) == len(mine) else f" ({len(shown)} of {len(mine)})"
        lines.append(f"cascades of {model}{of}, against the best single size of equal or lower GFLOPs on this data:")
        for r in shown:
            lines.append(
                f"{r.gflops:10.4g} GFLOPs {100 * r.score:6.1f} %  {100 * r.difference:+5.1f}"
                f" ({100 * r.low:+.1f} to {100 * r.high:+.1f}) against {r.single}: {r.cascade}"
            )
    return "\n".join(lines)


def format_at_sizes(rows: Sequence[AtSize]) -> str:
    """A line for each single size, by GFLOPs: the cascade that costs no more, and its sizes averaged, not routed."""
    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        lines.append(
            f"at the cost of each size of {model}: the cascade with the best validation score, against that size, and"
            " against the plain average of the cascade's sizes"
        )
        for r in rows:
            if (r.model, r.by) == (model, "gflops"):
                lines.append(
                    f"{r.patch_size:>7}: {r.cost:.4g} GFLOPs {100 * r.score:.1f} %, cascade {r.cascade_cost:.4g}"
                    f" {100 * r.cascade_score:.1f} %  {100 * r.difference:+.1f}"
                    f" ({100 * r.low:+.1f} to {100 * r.high:+.1f}): {r.cascade}; plain {r.plain_cost:.4g}"
                    f" {100 * r.plain_score:.1f} %  {100 * r.plain_difference:+.1f}"
                    f" ({100 * r.plain_low:+.1f} to {100 * r.plain_high:+.1f})"
                )
    return "\n".join(lines)


def read_cascades(path: Path) -> list[Comparison]:
    """The rows of a cascades.csv. Raises DataError if it is not one."""
    numbers = {field.name: field.type == "float" for field in dataclasses.fields(Comparison)}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows: list[dict[str, Any]] = [
                {name: float(row[name]) if number else row[name] for name, number in numbers.items()}
                for row in csv.DictReader(file)
            ]
            return [Comparison(**row) for row in rows]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not readable as a table of cascades ({error!r})") from None


def front(rows: Sequence[Comparison], by: str) -> list[Comparison]:
    """Of a model's rows, in the curve's order of rising validation scores, those that no later one costs less than:
    the Pareto front of a cost, `gflops` or `ms`, and validation score; cheapest first.
    """
    kept: list[Comparison] = []
    for row in reversed([row for row in rows if row.by == by]):
        if not kept or getattr(row, by) < getattr(kept[-1], by):
            kept.append(row)
    return kept[::-1]


def draw_cascades(axes: Axes, rows: Sequence[Comparison], cost: str) -> None:
    """Each model's front over a cost, `gflops` or `ms`, its colour that of the model's line of single sizes.

    The bars are the 95 % intervals of the difference from the best single size that costs no more.
    """
    colours = {line.get_label(): line.get_color() for line in axes.get_lines()}
    for model in dict.fromkeys(row.model for row in rows):
        shown = front([row for row in rows if row.model == model], cost)
        colour = next((c for label, c in colours.items() if str(label).split(" (")[0] == model), None)
        costs, scores = [getattr(r, cost) for r in shown], [100 * r.score for r in shown]
        below = [100 * max(0.0, r.difference - r.low) for r in shown]  # rounded in a file
        above = [100 * max(0.0, r.high - r.difference) for r in shown]
        axes.errorbar(
            costs, scores, (below, above), fmt=".--", color=colour, alpha=0.7, markersize=4, elinewidth=0.7,
            label=f"{model}, cascades",
        )  # fmt: skip


def draw_front(axes: Axes, points: Sequence[tuple[float, float]], colour: Any, label: str) -> None:
    """A front of cascades (cost, score in per cent), cheapest first, as small dots."""
    costs, scores = zip(*points, strict=True)
    axes.plot(costs, scores, ".--", color=colour, alpha=0.7, markersize=4, label=label)
