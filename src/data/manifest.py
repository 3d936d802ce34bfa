"""Which clips there are and what they are called: manifests (AST's JSON), tables, folders of classes, shards."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from .folders import check_classes, read_class_folders
from .hugging_face import as_tars, is_dataset
from .label_cells import Cell, read_labels
from .labels import Labels, composed, is_unicode, reason_of, report_twins
from .locate import locate, require_some
from .shards import INDEX, ShardMember, read_shards
from .table_options import USUAL, TableOptions
from .tables import Table, is_table, read_table
from .webdataset import read_webdataset, tars_of

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Clip:
    """One audio file and the indices of its classes."""

    path: Path | ShardMember
    classes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The clips of a split, their labels, and where they were read from."""

    source: Path
    clips: tuple[Clip, ...]
    labels: Labels

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over file names (last two parts), sizes and classes: the same data gives the same text anywhere."""
        digest = hashlib.sha256()
        for clip in self.clips:
            name = "/".join(clip.path.parts[-2:])
            # File names are bytes, which need not be UTF-8.
            digest.update(f"{name}\t{_size(clip.path)}\t{clip.classes}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()


def read_manifest(
    source: Path,
    labels: Labels | Path | None = None,
    root: Path | None = None,
    options: TableOptions = USUAL,
) -> Manifest:
    """Read a manifest (AST's JSON), a table, or a folder with one sub-folder per class.

    source: JSON `{"data": [{"wav": path, "labels": "mid,mid"}, ...]}`, which needs `labels`; or a table *.csv, *.tsv,
    *.txt or *.jsonl with a column of files and one of labels, rows of the same file being one clip; or a folder, of
    classes or of shards (`flexiast pack`); or WebDataset tars, a file or a folder of them; or `hf:NAME[:split]` or a
    parquet file (extra `data`). labels: table or CSV path; the default is the sub-folders of a folder, the distinct
    labels of a table or of tars, in order, or the table of the shards. root: where relative paths start (default: the
    manifest's folder; for tables also the folders about it). options: how a table is read. Raises DataError that names
    the file and the entry or line at fault.
    """
    source = Path(source)
    table = Labels.read(labels) if isinstance(labels, Path) else labels
    if (source / INDEX).is_file():
        return _read_packed(source, table)
    if is_dataset(source):
        return dataclasses.replace(_read_tars(as_tars(source, options.label_column), table), source=source)
    if tars_of(source):
        return _read_tars(source, table)
    if source.is_dir():
        return _read_folder(source, table)
    _require_file(source)
    if is_table(source):
        return _read_table(source, table, root, options)
    if table is None:
        raise DataError(f"{source}: a manifest needs a label table (CSV with index, mid, display_name); none was given")
    entries, index = _entries(source), table.index(with_names=False)
    root = source.parent if root is None else root
    classes = [_classes(f"{source}, data[{e.number}]", _split(e.label), index) for e in entries]
    paths = [root / entry.path for entry in entries]
    require_some(source, paths, options)
    return Manifest(source, tuple(map(Clip, paths, classes)), table)


def distinct_labels(source: Path, options: TableOptions = USUAL) -> Labels:
    """The labels that a manifest, a table or a folder uses, in order. Raises DataError as `read_manifest`."""
    if (source / INDEX).is_file():
        return _read_packed(source, None).labels
    if is_dataset(source):
        return _read_tars(as_tars(source, options.label_column), None).labels
    if tars_of(source):
        return _read_tars(source, None).labels
    if source.is_dir():
        return Labels.of(name for name, files in read_class_folders(source).items() if files)
    _require_file(source)
    if is_table(source):
        return _labels_of(source, read_labels(read_table(source, options), options))
    return Labels.of(label for entry in _entries(source) for label in _split(entry.label))


def write_manifest(path: Path, entries: Iterable[tuple[str, str]]) -> None:
    """Write (wav path, comma-separated mids) pairs as a manifest JSON."""
    with open(path, "w", encoding="utf-8") as file:
        separator = '{"data": [\n'
        for wav, mids in entries:  # a line for each clip: as one text, millions of clips would fill the memory
            file.write(separator + json.dumps({"wav": wav, "labels": mids}))
            separator = ",\n"
        file.write('{"data": []}\n' if separator[0] == "{" else "\n]}\n")


def _require_file(source: Path) -> None:
    if not source.exists():
        raise DataError(f"{source}: not readable as a manifest (No such file or folder)")


class _Entry(NamedTuple):
    """A clip as a JSON has it."""

    number: int
    """Place in the list."""
    path: str
    label: str


def _entries(path: Path) -> list[_Entry]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as a manifest ({reason_of(error)})") from None
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list) or not data:
        raise DataError(
            f'{path}: expected {{"data": [{{"wav": path, "labels": "id,id"}}, ...]}} with at least one entry'
        )
    entries = []
    for number, entry in enumerate(data):
        where = f"{path}, data[{number}]"
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in ("wav", "labels")):
            raise DataError(f"{where}: found {repr(entry)[:120]}, expected the text fields wav and labels")
        wav = entry["wav"]
        if not wav or "\0" in wav or not is_unicode(wav):
            raise DataError(f"{where}: found wav {wav[:120]!r}, which no file can be called")
        entries.append(_Entry(number, wav, entry["labels"]))
    return entries


def _split(label: str) -> list[str]:
    """Labels of a JSON, with commas between them; none in an empty text, which is a clip without any."""
    return list(dict.fromkeys(composed(part.strip()) for part in label.split(","))) if label.strip() else []


def _classes(where: str, labels: Iterable[str], index: Mapping[str, int]) -> tuple[int, ...]:
    for label in labels:
        if label not in index:
            raise DataError(
                f"{where}: unknown label {label!r}, expected one of the {len(set(index.values()))} in the label table"
            )
    return tuple(dict.fromkeys(index[label] for label in labels))


def _read_table(source: Path, labels: Labels | None, root: Path | None, options: TableOptions) -> Manifest:
    table = read_table(source, options)
    logger.info("%s: %s", source, table.columns.description())
    index = labels.index() if labels else None
    cells = read_labels(table, options, index)
    if labels is None:
        labels = _labels_of(source, cells)
        report_twins(source, labels)
        if len(labels) == 1 and () not in cells.values():
            raise DataError(f"{source}: found one label, {labels.mids[0]!r}, for every clip, expected at least two")
        index = labels.index()
    classes: dict[Cell, tuple[int, ...]] = {}
    for row in table.rows:
        if row.label not in classes:
            classes[row.label] = _classes(table.where(row), cells[row.label], index or {})
    paths = locate(table, root, options)
    return Manifest(source, _joined(table, paths, classes), labels)


def _labels_of(source: Path, cells: Mapping[Cell, tuple[str, ...]]) -> Labels:
    names = {label for labels in cells.values() for label in labels}
    if not names:
        raise DataError(f"{source}: found no labels, expected one in at least one line")
    return Labels.of(names)


def _joined(table: Table, paths: list[Path], classes: Mapping[Cell, tuple[int, ...]]) -> tuple[Clip, ...]:
    """Clips, the rows of one file joined to one with all its classes."""
    if len(set(paths)) == len(paths):
        return tuple(Clip(path, classes[row.label]) for path, row in zip(paths, table.rows, strict=True))
    joined: dict[Path, dict[int, None]] = {}
    for path, row in zip(paths, table.rows, strict=True):
        joined.setdefault(path, {}).update(dict.fromkeys(classes[row.label]))
    logger.info("%s: %d rows are of %d clips, joined by file", table.source, len(paths), len(joined))
    return tuple(Clip(path, tuple(own)) for path, own in joined.items())


def _read_folder(folder: Path, labels: Labels | None) -> Manifest:
    classes = read_class_folders(folder)
    check_classes(folder, classes, labels.index() if labels else None)
    if labels is None:
        labels = Labels.of(classes)
        report_twins(folder, labels)
        classes = {name: classes[name] for name in labels.mids}
    index = labels.index()
    clips = tuple(Clip(file, (index[name],)) for name, files in classes.items() for file in files)
    return Manifest(folder, clips, labels)


def _read_packed(folder: Path, labels: Labels | None) -> Manifest:
    shards = read_shards(folder)
    try:
        packed = Labels(shards.mids, shards.names)
    except DataError as error:
        raise DataError(f"{folder / INDEX}: {error}") from None
    labels = labels or packed
    index = {mid: i for i, mid in enumerate(labels.mids)}
    for c in {c for classes in shards.classes for c in classes}:
        if packed.mids[c] not in index:
            raise DataError(
                f"{folder / INDEX}: unknown label {packed.mids[c]!r}, expected one of the {len(labels)} in the"
                " label table"
            )
    clips = zip(shards.members, shards.classes, strict=True)
    return Manifest(folder, tuple(Clip(m, tuple(index[packed.mids[c]] for c in own)) for m, own in clips), labels)


def _read_tars(source: Path, labels: Labels | None) -> Manifest:
    samples = read_webdataset(source)
    labels = labels or Labels.of(label for sample in samples for label in sample.labels)
    index = labels.index()
    if not any(label in index for sample in samples for label in sample.labels):
        index |= {str(number): number for number in range(len(labels))}  # a .cls is the number of a class in the table
    clips = (Clip(member, _classes(str(member), own, index)) for member, own in samples)
    return Manifest(source, tuple(clips), labels)


def _size(path: Path | ShardMember) -> int:
    """Bytes of a file, -1 if it is not there; asked once, for disks that answer slowly."""
    if isinstance(path, ShardMember):
        return path.size
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
