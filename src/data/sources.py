"""From what is typed to audio files: files, folders, patterns and manifests."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from .folders import audio_below
from .hugging_face import is_dataset
from .manifest import distinct_labels, read_manifest
from .shards import INDEX, ShardMember
from .tables import is_table
from .webdataset import tars_of


def audio_sources(names: Sequence[Path], root: Path | None = None) -> list[Path | ShardMember]:
    """The audio files that these names stand for, in order, each once.

    names: audio files; folders, which are searched with all folders below them, or hold shards; patterns with `*`, `?`
    or `[...]`, `**` for any folders; manifests and tables. root: where relative paths of manifests start. A file
    that is not there is kept, to be reported with the others. Raises DataError for a folder, pattern or manifest that
    holds none.
    """
    return list(dict.fromkeys(source for name in names for source in _expanded(Path(name), root)))


def _expanded(name: Path, root: Path | None) -> list[Path | ShardMember]:
    embedded = (name / INDEX).is_file() or bool(tars_of(name)) or is_dataset(name)  # labels and clips in one
    if embedded or name.suffix.lower() == ".json" or is_table(name):
        labels = None if embedded else distinct_labels(name)
        return [clip.path for clip in read_manifest(name, labels, root).clips]
    if name.is_dir():
        return [*audio_below(name)]
    if name.exists() or not glob.has_magic(str(name)):
        return [name]
    matches = sorted(Path(match) for match in glob.glob(str(name), recursive=True))
    if not matches:
        raise DataError(f"{name}: found no file that matches this pattern")
    return [source for match in matches for source in (audio_below(match) if match.is_dir() else [match])]
