"""Find the columns of a table that hold the file names and the labels."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Sequence

from .labels import is_finite, is_number
from .suffixes import AUDIO_SUFFIXES
from .table_options import NumberOptions, PathOptions, TableOptions

PATH_COLUMNS = (
    *("path", "file", "filename", "file_name", "file_path", "filepath", "fname", "audio", "audio_path"),
    *("audio_file", "audio_filename", "audio_filepath", "wav", "wav_path", "wav_file", "slice_file_name"),
    *("clip", "clip_path", "sound", "recording", "ytid", "youtube_id"),
)
"""Usual names of the column of file names, in order of preference; case and spaces do not matter."""
LABEL_COLUMNS = (
    *("label", "labels", "class", "classes", "class_name", "classname", "class_label", "category", "categories"),
    *("scene_label", "event_label", "event_labels", "positive_labels", "tags", "target", "targets", "class_id"),
    *("classid", "label_id", "mid", "mids"),
)
"""Usual names of the label column, in order of preference; but a column of names is preferred to one of numbers."""
GROUP_COLUMNS = frozenset({"fold", "split", "subset"})
"""Columns that may name a folder."""
NO_TARGETS = GROUP_COLUMNS | {"", "id", "index", "unnamed:_0"}
"""Columns of numbers that are nothing to predict, unless they are named; the last is what pandas calls its index."""
VIDEO_COLUMNS = frozenset({"ytid", "youtube_id"})
"""Columns of ids of YouTube videos; a clip is a segment of one."""
DELIMITERS = "\t;,"


@dataclasses.dataclass(frozen=True)
class Columns:
    """Positions of the columns to read, in a table with this header."""

    header: tuple[str, ...]
    path: int
    labels: tuple[int, ...]
    """Columns that could hold the labels, in order of preference."""
    groups: tuple[int, ...] = ()
    """Columns that may name a folder."""
    span: tuple[int, int] | None = None
    """Columns of start and end in seconds, for segments of videos."""
    headed: bool = True
    """Whether the table has a header; otherwise the columns are called 1, 2, 3, ..."""
    numbers: bool = False
    """Whether all of `labels` are read, each a number to predict; otherwise the first."""

    @property
    def read(self) -> tuple[int, ...]:
        """The columns of labels that are read."""
        return self.labels if self.numbers else self.labels[:1]

    def with_names_preferred(self, rows: Sequence[Sequence[str]]) -> Columns:
        """The same, with the label column chosen from sample rows: the first that holds names, else the first."""

        def holds_names(column: int) -> bool:
            cells = [row[column].strip() for row in rows if len(row) > column and row[column].strip()]
            return any(not is_number(cell) for cell in cells)

        if not self.labels:
            return self
        chosen = next(filter(holds_names, self.labels), self.labels[0])
        return dataclasses.replace(self, labels=(chosen, *(c for c in self.labels if c != chosen)))

    def with_numbers(self, rows: Sequence[Sequence[str]]) -> Columns:
        """The same, with those of the columns that hold numbers in most cells of sample rows; none if there are none.

        A column with a usual name of labels is preferred to all others.
        """

        def holds_numbers(column: int) -> bool:
            cells = [row[column].strip() for row in rows if len(row) > column and row[column].strip()]
            return sum(map(is_finite, cells)) > len(cells) / 2

        chosen = tuple(filter(holds_numbers, self.labels))
        usual = tuple(c for c in chosen if plain_name(self.header[c]) in LABEL_COLUMNS)
        return dataclasses.replace(self, labels=usual or chosen)

    def description(self) -> str:
        """What was chosen, in a few words."""
        path, *labels = (self.header[c] for c in (self.path, *self.labels))
        if self.numbers:
            others = [name for c, name in enumerate(self.header) if c not in (self.path, *self.labels)]
            text = f"files from column {path}, numbers to predict from {', '.join(labels)}"
            return text + (f" (not from {', '.join(others)})" if others else "")
        text = f"files from column {path}" + (f", labels from column {labels[0]}" if labels else "")
        if labels[1:]:
            text += f" (not from {', '.join(labels[1:])})"
        return text if self.headed else f"no header; {text}"


def plain_name(name: str) -> str:
    """A column's name in lower case, with underscores, and without comment marks and spaces around it."""
    return name.strip("\ufeff# \t").casefold().replace(" ", "_").replace("-", "_")


def parse_line(line: str, delimiter: str) -> list[str]:
    """The cells of one line. Raises csv.Error."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]


def columns_of(header: Sequence[str], options: PathOptions) -> Columns | None:
    """The columns of a table with this header; None if it has no column of files, or of labels.

    Labels are looked for only if the options have settings for them.
    """
    plain = [plain_name(name) for name in header]
    paths = _places(header, plain, options.path_column, PATH_COLUMNS)
    labels: list[int] = []
    if isinstance(options, NumberOptions):
        found = [next(iter(_places(header, plain, name, ())), -1) for name in options.columns]
        labels = found or [c for c, name in enumerate(plain) if name not in NO_TARGETS and c not in paths]
        if not labels or min(labels) < 0:
            return None
    elif isinstance(options, TableOptions):
        labels = [c for c in _places(header, plain, options.label_column, LABEL_COLUMNS) if c not in paths[:1]]
        if not labels:
            return None
    if not paths:
        return None
    span = None
    if plain[paths[0]] in VIDEO_COLUMNS:
        ends = [next((c for c, name in enumerate(plain) if name.startswith(key)), -1) for key in ("start", "end")]
        span = (ends[0], ends[1]) if min(ends) >= 0 else None
    columns = Columns(tuple(header), paths[0], tuple(labels), (), span, numbers=isinstance(options, NumberOptions))
    taken = (columns.path, *columns.read)
    groups = tuple(c for c, name in enumerate(plain) if name in GROUP_COLUMNS and c not in taken)
    return dataclasses.replace(columns, groups=groups)


def columns_without_header(cells: Sequence[str], options: PathOptions) -> Columns | None:
    """The columns of a table whose first line is a clip already: a file's name, and its label in the next column."""
    header = tuple(str(c + 1) for c in range(len(cells)))
    paths = [c for c, cell in enumerate(cells) if os.path.splitext(cell)[1].lower() in AUDIO_SUFFIXES]
    if options.path_column is not None:
        paths = [c for c, name in enumerate(header) if name == options.path_column]
    if paths and not isinstance(options, TableOptions):
        return Columns(header, paths[0], (), headed=False)
    if not paths or len(cells) < 2 or not isinstance(options, TableOptions):
        return None
    if isinstance(options, NumberOptions):
        if not set(options.columns) <= set(header):
            return None
        names = options.columns or [name for name in header if name != header[paths[0]]]
        return Columns(header, paths[0], tuple(map(header.index, names)), headed=False, numbers=True)
    label = paths[0] + 1 if paths[0] + 1 < len(cells) else 0
    if options.label_column is not None:
        if options.label_column not in header:
            return None
        label = header.index(options.label_column)
    return Columns(header, paths[0], (label,), headed=False)


def place_of(header: Sequence[str], name: str) -> int | None:
    """The place of a column of this name; None if there is none."""
    return next(iter(_places(header, [plain_name(column) for column in header], name, ())), None)


def _places(header: Sequence[str], plain: Sequence[str], requested: str | None, usual: Sequence[str]) -> list[int]:
    if requested is None:
        return [plain.index(name) for name in usual if name in plain]
    return [c for c, name in enumerate(header) if name.strip("\ufeff ") == requested] or [
        c for c, name in enumerate(plain) if name == plain_name(requested)
    ]
