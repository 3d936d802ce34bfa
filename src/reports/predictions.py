"""Predictions for many files as text, CSV and JSON, written as they are made."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..classifier.results import Prediction
from ..errors import ConfigError
from ..runtime.files import growing, require_new, to_json_text
from ..runtime.terminal import printable

SUFFIXES = (".csv", ".json")
SHOWN = "{:.7g}"
"""A value, in whatever unit, to the digits that a float32 has."""


class Part(NamedTuple):
    """The best classes of a file, or of one window of it."""

    start: float | None
    """Seconds; None for the whole file."""
    end: float | None
    best: list[Prediction]


class Report(NamedTuple):
    """The predictions for one file, or its error."""

    path: str
    parts: list[Part]
    error: str | None
    patch_sizes: tuple[str, ...] = ()
    """The sizes that scored the file, from coarse to fine, where a budget or a cascade chose them."""
    chosen: str = ""
    """What was chosen and why."""
    numbers: bool = False
    """Whether they are values of targets, not scores of classes."""


def as_lines(report: Report) -> str:
    """One tab-separated line per class or target, safe to print; nothing for a file that cannot be used."""
    lines, shown = list[str](), (SHOWN if report.numbers else "{:.4f}").format
    for start, end, best in report.parts:
        times = [] if start is None else [f"{start:.2f}", f"{end:.2f}"]
        lines += ["\t".join([printable(report.path), *times, printable(p.label), shown(p.score)]) for p in best]
    return "\n".join(lines)


def as_json(report: Report) -> str:
    """One object in one line."""
    content: dict[str, Any] = {"path": report.path}
    if report.error is not None:
        return to_json_text(content | {"error": _reason(report)})

    def made(one: Prediction) -> dict[str, Any]:
        if report.numbers:
            return {"target": one.label, "value": float(SHOWN.format(one.score))}
        return {"label": one.label, "score": round(one.score, 6)}

    parts = [
        ({} if start is None else {"start": round(start, 4), "end": round(end or 0, 4)})
        | {"predictions": list(map(made, best))}
        for start, end, best in report.parts
    ]
    if report.chosen:
        content |= {"patch_sizes": list(report.patch_sizes), "chosen": report.chosen}
    windows = len(parts) != 1 or "start" in parts[0]
    return to_json_text(content | ({"windows": parts} if windows else parts[0]))


def _reason(report: Report) -> str:
    """The error without the path, which stands beside it."""
    return (report.error or "").removeprefix(f"{report.path}: ")


def as_rows(report: Report, chosen: bool = False) -> list[list[str]]:
    """CSV rows with the columns COLUMNS: one per class, or one with the error if the file cannot be used.

    chosen: add the columns CHOSEN.
    """
    how = [">".join(report.patch_sizes), report.chosen] if chosen else []
    if report.error is not None:
        return [[report.path, "", "", "", "", _reason(report), *how]]
    return [
        [
            report.path,
            *("" if time is None else f"{time:.4f}" for time in (start, end)),
            *(label, (SHOWN if report.numbers else "{:.6f}").format(score), "", *how),
        ]
        for start, end, best in report.parts
        for label, score in best
    ]


COLUMNS = ["path", "start", "end", "label", "score", "error"]
NUMBERS = ["path", "start", "end", "target", "value", "error"]
"""The same of a model that predicts numbers."""
CHOSEN = ["patch_sizes", "chosen"]
"""Further columns, where a budget or a cascade chose the patch sizes."""


def require_results_file(path: Path, overwrite: bool) -> None:
    """Raise ConfigError if results cannot go to this file: its suffix is not in SUFFIXES, or it exists already."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"out: found {path}, expected a file name that ends in {' or '.join(SUFFIXES)}")
    require_new(path, overwrite)


@contextmanager
def results_file(
    path: Path, chosen: bool = False, numbers: bool = False
) -> Iterator[Callable[[Sequence[Report]], None]]:
    """Give a function that appends reports to a file, in CSV or JSON according to its name.

    chosen: with the columns CHOSEN. numbers: of values, not scores of classes.

    They are there after an error or Ctrl-C too, see `growing`. Raises FileError if the file cannot be written.
    """
    is_csv, added = path.suffix.lower() == ".csv", 0
    with growing(path, lambda: added > 0, "" if is_csv else "\n]\n") as write:
        write(_csv([[*(NUMBERS if numbers else COLUMNS), *(CHOSEN if chosen else ())]]) if is_csv else "[")

        def add(reports: Sequence[Report]) -> None:
            nonlocal added
            for report in reports:
                comma = "," if added else ""
                write(_csv(as_rows(report, chosen)) if is_csv else f"{comma}\n{as_json(report)}")
                added += 1

        yield add


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
