"""Expand what a user gives (files, folders, patterns and manifests) to audio files."""

from __future__ import annotations

import glob
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from .folders import audio_below
from .hugging_face import is_dataset
from .locate import on_disk
from .manifest import read_manifest, read_paths
from .remote_cache import as_local
from .shards import INDEX, ShardMember
from .table_options import ONLY_PATHS, PathOptions
from .tables import is_table
from .webdataset import tars_of

logger = logging.getLogger(__name__)


class Refused(NamedTuple):
    """Something typed that stands for no audio file, and why."""

    path: Path
    reason: str


class Sources(NamedTuple):
    """What the names stand for."""

    files: list[Path | ShardMember]
    refused: list[Refused]


def audio_sources(names: Sequence[Path], root: Path | None = None, options: PathOptions = ONLY_PATHS) -> Sources:
    """The audio files that these names stand for, in order, each once; and the names that stand for none.

    names: audio files; folders, which are searched with all folders below them, or hold shards; patterns with `*`, `?`
    or `[...]`, `**` for any folders; manifests and tables; any of these at an address. root: where relative paths of
    manifests start. options: how tables are read. A file that is not there is kept, to be reported with the others.
    """
    files: dict[Path | ShardMember, None] = {}
    refused: list[Refused] = []
    for name in map(Path, names):
        try:
            with as_local(name) as path:
                files.update(dict.fromkeys(_expanded(path, root, options)))
        except DataError as error:
            refused.append(Refused(name, str(error)))
    return Sources(list(files), refused)


def every_source(names: Sequence[Path], root: Path | None = None) -> list[Path | ShardMember]:
    """As `audio_sources`, for work that needs them all. Raises DataError for a name that stands for none."""
    files, refused = audio_sources(names, root)
    if refused:
        raise DataError(refused[0].reason)
    return files


def is_list(name: Path) -> bool:
    """Whether a name stands for a manifest or a table, by its suffix."""
    return name.suffix.lower() == ".json" or is_table(name)


def _expanded(name: Path, root: Path | None, options: PathOptions) -> list[Path | ShardMember]:
    if (name / INDEX).is_file():
        return read_paths(name)
    if tars_of(name) or is_dataset(name):  # labels and clips in one
        return [*read_manifest(name).clips.paths]
    if name.is_dir():
        return [*audio_below(name)]
    if is_list(name):
        try:
            return read_paths(name, root, options)
        except DataError as error:
            raise DataError(f"{error}; it is no audio file either" if name.exists() else str(error)) from None
    if name.exists() or not glob.has_magic(str(name)):
        return [Path(on_disk("", str(name)))]
    matches = sorted(Path(match) for match in glob.glob(str(name), recursive=True))
    if not matches:
        raise DataError(f"{name}: found no file that matches this pattern")
    return [source for match in matches for source in (audio_below(match) if match.is_dir() else [match])]
