"""How tables of clips are read, as far as a user has to say."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ..errors import require

NO_SEPARATOR = "none"
"""The `label_separator` of tables with one label in a cell, whatever it holds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Columns and cells of a table of clips (CSV, TSV, JSONL). Raises ConfigError for an unknown encoding."""

    path_column: str | None = None
    """Column of a table that holds the audio files' names (default: path, file, filename, fname, ...). Columns of a
    table without a header are called 1, 2, 3, ..."""
    label_column: str | None = None
    """Column of a table that holds the labels (default: label, labels, class, category, ...; names before numbers)."""
    label_separator: str | None = None
    """What parts the labels in a cell of a table, such as `,` or `|`; `none` if a cell is one label (default: told
    by the cells, if it is plain)."""
    path_prefix: str = ""
    """What a table leaves out in front of every file name."""
    path_suffix: str = ""
    """What a table leaves out after every file name, such as `.wav`."""
    encoding: str | None = None
    """Encoding of a table, such as latin-1 or cp1252 (default: UTF-8, or UTF-16 with a byte order mark)."""

    flag_prefix: ClassVar[str] = "--"

    def __post_init__(self) -> None:
        require(self.label_separator != "", self.flag("label_separator"), "nothing", "a text, or none")
        try:
            "".encode(self.encoding or "utf-8")
        except (LookupError, ValueError):
            require(False, self.flag("encoding"), self.encoding, "an encoding that Python knows, such as latin-1")

    def flag(self, name: str) -> str:
        """An option as the command line calls it."""
        return self.flag_prefix + name.replace("_", "-")


USUAL = TableOptions()
