"""The rows of a table of clips, column by column: an object for each of millions of rows would be slow and large."""

from __future__ import annotations

import itertools
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

Cell = str | tuple[str, ...]
"""A label cell as it was read, or the list in a JSONL."""


class Row(NamedTuple):
    """A clip in a table."""

    line: int
    name: str
    """File name, with the prefix and suffix from the options; or the id of a video."""
    label: Cell
    span: tuple[float, float] | None = None
    """Start and end of a segment of a video, in seconds."""
    groups: tuple[str, ...] = ()
    """Cells of the columns that may name a folder."""


class Rows:
    """A sequence of rows; a `Row` is made when it is asked for."""

    def __init__(self) -> None:
        self.lines = array("q")
        self.names: list[str] = []
        self.cells: list[Cell] = []
        """The distinct label cells, in the order of their first rows."""
        self.numbers = array("i")
        """The place of each row's label cell in `cells`."""
        self.spans: list[tuple[float, float]] = []
        """Of every row; empty if they are whole files."""
        self.groups: list[tuple[str, ...]] = []
        """Of every row; empty if no column may name a folder."""
        self._number_of: defaultdict[Cell, int] = defaultdict(itertools.count().__next__)
        self._kept: dict[tuple[str, ...], tuple[str, ...]] = {}

    def add(
        self,
        lines: Iterable[int],
        names: Sequence[str],
        labels: Iterable[Cell],
        spans: Iterable[tuple[float, float]] = (),
        groups: Iterable[tuple[str, ...]] = (),
    ) -> None:
        """Add rows; spans and groups are given either always or never."""
        self.lines.extend(lines)
        self.names.extend(names)
        self.numbers.extend(map(self._number_of.__getitem__, labels))
        self.cells.extend(itertools.islice(self._number_of, len(self.cells), None))
        self.spans.extend(spans)
        self.groups.extend(self._kept.setdefault(one, one) for one in groups)

    @property
    def first_lines(self) -> dict[Cell, int]:
        """Each distinct label cell, and the line in which it comes first."""
        highest = np.maximum.accumulate(np.frombuffer(self.numbers, dtype=np.int32))
        first = np.flatnonzero(np.diff(highest, prepend=-1))  # cells are numbered as they come
        return {cell: self.lines[row] for cell, row in zip(self.cells, first.tolist(), strict=True)}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: int) -> Row:
        return Row(
            self.lines[place],
            self.names[place],
            self.cells[self.numbers[place]],
            self.spans[place] if self.spans else None,
            self.groups[place] if self.groups else (),
        )

    def __iter__(self) -> Iterator[Row]:
        return map(self.__getitem__, range(len(self)))
