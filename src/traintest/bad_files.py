"""The unusable clips of a run: each named once, counted against a limit; and those that look wrong."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..data.bad_clips import most_bad
from ..data.dataset import Failure
from ..data.manifest import Manifest
from ..data.suspicion import describe_suspicious
from ..errors import DataError
from ..runtime.files import write_atomically
from .options import DataConfig

logger = logging.getLogger(__name__)


class BadFiles:
    """Keeps `bad_files.csv` (path, reason), and stops a run that has too many of them."""

    def __init__(self, manifest: Manifest, config: DataConfig, file: Path) -> None:
        self.manifest, self.config, self.file = manifest, config, file
        self.reasons: dict[str, str] = {}
        """Why a clip cannot be used, by its path."""
        self.suspicious: dict[str, str] = {}
        """What looks wrong about clips that are used, by their path."""

    def note(self, failures: Iterable[Failure], writes: bool = True) -> None:
        """Take in failures. Raises DataError at the first if `strict`, or beyond `most_bad` of all clips."""
        new = self._new(failures, self.reasons)
        if not new:
            return
        if self.config.strict:
            raise DataError(next(iter(new.values())))
        self.reasons |= new
        for reason in new.values():
            logger.warning("replaced: %s", reason)
        if writes:
            self._write()
        allowed = most_bad(self.config.max_bad, len(self.manifest))
        if len(self.reasons) > allowed:
            examples = "; ".join(list(self.reasons.values())[:3])
            raise DataError(
                f"{self.manifest.source}: {len(self.reasons)} of {len(self.manifest)} clips are unusable, expected at"
                f" most {allowed} (data.max_bad {self.config.max_bad:g}); {self.file} lists them: {examples}"
            )

    def suspect(self, suspicions: Iterable[Failure], writes: bool = True) -> None:
        """Take in clips that are used and look wrong; they are listed now, and logged by `tell_suspicious`."""
        new = self._new(suspicions, self.suspicious)
        self.suspicious |= new
        if new and writes:
            self._write()

    def _new(self, failures: Iterable[Failure], known: Mapping[str, str]) -> dict[str, str]:
        named = {str(self.manifest.clips[failure.clip].path): failure.reason for failure in failures}
        return {path: reason for path, reason in named.items() if path not in known}

    def tell_suspicious(self) -> None:
        """Log how many clips look wrong, and three of them."""
        if self.suspicious:
            logger.warning(describe_suspicious(list(self.suspicious.values()), self.file))

    def state(self) -> dict[str, dict[str, str]]:
        """What is saved of it."""
        return {"bad_files": self.reasons, "suspicious": self.suspicious}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up those of an earlier start, as far as the clips are still in the data.

        Older states have indices instead of paths; those clips are named again when they are drawn again. Raises
        ValueError if a reason is no text.
        """
        lists = {"bad_files": self.reasons, "suspicious": self.suspicious}
        named = {path for name in lists for path in saved.get(name, {})}
        paths = named.intersection(map(str, self.manifest.clips.paths)) if named else set()
        for name, known in lists.items():
            there = {path: reason for path, reason in saved.get(name, {}).items() if path in paths}
            if not all(isinstance(reason, str) for reason in there.values()):
                raise ValueError(f"{name}: expected a text for every path")
            known |= there

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "reason"])
        for kind, clips in (("", self.reasons), ("suspicious: ", self.suspicious)):
            for path, reason in clips.items():
                writer.writerow([path, kind + reason.removeprefix(f"{path}: ")])
        write_atomically(self.file, text.getvalue().encode(errors="backslashreplace"))
