"""Read AST's manifests: JSON `{"data": [{"wav": path, "labels": "mid,mid"}, ...]}`.

As Python objects, millions of entries take gigabytes. So the list is parsed some entries at a time; if anything is
unusual, the whole file is parsed at once, which finds what is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from .labels import is_path, reason_of
from .rows import Rows

_START = re.compile(r'\s*\{\s*"data"\s*:\s*\[\s*(?=\{)')
_BETWEEN = re.compile(r"\}\s*,\s*(?=\{)")
_END = re.compile(r"\s*\}\s*")
_AT_ONCE = 1 << 15
"""Characters that are parsed together."""


def read_entries(path: Path) -> Rows:
    """The entries of a manifest; the line of a row is its number in the list. Raises DataError that names the entry."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return _rows_in_parts(text) or _rows(path, json.loads(text))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as a manifest ({reason_of(error)})") from None


def _rows_in_parts(text: str) -> Rows | None:
    """The entries, parsed part by part; None if that finds anything but correct entries."""
    rows = Rows()
    try:
        for entries in _parts(text):
            wavs, labels = [entry["wav"] for entry in entries], [entry["labels"] for entry in entries]
            if {str} != set(map(type, wavs + labels)) or not all(wavs) or not is_path("".join(wavs)):
                return None
            rows.add(range(len(rows), len(rows) + len(wavs)), wavs, labels)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return rows


def _parts(text: str) -> Iterator[Sequence[Any]]:
    """The list, in parts. Raises ValueError if the text is not an object with nothing but this list, or hard to part.

    A part begins where an entry does. If what follows up to some brace is a complete list of values, that brace is
    where an entry ends, and not inside one or inside a text: there is only one way to read JSON from its start.
    """
    if not (start := _START.match(text)):
        raise ValueError
    place = start.end()
    while between := _BETWEEN.search(text, place + _AT_ONCE):
        yield json.loads(f"[{text[place : between.start() + 1]}]")
        place = between.end()
    end = text.rindex("]")
    if not _END.fullmatch(text, end + 1):
        raise ValueError
    yield json.loads(f"[{text[place:end]}]")


def _rows(path: Path, content: Any) -> Rows:
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list) or not data:
        raise DataError(
            f'{path}: expected {{"data": [{{"wav": path, "labels": "id,id"}}, ...]}} with at least one entry'
        )
    rows = Rows()
    for number, entry in enumerate(data):
        where = f"{path}, data[{number}]"
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in ("wav", "labels")):
            raise DataError(f"{where}: found {repr(entry)[:120]}, expected the text fields wav and labels")
        wav = entry["wav"]
        if not wav or not is_path(wav):
            raise DataError(f"{where}: found wav {wav[:120]!r}, which no file can be called")
        rows.add([number], [wav], [entry["labels"]])
    return rows
