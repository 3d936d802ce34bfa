"""The unusable clips of a run: each named once, counted against a limit."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable
from pathlib import Path

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
        self.reasons: dict[int, str] = {}

    def note(self, failures: Iterable[Failure], writes: bool = True) -> None:
        """Take in failures. Raises DataError at the first if `strict`, or beyond the share `max_bad` of all clips."""
        new = {failure.clip: failure.reason for failure in failures if failure.clip not in self.reasons}
        if not new:
            return
        if self.config.strict:
            raise DataError(next(iter(new.values())))
        self.reasons |= new
        for reason in new.values():
            logger.warning("replaced: %s", reason)
        if writes:
            self._write()
        allowed = int(self.config.max_bad * len(self.manifest))
        if len(self.reasons) > allowed:
            named = "; ".join(list(self.reasons.values())[:3])
            raise DataError(
                f"{self.manifest.source}: {len(self.reasons)} of {len(self.manifest)} clips are unusable, expected at"
                f" most {allowed} (data.max_bad {self.config.max_bad:g}); {self.file} lists them: {named}"
            )

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "reason"])
        for clip, reason in self.reasons.items():
            path = str(self.manifest.clips[clip].path)
            writer.writerow([path, reason.removeprefix(f"{path}: ")])
        write_atomically(self.file, text.getvalue().encode(errors="backslashreplace"))
