"""Tables as CSV text and back, and which of many rows people are shown."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError

TEXTS = ("model", "resize", "class", "taken_for", "first", "second", "score_name")
WHOLE = ("patch_freq", "patch_time", "tokens", "n_clips", "support", "clips")
"""Columns of words, and of whole numbers; all others are numbers."""


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as CSV text with a header: floats with six digits, None as an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def read_table(path: Path, columns: Collection[str]) -> list[dict[str, Any]]:
    """The rows of a file that `to_csv` made, with numbers as numbers and NaN for empty cells.

    columns: those that it must have. Raises DataError with the file, and the line or the columns at fault.
    """
    try:
        with open(path, newline="", encoding="utf-8", errors="backslashreplace") as file:
            reader = csv.DictReader(file)
            found = reader.fieldnames or []
            if missing := [name for name in columns if name not in found]:
                raise DataError(
                    f"{path}: found no column {', '.join(missing)}, expected a table of this version of flexiast"
                    " measure; measure again"
                )
            return [_read_row(f"{path}, line {reader.line_num}", row) for row in reader]
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: not readable as a table ({error})") from None


def _read_row(where: str, cells: dict[str, str | None]) -> dict[str, Any]:
    if None in cells or None in cells.values():
        raise DataError(f"{where}: found another number of cells than of columns, expected {len(cells)}")
    return {name: _read_cell(where, name, cell or "") for name, cell in cells.items()}


def _read_cell(where: str, name: str, cell: str) -> str | int | float:
    if name in TEXTS:
        return cell
    try:
        return int(cell) if name in WHOLE else float(cell or "nan")
    except ValueError:
        raise DataError(f"{where}: found {cell!r} in {name}, expected a number") from None


def spread(count: int, most: int) -> list[int]:
    """Places in a list of `count`: all of them, or `most` evenly spread ones, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]
