"""Split the label cells of a table into labels: one, several with a separator, or a list as Python prints it."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Container, Iterable, Mapping

from ..errors import DataError
from .labels import composed, is_unicode
from .rows import Cell
from .table_options import NO_SEPARATOR, TableOptions
from .tables import Table

logger = logging.getLogger(__name__)

SEPARATORS = (",", ";", "|")
_ID = re.compile(r"/[mgt]/\S+|[0-9]+")
_NOT_A_LABEL = frozenset({"nan", "<na>"})
_NUMPY_LIST = re.compile(r"""["']\s+["']""")


def read_labels(
    table: Table, options: TableOptions, known: Mapping[str, int] | None = None
) -> dict[Cell, tuple[str, ...]]:
    """The labels of every distinct cell of the label column; none for an empty cell.

    known: ids and names of given classes; a cell is then split so that the parts are known. Raises DataError, with the
    line, for `nan`, an empty label between separators, and cells that could hold either one label or several.
    """
    lines = table.rows.first_lines
    read: dict[Cell, tuple[str, ...]] = {}
    texts: list[str] = []
    for cell, line in lines.items():
        if isinstance(cell, tuple):
            read[cell] = cell
        elif (items := _python_list(table, cell, line)) is not None:
            read[cell] = items
        elif cell:
            texts.append(composed(cell))
        else:
            read[cell] = ()
    by_table = None if options.label_separator else known
    separator = _separator(table, texts, lines, options) if by_table is None else None
    for cell, line in lines.items():
        if isinstance(cell, str) and cell not in read:
            text = composed(cell)
            read[cell] = _split(text, separator) if by_table is None else _split_by_known(text, by_table)
        read[cell] = tuple(dict.fromkeys(composed(label.strip()) for label in read[cell]))
        _check(table, cell, read[cell], line, options)
    return read


def _check(table: Table, cell: Cell, labels: Iterable[str], line: int, options: TableOptions) -> None:
    for label in labels:
        if not label or not is_unicode(label):
            raise DataError(
                f"{table.source}, line {line}: found label {cell!r} with an empty one in it, expected a name on either"
                f" side of each separator ({options.flag('label_separator')} {NO_SEPARATOR} if the cell is one label)"
            )
        if label.casefold() in _NOT_A_LABEL:
            raise DataError(
                f"{table.source}, line {line}: found label {label!r}, which pandas writes for a missing value;"
                " expected a name, or an empty cell for a clip without labels"
            )


def _python_list(table: Table, cell: str, line: int) -> tuple[str, ...] | None:
    """The items of a list that pandas wrote as text, such as ['a', 'b']; None if the cell is not such a list."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    if _NUMPY_LIST.search(cell):
        raise DataError(f"{table.source}, line {line}: found label {cell!r}, a list of NumPy, expected commas in it")
    try:
        items = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None  # a label such as [noise]
    return tuple(map(str, items)) if all(isinstance(item, (str, int)) for item in items) else None


def _split(text: str, separator: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(separator)) if separator is not None else (text,)


def _split_by_known(text: str, known: Mapping[str, int]) -> tuple[str, ...]:
    """The cell as one known label, or split at the separator that gives the highest share of known ones."""
    if text in known:
        return (text,)
    ways = [parts for parts in (_split(text, separator) for separator in SEPARATORS) if len(parts) > 1]
    return max(ways, key=lambda parts: sum(part in known for part in parts) / len(parts), default=(text,))


def _separator(table: Table, texts: Iterable[str], lines: Mapping[Cell, int], options: TableOptions) -> str | None:
    """The separator of this column: the option, or inferred from the cells. Raises DataError if it is ambiguous."""
    if options.label_separator is not None:
        return None if options.label_separator == NO_SEPARATOR else options.label_separator
    texts = list(texts)
    marks = [mark for mark in (";", "|") if any(mark in text for text in texts)]
    with_comma = [text for text in texts if "," in text]
    lists = {text for text in with_comma if _is_list(text)}
    if len(marks) > 1 or (marks and lists):
        where = next(text for text in texts if marks[0] in text)
        raise _ambiguous(table, where, lines, options)
    if marks:
        logger.info("%s: labels are separated by %r", table.source, marks[0])
        return marks[0]
    # A comma and a space may also be part of a name ("Male speech, man speaking"): such a cell is a list only if every
    # part is a label elsewhere too.
    alone = {text for text in texts if "," not in text} | {part for text in lists for part in _split(text, ",")}
    for text in with_comma:
        if text not in lists and not _all_in(_split(text, ","), alone):
            raise _ambiguous(table, text, lines, options)
    return "," if with_comma else None


def _is_list(text: str) -> bool:
    return ", " not in text or all(_ID.fullmatch(part) for part in _split(text, ","))


def _all_in(parts: Iterable[str], known: Container[str]) -> bool:
    return all(part in known for part in parts)


def _ambiguous(table: Table, text: str, lines: Mapping[Cell, int], options: TableOptions) -> DataError:
    line = next(line for cell, line in lines.items() if isinstance(cell, str) and composed(cell) == text)
    flag = options.flag("label_separator")
    return DataError(
        f"{table.source}, line {line}: found label {text!r}, which may be one label or several; say which: {flag}"
        f" {NO_SEPARATOR} for one, {flag} ',' (or ';' or '|') for several"
    )
