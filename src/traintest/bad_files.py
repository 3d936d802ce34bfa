"""The unusable clips of a run: each named once, counted against a limit."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..data.bad_clips import allowed_bad
from ..data.dataset import Failure
from ..data.manifest import Manifest
from ..errors import DataError
from ..runtime.files import write_atomically
from .config import DataConfig

logger = logging.getLogger(__name__)


class BadFiles:
    """Keeps `bad_files.csv` (path, reason), and stops a run that has too many of them."""

    def __init__(self, manifest: Manifest, config: DataConfig, file: Path) -> None:
        self.manifest, self.config, self.file = manifest, config, file
        self.reasons: dict[str, str] = {}
        """By the clip's path."""

    def note(self, failures: Iterable[Failure], writes: bool = True) -> None:
        """Take in failures. Raises DataError at the first if `strict`, or beyond what `max_bad` allows of all clips."""
        named = {str(self.manifest.clips[failure.clip].path): failure.reason for failure in failures}
        new = {path: reason for path, reason in named.items() if path not in self.reasons}
        if not new:
            return
        if self.config.strict:
            raise DataError(next(iter(new.values())))
        self.reasons |= new
        for reason in new.values():
            logger.warning("replaced: %s", reason)
        if writes:
            self._write()
        allowed = allowed_bad(self.config.max_bad, len(self.manifest))
        if len(self.reasons) > allowed:
            some = "; ".join(list(self.reasons.values())[:3]) + self._hint()
            raise DataError(
                f"{self.manifest.source}: {len(self.reasons)} of {len(self.manifest)} clips are unusable, expected at"
                f" most {allowed} (data.max_bad {self.config.max_bad:g}); {self.file} lists them: {some}"
            )

    def _hint(self) -> str:
        first = [clip.path for clip in self.manifest.clips[:100] if isinstance(clip.path, Path)]
        if not first or any(path.exists() for path in first):
            return ""
        return f"; none of its first {len(first)} clips is there: --data.root says where relative paths start"

    def restore(self, saved: Mapping[Any, str]) -> None:
        """Take up those of an earlier start, as far as the clips are still in the data.

        Older states have indices instead of paths; those clips are named again when they are drawn again.
        """
        if saved:
            there = {str(clip.path) for clip in self.manifest.clips}
            self.reasons = {path: reason for path, reason in saved.items() if path in there}

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "reason"])
        for path, reason in self.reasons.items():
            writer.writerow([path, reason.removeprefix(f"{path}: ")])
        write_atomically(self.file, text.getvalue().encode(errors="backslashreplace"))
