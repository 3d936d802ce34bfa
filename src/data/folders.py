"""Read folders of classes: one sub-folder of audio files per class."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from ..errors import DataError
from .labels import IN_TABLE, composed, is_unicode, unknown_label
from .suffixes import AUDIO_SUFFIXES, TABLE_SUFFIXES
from .table_options import USUAL, PathOptions

logger = logging.getLogger(__name__)

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Names of the folder of each split, in any case."""


class _Files(NamedTuple):
    """The files in a folder and all folders below it, except hidden ones."""

    audio: list[Path]
    others: Counter[str]
    """Number of files with other suffixes than audio files have, by suffix."""


def read_class_folders(folder: Path, options: PathOptions = USUAL) -> dict[str, list[Path]]:
    """The files of each class, by name in the order of the alphabet; what is left out is logged.

    Raises DataError, with the folder's name, for a folder of splits, one without any clip, or a name that is not UTF-8.
    """
    if splits := split_root(folder):
        what = "folders" if next(iter(splits.values())).is_dir() else "tables"
        given = options.of_splits(splits)
        raise DataError(f"{folder}: found {what} for {', '.join(splits)}, expected one folder per class; give {given}")
    places, loose = _class_folders(folder)
    classes: dict[str, list[Path]] = {}
    others: Counter[str] = Counter()
    for place in places:
        files = _scan(place)
        others += files.others
        classes.setdefault(composed(place.name), []).extend(files.audio)
    if not classes:
        hint = f", and {len(loose)} audio files beside them" if loose else ""
        raise DataError(f"{folder}: found no sub-folders{hint}, expected one per class with audio files in it")
    if not any(classes.values()):
        raise DataError(f"{folder}: found no audio files in its sub-folders ({_kinds(others) or 'they are empty'})")
    _log_left_out(folder, others, loose)
    return dict(sorted(classes.items()))


def check_classes(
    folder: Path, classes: Mapping[str, list[Path]], known: Mapping[str, int] | None, whose: str = IN_TABLE
) -> None:
    """Raise DataError, with the folder's name, for an empty class, a single one, or one that is not known.

    known: index of the names and ids of given classes; then a class may be empty, with a warning, or the only one.
    whose: where these are from.
    """
    for name, files in classes.items():
        if not files and known is None:
            raise DataError(
                f"{folder / name}: found no audio files in it, expected at least one in each class; remove the folder"
                f" if {name!r} is no class, or begin its name with _"
            )
        if not files:
            logger.warning("%s: found no audio files in it", folder / name)
        elif known is not None and name not in known:
            raise unknown_label(folder / name, name, known, whose)
    if known is None and len(classes) == 1:
        name = next(iter(classes))
        nested = f" (if it holds the classes, give {folder / name})" if _sub_folders(folder / name) else ""
        raise DataError(f"{folder}: found one class, {name!r}{nested}, expected a sub-folder for each of at least two")


def split_root(folder: Path) -> dict[str, Path] | None:
    """Tables or folders `train`, `val` and `test` in a folder; else None.

    Folders count if there are no others, and each has classes in it. The keys are these names, whatever the splits are
    called; `train` must be there, and of folders another one. Raises DataError if a folder cannot be read or two are
    for the same split.
    """
    names = {name: kind for kind, names in SPLITS.items() for name in names}
    splits: dict[str, Path] = {}
    for name in _names(folder):
        stem, suffix = os.path.splitext(name.casefold())
        if suffix in TABLE_SUFFIXES and stem in names and (folder / name).is_file():
            splits.setdefault(names[stem], folder / name)
    if "train" in splits:
        return {kind: splits[kind] for kind in SPLITS if kind in splits}
    splits.clear()
    for place in _sub_folders(folder):
        kind = names.get(place.name.casefold())
        if kind is None or not _sub_folders(place) or any(map(_is_audio, _names(place))):
            return None
        if kind in splits:
            raise DataError(f"{folder}: found {splits[kind].name} and {place.name}, expected one folder for {kind}")
        splits[kind] = place
    return {kind: splits[kind] for kind in SPLITS if kind in splits} if "train" in splits and len(splits) > 1 else None


def audio_below(folder: Path) -> list[Path]:
    """All audio files in a folder and below; other files are logged. Raises DataError if there are no audio files."""
    files = _scan(folder)
    if not files.audio:
        rest = f"only other ones: {_kinds(files.others)}" if files.others else "nothing else"
        raise DataError(f"{folder}: found no audio files in it or below ({rest})")
    _log_left_out(folder, files.others, [])
    return files.audio


def _class_folders(folder: Path) -> tuple[list[Path], list[str]]:
    """The folders that are classes, and the names of audio files beside them. Folders with a leading _ are logged."""
    classes, loose = [], []
    for name in _names(folder):
        place = folder / name
        if not place.is_dir():
            if os.path.islink(place) and not place.exists() and not _is_audio(name):
                raise DataError(f"{place}: found a broken link, expected a folder or none; remove or mend it")
            loose += [name] if _is_audio(name) else []
        elif name.startswith("_"):
            logger.info("%s: not taken for a class (%d audio files)", place, len(_scan(place).audio))
        elif not is_unicode(name):
            raise DataError(f"{folder}: found the folder {os.fsencode(name)!r}, whose name is not UTF-8; rename it")
        else:
            classes.append(place)
    return classes, loose


def _log_left_out(folder: Path, others: Counter[str], loose: list[str]) -> None:
    if others:
        total = others.total()
        logger.info("%s: %d files are left out, not audio by their names (%s)", folder, total, _kinds(others))
    if loose:
        logger.warning("%s: %d audio files lie in no class and are left out (%s)", folder, len(loose), loose[0])


def _kinds(others: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))


def _scan(folder: Path) -> _Files:
    """All files below a folder, sorted by path. Links are followed; a broken one stays, for decoding to refuse."""
    scanned, visited = _Files([], Counter()), set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(place)
        if real in visited:  # links may form a circle
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(files):
            if _is_audio(name):
                scanned.audio.append(Path(place, name))
            elif name[0] != ".":
                scanned.others[os.path.splitext(name)[1].lower() or "without suffix"] += 1
    return _Files(sorted(scanned.audio), scanned.others)


def _is_audio(name: str) -> bool:
    return name[0] != "." and os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES  # ._x.wav is metadata of macOS


def _sub_folders(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder) if name[0] != "_" and (folder / name).is_dir()]


def _names(folder: Path) -> list[str]:
    """The sorted names in a folder, without hidden ones."""
    try:
        return sorted(name for name in os.listdir(folder) if name[0] != ".")
    except OSError as error:
        _unreadable(error)


def _unreadable(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: not readable as a folder of clips ({error.strerror})") from None
