"""Read tables of clips: CSV, TSV, text with semicolons, JSONL."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..errors import DataError
from .columns import DELIMITERS, Columns, columns_of, columns_without_header, parse_line, place_of
from .labels import is_path, reason_of
from .rows import Cell, Rows
from .suffixes import TABLE_SUFFIXES
from .table_options import NumberOptions, PathOptions, TableOptions

JSON_LINES = frozenset({".jsonl", ".ndjson"})
TABLES = TABLE_SUFFIXES | {".txt"}
_SAMPLE = 1000
"""Number of rows to choose the label column from."""
_AT_ONCE = 256
"""Number of rows that are checked and taken together; of more, garbage collection takes longer than the rest."""


_Line = tuple[int, list[str], dict[str, Any] | None]
"""Number and cells of a line, and what these were taken from, in a JSONL; not named, of which millions are slow."""


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a table, and the columns they were read from."""

    source: Path
    columns: Columns
    rows: Rows


def is_table(path: Path) -> bool:
    """Whether a file is a table of clips, judging by its suffix."""
    return path.suffix.lower() in TABLES


def read_table(path: Path, options: PathOptions) -> Table:
    """Read a table, with its labels if the options have settings for them (`TableOptions`).

    Raises DataError that names the file, the line and what to do.
    """
    read = _json_lines if path.suffix.lower() in JSON_LINES else _delimited
    try:
        with open(path, newline="", encoding=options.encoding or _encoding(path)) as file:
            table = read(path, file, options)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not readable as a table ({error.reason}, {_encoding_hint(path, options)})") from None
    except UnicodeError as error:
        raise DataError(f"{path}: not readable as a table ({error}, {_encoding_hint(path, options)})") from None
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"{path}: not readable as a manifest ({reason_of(error)})") from None
    if not table.rows:
        raise DataError(f"{path}: found no clips, expected at least one line below the header")
    return table


def _encoding(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _encoding_hint(path: Path, options: PathOptions) -> str:
    flag = options.flag("encoding")
    with open(path, "rb") as file:
        start = file.read(1000)
    if start.count(0) > len(start) // 4:
        which = "utf-16-le" if start[1::2].count(0) >= start[::2].count(0) else "utf-16-be"
        return f"it looks like UTF-16 without a mark: {flag} {which}"
    if options.encoding:
        return f"{flag} {options.encoding} is not its encoding"
    return f"expected UTF-8; for a table saved by Excel or in Latin-1: {flag} cp1252 or {flag} latin-1"


# Delimited text --------------------------------------------------------------------------------------------------


def _delimited(path: Path, file: TextIO, options: PathOptions) -> Table:
    skipped, comment, line = 0, "", file.readline()
    while line and (line.lstrip("\ufeff").startswith("#") or not line.strip()):
        skipped, comment, line = skipped + 1, line if line.strip() else comment, file.readline()
    delimiter, columns = _layout(path, comment, line, options)
    lines = itertools.chain([line], file) if line else iter(())
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    if columns.headed and not _is_header(comment, columns):
        next(reader)
    numbered = ((skipped + reader.line_num, cells, None) for cells in reader if cells)
    sample = list(itertools.islice(numbered, _SAMPLE))
    columns = _chosen_labels(path, columns, [cells for _, cells, _ in sample], options)
    return Table(path, columns, _rows(path, columns, itertools.chain(sample, numbered), options))


def _is_header(comment: str, columns: Columns) -> bool:
    """Whether the last comment line holds the column names, as in AudioSet's lists."""
    return bool(comment) and any(parse_line(comment, d) == list(columns.header) for d in DELIMITERS)


def _layout(path: Path, comment: str, line: str, options: PathOptions) -> tuple[str, Columns]:
    """Delimiter and columns: from the header, the comment above it, or the first line of a table without header."""
    for text, find in ((line, columns_of), (comment, columns_of), (line, columns_without_header)):
        for delimiter in DELIMITERS:
            if columns := find(parse_line(text, delimiter), options):
                return delimiter, columns
    widest = max((parse_line(line, delimiter) for delimiter in DELIMITERS), key=len)
    raise DataError(f"{path}: found columns {widest}, {_expected_columns(options)}")


def _chosen_labels(path: Path, columns: Columns, rows: Sequence[Sequence[str]], options: PathOptions) -> Columns:
    """The columns, those of labels chosen by sample rows. Raises DataError if numbers are wanted and none has any."""
    if not columns.numbers:
        return columns.with_names_preferred(rows)
    if isinstance(options, NumberOptions) and options.columns:
        return columns
    chosen = columns.with_numbers(rows)
    if not chosen.labels and rows:
        raise DataError(f"{path}: found no numbers in columns {list(columns.header)}, {_expected_columns(options)}")
    return chosen


def _expected_columns(options: PathOptions) -> str:
    """What a table must have, and the options that name it."""
    if isinstance(options, NumberOptions):
        named = f"those of the targets {', '.join(options.columns)}" if options.columns else "one or several of numbers"
        path, label = map(options.flag, ("path_column", "label_column"))
        return f"expected one of files (path, file, fname, ...) and {named}; name them with {path} and {label} a,b"
    names = ["path_column", "label_column"] if isinstance(options, TableOptions) else ["path_column"]
    asked = [f"{options.flag(name)} {value}" for name in names if (value := getattr(options, name)) is not None]
    kinds = ("one of files (path, file, fname, ...)", "one of labels (label, class, category, ...)")
    expected = f"one for {' and '.join(asked)}" if asked else " and ".join(kinds[: len(names)])
    pronoun = "them" if len(names) > 1 else "it"
    return f"expected {expected}; name {pronoun} with {' and '.join(map(options.flag, names))}"


def _rows(path: Path, columns: Columns, lines: Iterator[_Line], options: PathOptions) -> Rows:
    rows, prefix, suffix = Rows(), options.path_prefix, options.path_suffix
    chosen = _chosen(path, columns, lines, options) if options.conditions else lines
    while some := list(itertools.islice(chosen, _AT_ONCE)):
        numbers, cells, records = zip(*some, strict=True)
        names = _column(cells, columns.path)
        _check(path, columns, numbers, cells, names)
        spans = [_span(path, *one, columns.span) for one in zip(numbers, cells, strict=True)] if columns.span else ()
        groups = zip(*(_column(cells, place) for place in columns.groups), strict=True)
        labels: Iterable[Cell]
        if not columns.labels:
            labels = itertools.repeat("", len(some))
        elif columns.numbers:
            labels = zip(*(_column(cells, place) for place in columns.labels), strict=True)
        elif records[0] is None:
            labels = _column(cells, columns.labels[0])
        else:
            key = columns.header[columns.labels[0]]
            labels = [_labels(path, *one, key) for one in zip(numbers, records, strict=True)]
        if prefix or suffix:
            names = [f"{prefix}{name}{suffix}" for name in names]
        rows.add(numbers, names, labels, spans, groups)
    return rows


def _column(lines: Iterable[Sequence[str]], place: int) -> list[str]:
    return [cells[place].strip() if place < len(cells) else "" for cells in lines]


def _check(path: Path, columns: Columns, numbers: Sequence[int], lines: Sequence[list[str]], names: list[str]) -> None:
    """Raise DataError for the first line with too many or too few cells, or without the name of a file."""
    width, needed = len(columns.header), max(columns.path, *columns.read, 0)
    widths = set(map(len, lines))
    if needed < min(widths) and max(widths) <= width and all(names) and is_path("".join(names)):
        return
    for number, cells, name in zip(numbers, lines, names, strict=True):
        where = f"{path}, line {number}"
        if len(cells) > width:
            raise DataError(
                f"{where}: found {len(cells)} cells, expected {width}; several labels, or a path with a comma, go in"
                " quotes"
            )
        if len(cells) <= needed:
            raise DataError(f"{where}: found {len(cells)} cells, expected {width}")
        if not name or not is_path(name):
            raise DataError(f"{where}: found path {name!r}, expected the name of a file")


def _chosen(path: Path, columns: Columns, lines: Iterator[_Line], options: PathOptions) -> Iterator[_Line]:
    """The rows that `where` asks for. Raises DataError if it names no column, or no row is left."""
    places, seen, left = [], [dict[str, None]() for _ in options.conditions], 0
    for one in options.conditions:
        if (place := place_of(columns.header, one.column)) is None:
            header, flag = list(columns.header), options.flag("where")
            raise DataError(f"{path}: found columns {header}, expected one for {flag} {one}")
        places.append(place)
    for line in lines:
        asked_cells = [line[1][place].strip() if place < len(line[1]) else "" for place in places]
        for values, cell in zip(seen, asked_cells, strict=True):
            values.setdefault(cell)
        if all((cell in one.values) != one.negated for one, cell in zip(options.conditions, asked_cells, strict=True)):
            left += 1
            yield line
    if not left:
        there = "; ".join(f"{one.column} is {_some(v)}" for one, v in zip(options.conditions, seen, strict=True))
        asked = " ".join(map(str, options.conditions))
        raise DataError(f"{path}: found no row for {options.flag('where')} {asked}, expected at least one ({there})")


def _some(values: Iterable[str]) -> str:
    values = sorted(values, key=lambda value: (len(value), value))
    return ", ".join(values[:10]) + (", ..." if len(values) > 10 else "")


def group_lines(table: Table, options: PathOptions) -> Iterator[str]:
    """A line for each column of folds or splits that was not asked for: its values, all of which are read."""
    asked = {place_of(table.columns.header, one.column) for one in options.conditions}
    for number, place in enumerate(table.columns.groups):
        values = _some({groups[number] for groups in set(table.rows.groups)})
        if place not in asked and "," in values:
            name, first = table.columns.header[place], values.split(",")[0]
            yield (
                f"{table.source}: rows of every {name} ({values}) are read; {options.flag('where')} {name}={first}"
                " takes some of them"
            )


def _span(path: Path, line: int, cells: Sequence[str], span: tuple[int, int]) -> tuple[float, float]:
    try:
        start, end = (float(cells[c]) for c in span)
    except (ValueError, IndexError):
        start, end = 0.0, -1.0
    if not 0 <= start < end < 1e6:
        raise DataError(f"{path}, line {line}: found {cells}, expected a start and a later end in seconds")
    return start, end


# JSON lines ------------------------------------------------------------------------------------------------------


def _json_lines(path: Path, file: TextIO, options: PathOptions) -> Table:
    objects = _objects(path, file)
    sample = list(itertools.islice(objects, _SAMPLE))
    header = list(dict.fromkeys(key for _, record in sample for key in record))
    columns = columns_of(header, options)
    if sample and columns is None:
        raise DataError(f"{path}: found fields {header}, {_expected_columns(options)}")
    if columns is None:
        return Table(path, Columns((), 0, (0,)), Rows())
    cells = [[_text(record.get(name)) for name in header] for _, record in sample]
    columns = _chosen_labels(path, columns, cells, options)
    lines = (
        (number, [_text(record.get(name)) for name in header], record)
        for number, record in itertools.chain(sample, objects)
    )
    return Table(path, columns, _rows(path, columns, lines, options))


def _objects(path: Path, file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL, and their lines."""
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {line}: not readable as JSON ({error})") from None
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {line}: found {text.strip()[:80]}, expected an object")
        yield line, record


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _labels(path: Path, line: int, record: dict[str, Any], key: str) -> Cell:
    value = record.get(key)
    items = value if isinstance(value, list) else [value]
    for item in items:
        empty = item is None or item == ""
        if isinstance(item, bool) or not isinstance(item, (str, int, type(None))) or (empty and item is not value):
            raise DataError(f"{path}, line {line}: found {key} {json.dumps(value)[:80]}, expected text or a list of it")
    return tuple(str(item) for item in items) if isinstance(value, list) else _text(value).strip()
