"""The numbers that a table names as what is to be predicted of each clip.

Dimensions: n rows, C targets.
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from .labels import is_finite
from .tables import Table

LARGEST = float(np.finfo(np.float32).max)


def read_numbers(table: Table) -> np.ndarray:
    """The numbers (n, C) float32 of every row. Raises DataError, with line and column, for a cell that holds none."""
    columns, rows = table.columns, table.rows
    names = [columns.header[place] for place in columns.labels]
    read = []
    for cells, line in rows.first_lines.items():
        for name, cell in zip(names, cells, strict=True):
            if not is_finite(cell) or abs(float(cell)) > LARGEST:
                found = repr(cell) if cell else "an empty cell"
                raise DataError(
                    f"{table.source}, line {line}, column {name}: found {found}, expected a number such as -20.5;"
                    " fill it in, or leave the row out"
                )
        read.append([float(cell) for cell in cells])
    return np.array(read, dtype=np.float32)[np.asarray(rows.numbers)]
