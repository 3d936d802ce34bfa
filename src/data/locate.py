"""Locate the audio files of a table: at the paths in it, or in a folder nearby.

Public data sets keep their tables in one folder (`meta`, `metadata`, `FSD50K.ground_truth`) and the audio in another,
often in sub-folders per fold, and often leave out the suffixes. If the names are not paths themselves, some clips are
looked for to find a rule for all of them, which is logged. If two rules fit equally well, that is an error.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from .arrays import Texts
from .clips import Paths
from .rows import Row, Rows
from .suffixes import AUDIO_SUFFIXES, SUFFIX_ORDER
from .table_options import PathOptions
from .tables import Table
from .youtube import youtube_stems

logger = logging.getLogger(__name__)

AUDIO_FOLDERS = ("audio", "wav", "wavs", "clips", "sounds", "recordings", "data", "dataset", "files")
"""Folders beside a table to look for audio in, in this order, before any other."""
_SPLITS = frozenset({"train", "dev", "val", "valid", "validation", "test", "eval", "evaluation"})
_PROBES = 50
"""Number of clips to look for when seeking a rule."""
_MOST_FOLDERS = 200
_MOST_RULES = 10


class Rule(NamedTuple):
    """How to make a file's path from a row."""

    folder: str
    spelling: int = 0
    """Which spelling of the name to use, see `_spellings`."""
    suffix: str | None = None
    """Replaces the name's audio suffix, or is appended if it has none."""
    group: int | None = None
    """Which of the row's groups names a sub-folder; -1: the label does."""
    group_format: str = "{}"

    def place(self, row: Row) -> str:
        """The path of a row's file."""
        name = row.name
        if self.spelling or row.span is not None:
            spelled = _spellings(row)
            name = spelled[min(self.spelling, len(spelled) - 1)]
        if self.suffix is not None:
            stem, old_suffix = os.path.splitext(name)
            name = (stem if old_suffix.lower() in AUDIO_SUFFIXES else name) + self.suffix
        if self.group is not None:
            value = row.groups[self.group] if self.group >= 0 else str(row.label)
            name = os.path.join(self.group_format.format(value.replace("/", "_")), name)
        return on_disk(self.folder, name)


def on_disk(folder: str, name: str) -> str:
    """The path of a file, its name in the form of Unicode, composed or not, in which it is on the disk."""
    path = os.path.join(folder, name)
    if name.isascii() or os.path.exists(path):
        return path
    forms = (os.path.join(folder, unicodedata.normalize(form, name)) for form in ("NFC", "NFD"))
    return next(filter(os.path.exists, forms), path)


def in_folder(folder: str, names: Sequence[str]) -> Paths:
    """The files of these names in a folder, each as `on_disk` finds it."""
    absolute = bool(names) and all(name[:1] == "/" for name in names)
    # Each between slashes, so that what Path spells otherwise has a part that is empty or a dot.
    joined = "".join((*names, "/")) if absolute else "/".join(("", *names, ""))
    if os.sep != "/" or not joined.isascii() or "//" in joined or "/./" in joined:
        return Paths.of(Path(on_disk(folder, name)) for name in names)
    start = str(Path(folder, "_"))[:-1]  # as Path spells it
    return Paths(Texts.of(names, prefix="" if absolute else start))


def locate(table: Table, root: Path | None, options: PathOptions) -> Paths:
    """The path of every row's file. Raises DataError if none is there, or two folders hold files of these names."""
    rows = table.rows
    base = str(table.source.parent if root is None else root)
    plain = Rule(base)
    probes = [rows[i] for i in sorted({k * (len(rows) - 1) // _PROBES for k in range(_PROBES + 1)})]
    # If some exist at these paths, the others are missing rather than elsewhere.
    named = any(row.span is None and os.path.exists(plain.place(row)) for row in probes)
    rules = [] if named else _rules(table, root, probes, options)
    if not rules:
        paths = _all_by([plain], rows)
        require_some(table.source, paths, options)
        return paths
    example = next(row for row in probes if os.path.exists(rules[0].place(row)))
    others = len({rule.folder for rule in rules} - {rules[0].folder}) if len(rules) > 1 else 0
    logger.info(
        "%s: %d files are looked for as %r in %s%s",
        *(table.source, len(rows), example.name, rules[0].place(example)),
        f", and in the same way in {others} other folders" if others else "",
    )
    return _all_by(rules, rows)


def _all_by(rules: Sequence[Rule], rows: Rows) -> Paths:
    """The path of every row's file, by the first rule that finds it."""
    first, *others = rules
    if not others and first == Rule(first.folder) and not rows.spans:
        return in_folder(first.folder, rows.names)
    if not others:
        return Paths.of(Path(first.place(row)) for row in rows)
    chosen = (next((rule for rule in rules if os.path.exists(rule.place(row))), first) for row in rows)
    return Paths.of(Path(rule.place(row)) for rule, row in zip(chosen, rows, strict=True))


def require_some(source: Path, paths: Paths, options: PathOptions) -> None:
    """Raise DataError if none of the files is there, however many there should be."""
    if not any(map(os.path.exists, paths.names)):
        raise DataError(
            f"{source}: none of the {len(paths)} files in it is there (the first would be {paths[0]}); say with"
            f" {options.flag('root')} which folder the paths start in"
        )


# Seeking a rule --------------------------------------------------------------------------------------------------


def _rules(table: Table, root: Path | None, probes: Sequence[Row], options: PathOptions) -> list[Rule]:
    """The rules by which the clips are found; more than one where they are spread over a few folders."""
    rules: list[Rule] = []
    left = list(probes)
    while left and len(rules) < _MOST_RULES:
        rule = _first_rule(table, root, left, options, rules[0].spelling if rules else None)
        if rule is None:
            break
        rules.append(rule)
        left = [row for row in left if not os.path.exists(rule.place(row))]
    return rules


def _first_rule(
    table: Table, root: Path | None, probes: Sequence[Row], options: PathOptions, spelling: int | None
) -> Rule | None:
    """The first rule that finds any of the first clips, using only the given spelling if there is one."""
    tiers = list(_tiers(table.source, root))
    for row in probes[:10]:
        for spelled in range(len(_spellings(row))) if spelling is None else [spelling]:
            for tier in tiers:
                folders: Mapping[str, Rule] = {
                    folder: rule for folder in tier if (rule := next(_fitting(folder, spelled, row), None)) is not None
                }
                if not folders:
                    continue
                hits = {f: sum(os.path.exists(rule.place(p)) for p in probes) for f, rule in folders.items()}
                best = [folder for folder in folders if hits[folder] == max(hits.values())]
                if len(best) > 1:
                    raise DataError(
                        f"{table.source}: files of its names are in {best[0]} and in {best[1]}, such as {row.name!r};"
                        f" say which with {options.flag('root')}"
                    )
                return folders[best[0]]
    return None


def _fitting(folder: str, spelling: int, row: Row) -> Iterator[Rule]:
    """The rules that find this clip in a folder."""
    for group, form in _groups(row):
        base = Rule(folder, spelling, None, group, form)
        place = base.place(row)
        if not os.path.isdir(os.path.dirname(place)):
            continue
        for suffix in (None, *SUFFIX_ORDER):
            rule = base._replace(suffix=suffix)
            if os.path.exists(rule.place(row)):
                yield rule


def _groups(row: Row) -> list[tuple[int | None, str]]:
    """The choices of a sub-folder, as `group` and `group_format`: none, by fold or split, by label."""
    by_group = [(i, form) for i, value in enumerate(row.groups) if value for form in ("fold{}", "{}")]
    return [(None, "{}"), *by_group, *([(-1, "{}")] if isinstance(row.label, str) and row.label else [])]


def _spellings(row: Row) -> list[str]:
    """The name unchanged, then as a path from Windows or another machine: whole, without its first part, and so on."""
    if row.span is not None:
        return youtube_stems(row.name, *row.span)
    parts = re.sub(r"^[A-Za-z]:", "", row.name).replace("\\", "/").strip("/").split("/")
    return [row.name, *("/".join(parts[first:]) for first in range(len(parts)))]


def _tiers(source: Path, root: Path | None) -> Iterator[list[str]]:
    """Folders to look in, the most likely first; those in the same list are equally likely."""
    bases = [root] if root is not None else [source.parent, source.absolute().parent.parent]
    below = [_folders_in(base) for base in bases]
    for base in bases:
        yield [str(base)]
    words = _words(source.stem)
    for base, names in zip(bases, below, strict=True):
        alike = [n for n in names if n.casefold() == source.stem.casefold() or words & _words(n) & _SPLITS]
        yield [os.path.join(base, name) for name in alike]
    for base, names in zip(bases, below, strict=True):
        yield from ([os.path.join(base, name)] for usual in AUDIO_FOLDERS for name in names if name.casefold() == usual)
    yield [os.path.join(bases[0], name) for name in below[0]]


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.casefold()))


def _folders_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")[:_MOST_FOLDERS]
    except OSError:
        return []
