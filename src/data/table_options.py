"""Options for reading tables of clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from ..errors import ConfigError, require

NO_SEPARATOR = "none"
"""The `label_separator` of tables in which every cell is one label, whatever characters it holds."""


class Condition(NamedTuple):
    """Which rows of a table are read."""

    column: str
    values: tuple[str, ...]
    negated: bool
    """Whether rows with these values are left out."""

    @classmethod
    def parse(cls, text: str, option: str) -> Condition:
        """Read COLUMN=VALUE,VALUE,... or COLUMN!=VALUE,... Raises ConfigError, naming the option."""
        column, equals, values = text.partition("=")
        negated = column.endswith("!")
        column, alternatives = column.removesuffix("!").strip(), tuple(value.strip() for value in values.split(","))
        if not (equals and column and all(alternatives)):
            raise ConfigError(f"{option}: found {text!r}, expected COLUMN=VALUE or COLUMN=VALUE,VALUE,...")
        return cls(column, alternatives, negated)

    def __str__(self) -> str:
        return f"{self.column}{'!' * self.negated}={','.join(self.values)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathOptions:
    """Which files a table (CSV, TSV, JSONL) names. Raises ConfigError for an unknown encoding or a bad condition."""

    path_column: str | None = None
    """Column of a table that holds the audio files' names (default: path, file, filename, fname, ...). Columns of a
    table without a header are called 1, 2, 3, ..."""
    path_prefix: str = ""
    """Text to put before every file name in a table."""
    path_suffix: str = ""
    """What a table leaves out after every file name, such as `.wav`."""
    where: tuple[str, ...] = ()
    """Rows of a table that are read, such as fold=1,2,3 or split!=test; several conditions must all hold."""
    encoding: str | None = None
    """Encoding of the table, such as latin-1 or cp1252 (default: UTF-8, or UTF-16 with a byte order mark)."""

    flag_prefix: ClassVar[str] = "--"

    def __post_init__(self) -> None:
        self.conditions  # noqa: B018
        try:
            "".encode(self.encoding or "utf-8")
        except (LookupError, ValueError):
            require(False, self.flag("encoding"), self.encoding, "an encoding that Python knows, such as latin-1")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What `where` says."""
        return tuple(Condition.parse(text, self.flag("where")) for text in self.where)

    def flag(self, name: str) -> str:
        """An option's name on the command line."""
        return self.flag_prefix + name.replace("_", "-")

    def given(self) -> list[str]:
        """The options that were set, as the command line calls them."""
        known = (field for kind in (PathOptions, TableOptions) for field in dataclasses.fields(kind))
        names = dict.fromkeys(field.name for field in known)
        usual = TableOptions()
        return [self.flag(name) for name in names if getattr(self, name, None) not in (None, getattr(usual, name))]

    def of_splits(self, splits: Mapping[str, Path]) -> str:
        """The splits (train, val, test) in a folder, as a command takes them."""
        return str(next(iter(splits.values())))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptions(PathOptions):
    """Columns and cells of a table of clips (CSV, TSV, JSONL). Raises ConfigError as `PathOptions`."""

    label_column: str | None = None
    """Column of a table that holds the labels (default: label, labels, class, category, ...; names before numbers). Of
    numbers to predict (loss mse) one or several, such as loudness,pitch (default: every column of numbers)."""
    label_separator: str | None = None
    """What parts the labels in a cell of a table, such as `,` or `|`; `none` if a cell is one label (default: told
    by the cells, if it is plain)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.label_separator != "", self.flag("label_separator"), "nothing", "a text, or none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberOptions(TableOptions):
    """How a table is read whose labels are numbers to predict, in one or several columns; see `of`."""

    columns: tuple[str, ...] = ()
    """Names of the columns; empty for every column of numbers."""
    prefix: str = "--"

    @classmethod
    def of(cls, options: TableOptions, names: Sequence[str] = ()) -> NumberOptions:
        """These options, for these columns: those of a model, or that `label_column` names, or every one of numbers.

        Raises ConfigError if the options name other columns than the model's, or separate labels.
        """
        flag, column = options.flag("label_column"), options.label_column
        asked = tuple(part.strip() for part in column.split(",")) if column else ()
        require(all(asked) and len(set(asked)) == len(asked), flag, column, "distinct names of columns, such as a,b")
        if asked and names and set(asked) != set(names):
            raise ConfigError(f"{flag}: found {column}, expected the targets of the model or run, {','.join(names)}")
        separator = options.flag("label_separator")
        require(options.label_separator is None, separator, options.label_separator, "none beside numbers")
        kept = {field.name: getattr(options, field.name) for field in dataclasses.fields(TableOptions)}
        return cls(**kept, columns=tuple(names) or asked, prefix=options.flag_prefix)

    def flag(self, name: str) -> str:
        return self.prefix + name.replace("_", "-")


USUAL = TableOptions()
ONLY_PATHS = PathOptions()
