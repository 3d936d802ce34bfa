"""Clips that `stats` and `pack` leave out, and the limit on unusable clips that all commands share.

Training replaces an unusable clip, see `dataset`, and lists it, see `traintest.bad_files`.
"""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

from ..errors import DataError, require
from ..runtime.files import write_atomically
from .manifest import Clip

logger = logging.getLogger(__name__)

MAX_BAD = 0.01
"""Share of the clips that may be unusable, unless another one is asked for."""
FLOOR = 3
"""Unusable clips that are always allowed, unless the share is 0 or they are more than a quarter of all."""


def most_bad(max_bad: float, clips: int) -> int:
    """How many of so many clips may be unusable: a share of them, with a floor for small data sets."""
    return max(int(max_bad * clips), min(FLOOR, clips // 4)) if max_bad else 0


class BadClips:
    """The clips that a command leaves out, each named once, and counted against the limit."""

    def __init__(self, source: Path, clips: int, max_bad: float) -> None:
        """max_bad: share of the clips. Raises ConfigError if it is none."""
        require(0 <= max_bad <= 1, "max_bad", max_bad, "a share from 0 to 1")
        self.source, self.clips, self.max_bad = source, clips, max_bad
        self.found: list[tuple[Clip, str]] = []

    def __len__(self) -> int:
        return len(self.found)

    def add(self, clip: Clip, error: DataError) -> None:
        """Leave out a clip. Raises DataError if it is one too many: the clip's own where none is allowed."""
        allowed = most_bad(self.max_bad, self.clips)
        if not allowed:
            raise error
        self.found.append((clip, str(error)))
        logger.warning("left out: %s", error)
        if len(self.found) > allowed:
            named = "; ".join(reason for _, reason in self.found[:3])
            raise DataError(
                f"{self.source}: {len(self.found)} of its {self.clips} clips are unusable, expected at most {allowed}"
                f" (--max-bad {self.max_bad:g}): {named}"
            )

    def write(self, file: Path) -> None:
        """The list as CSV, path and reason."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "reason"])
        writer.writerows((clip.path, reason.removeprefix(f"{clip.path}: ")) for clip, reason in self.found)
        write_atomically(file, text.getvalue().encode(errors="backslashreplace"))
