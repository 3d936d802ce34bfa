"""Clips that `stats` and `pack` leave out, and the limit on unusable clips that all commands share.

Training replaces an unusable clip (see `dataset`) and lists it (see `traintest.bad_files`).
"""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

from ..errors import DataError, require
from ..runtime.files import write_atomically
from .clips import Clip

logger = logging.getLogger(__name__)

MAX_BAD = 0.01
"""Default share of the clips that may be unusable."""
FLOOR = 3
"""This many unusable clips are always allowed, unless the share is 0 or they are more than a quarter of all clips."""


def most_bad(max_bad: float, clips: int) -> int:
    """How many of the clips may be unusable: the share `max_bad`, with a floor for small data sets."""
    return max(int(max_bad * clips), min(FLOOR, clips // 4)) if max_bad else 0


class BadClips:
    """The clips that a command leaves out: each is logged, and counted against the limit."""

    def __init__(self, source: Path, clips: int, max_bad: float) -> None:
        """max_bad: share of the clips that may be unusable. Raises ConfigError if it is not from 0 to 1."""
        require(0 <= max_bad <= 1, "max_bad", max_bad, "a share from 0 to 1")
        self.source, self.clips, self.max_bad = source, clips, max_bad
        self.left_out: list[tuple[Clip, str]] = []

    def __len__(self) -> int:
        return len(self.left_out)

    def add(self, clip: Clip, error: DataError) -> None:
        """Leave out a clip. Raises DataError if that is one too many; if none is allowed, the clip's own error."""
        allowed = most_bad(self.max_bad, self.clips)
        if not allowed:
            raise error
        self.left_out.append((clip, str(error)))
        logger.warning("left out: %s", error)
        if len(self) > allowed:
            examples = "; ".join(reason for _, reason in self.left_out[:3])
            raise DataError(
                f"{self.source}: {len(self)} of its {self.clips} clips are unusable, expected at most {allowed}"
                f" (--max-bad {self.max_bad:g}): {examples}"
            )

    def write(self, file: Path) -> None:
        """Write the list as CSV with path and reason."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "reason"])
        writer.writerows((clip.path, reason.removeprefix(f"{clip.path}: ")) for clip, reason in self.left_out)
        write_atomically(file, text.getvalue().encode(errors="backslashreplace"))
