"""A readable record of what happened to every tensor of a source when it was loaded."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

Action = Literal["used", "converted", "ignored", "new"]
"""`used`: unchanged. `converted`: reshaped, joined or resized. `ignored`: not needed. `new`: not in the source."""

BLOCK_NUMBER = re.compile(r"(?<=blocks\.|\.layer\.)\d+(?=\.)")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One step of loading: tensors of the source, the network's tensors made from them, and how or why."""

    action: Action
    source: tuple[str, ...]
    """Names in the source; empty for a new tensor."""
    target: tuple[str, ...]
    """Names in the network; empty for an ignored tensor."""
    reason: str = ""
    """How it was converted, why it was ignored, or why it had to be created."""


@dataclasses.dataclass
class LoadReport:
    """What was loaded from where. `str(report)` is a table with one row for the same tensor of all blocks."""

    source: str
    """File, directory or Hub id, as given by the caller."""
    format: str
    """Name of the recognised format."""
    entries: list[Entry] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    """Settings that the source does not state, and where they come from."""

    def of(self, action: Action) -> dict[str, str]:
        """Tensors with this action and the reason for each; new ones by network name, others by source name."""
        return {
            name: entry.reason
            for entry in self.entries
            if entry.action == action
            for name in entry.source or entry.target
        }

    @property
    def ignored(self) -> dict[str, str]:
        """Tensors of the source that were not used, each with the reason."""
        return self.of("ignored")

    def __str__(self) -> str:
        rows: dict[tuple[str, str, str, str], int] = {}
        for entry in self.entries:
            key = (entry.action, _braced(entry.source), _braced(entry.target), entry.reason)
            rows[key] = rows.get(key, 0) + 1
        lines = [
            (action, f"{count} x" if count > 1 else "", source, target, reason)
            for (action, source, target, reason), count in rows.items()
        ]
        lines.insert(0, ("what", "", "in the source", "in the network", "how or why"))
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        table = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[4]]).rstrip()
            for line in lines
        ]
        return "\n".join([f"{self.source}: {self.format}", *table, *(f"note: {note}" for note in self.notes)])


def _braced(names: tuple[str, ...]) -> str:
    """`a.b.{query, key}.weight` for several names, `-` for none; block numbers become `*`."""
    names = tuple(BLOCK_NUMBER.sub("*", name) for name in names)
    if len(names) < 2:
        return names[0] if names else "-"
    parts = [name.split(".") for name in names]
    start = next((i for i, column in enumerate(zip(*parts, strict=False)) if len(set(column)) > 1), 0)
    ends = zip(*(reversed(part[start:]) for part in parts), strict=False)
    end = next((i for i, column in enumerate(ends) if len(set(column)) > 1), 0)
    middles = ", ".join(".".join(part[start : len(part) - end]) for part in parts)
    return ".".join([*parts[0][:start], f"{{{middles}}}", *parts[0][len(parts[0]) - end :]])
