"""From what is typed to audio files: files, folders, patterns and manifests."""

from __future__ import annotations

import glob
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from .manifest import AUDIO_SUFFIXES, distinct_labels, read_manifest
from .shards import INDEX, ShardMember

logger = logging.getLogger(__name__)

MANIFEST_SUFFIXES = frozenset({".csv", ".json"})


def audio_sources(names: Sequence[Path], root: Path | None = None) -> list[Path | ShardMember]:
    """The audio files that these names stand for, in order, each once.

    names: audio files; folders, which are searched with all folders below them, or hold shards; patterns with `*`, `?`
    or `[...]`, `**` for any folders; manifests (CSV or JSON). root: where relative paths of manifests start. A file
    that is not there is kept, to be reported with the others. Raises DataError for a folder, pattern or manifest that
    holds none.
    """
    return list(dict.fromkeys(source for name in names for source in _expanded(Path(name), root)))


def _expanded(name: Path, root: Path | None) -> list[Path | ShardMember]:
    if name.suffix.lower() in MANIFEST_SUFFIXES or (name / INDEX).is_file():
        labels = None if name.is_dir() else distinct_labels(name)
        return [clip.path for clip in read_manifest(name, labels, root).clips]
    if name.is_dir():
        return list(_in_folder(name))
    if name.exists() or not glob.has_magic(str(name)):
        return [name]
    matches = sorted(Path(match) for match in glob.glob(str(name), recursive=True))
    if not matches:
        raise DataError(f"{name}: found no file that matches this pattern")
    return [source for match in matches for source in (_in_folder(match) if match.is_dir() else [match])]


def _in_folder(folder: Path) -> list[Path]:
    """The audio files below a folder; how many other files there are is logged."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    shown = [path for path in files if not any(part[0] == "." for part in path.relative_to(folder).parts)]
    audio = [path for path in shown if path.suffix.lower() in AUDIO_SUFFIXES]
    if others := Counter(
        path.suffix.lower() or "no ending" for path in shown if path.suffix.lower() not in AUDIO_SUFFIXES
    ):
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        logger.info("%s: %d files are no audio and left out (%s)", folder, others.total(), kinds)
    if hidden := len(files) - len(shown):
        logger.info("%s: %d hidden files are left out", folder, hidden)
    if not audio:
        raise DataError(f"{folder}: found no audio files ({', '.join(sorted(AUDIO_SUFFIXES))}) in it or below")
    return audio
