"""Options for reading tables of clips."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ..errors import require

NO_SEPARATOR = "none"
"""The `label_separator` of tables in which every cell is one label, whatever characters it holds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Columns and cells of a table of clips (CSV, TSV, JSONL). Raises ConfigError for an unknown encoding."""

    path_column: str | None = None
    """Table column with the names of the audio files (default: path, file, filename, fname, ...). In a table without a
    header, the columns are called 1, 2, 3, ..."""
    label_column: str | None = None
    """Table column with the labels (default: label, labels, class, category, ...; names rather than numbers)."""
    label_separator: str | None = None
    """Separator between the labels in a table cell, such as `,` or `|`; `none` if each cell is one label (default:
    inferred from the cells, if unambiguous)."""
    path_prefix: str = ""
    """Text to put before every file name in a table."""
    path_suffix: str = ""
    """Text to append to every file name in a table, such as `.wav`."""
    encoding: str | None = None
    """Encoding of the table, such as latin-1 or cp1252 (default: UTF-8, or UTF-16 with a byte order mark)."""

    flag_prefix: ClassVar[str] = "--"

    def __post_init__(self) -> None:
        require(self.label_separator != "", self.flag("label_separator"), "nothing", "a text, or none")
        try:
            "".encode(self.encoding or "utf-8")
        except (LookupError, ValueError):
            require(False, self.flag("encoding"), self.encoding, "an encoding that Python knows, such as latin-1")

    def flag(self, name: str) -> str:
        """An option's name on the command line."""
        return self.flag_prefix + name.replace("_", "-")


USUAL = TableOptions()
