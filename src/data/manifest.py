"""Which clips there are and what they are called: manifests (AST's JSON, or CSV), plain folders, label tables."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from .shards import INDEX, ShardMember, read_shards

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3"})


@dataclasses.dataclass(frozen=True)
class Labels:
    """Classes in the order of the model's outputs: machine ids (`mids`) and names for people."""

    mids: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) and _is_unicode(text) for text in (*self.mids, *self.names)):
            raise DataError("labels: found ids or names that are no text that can be written")
        if len(set(self.mids)) != len(self.mids) or len(self.mids) != len(self.names) or not self.mids:
            raise DataError(
                f"labels: found {len(self.mids)} ids, {len(set(self.mids))} distinct, and {len(self.names)} names"
            )

    def __len__(self) -> int:
        return len(self.mids)

    @classmethod
    def numbers(cls, count: int) -> Labels:
        """Labels 0, 1, 2, ... for a model whose class names are not known."""
        mids = tuple(str(i) for i in range(count))
        return cls(mids, mids)

    @property
    def numbered(self) -> bool:
        """Whether these are only numbers."""
        return self == Labels.numbers(len(self))

    @classmethod
    def read(cls, path: Path) -> Labels:
        """Read a CSV with the columns index, mid, display_name, indices 0, 1, 2, ... in any order."""
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                missing = {"index", "mid", "display_name"} - set(reader.fieldnames or ())
                if missing:
                    raise DataError(f"{path}: found columns {reader.fieldnames}, expected index, mid, display_name")
                rows = list(reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: not readable as a label table ({_reason(error)})") from None
        by_index: dict[int, dict[str, str]] = {}
        for line, row in enumerate(rows, start=2):
            index = row["index"] or ""
            if not index.isdecimal() or len(index) > 9 or not row["mid"] or int(index) in by_index:
                raise DataError(f"{path}, line {line}: found {str(row)[:200]}, expected a new index and a mid")
            by_index[int(index)] = row
        if not rows:
            raise DataError(f"{path}: found indices [], expected at least one line below the header")
        if sorted(by_index) != list(range(len(rows))):
            raise DataError(f"{path}: found indices {sorted(by_index)[:5]}..., expected 0 to {len(rows) - 1} once each")
        ordered = [by_index[i] for i in range(len(rows))]
        try:
            return cls(tuple(r["mid"] for r in ordered), tuple(r["display_name"] or r["mid"] for r in ordered))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def write(self, path: Path) -> None:
        """Write the CSV that `read` reads."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["index", "mid", "display_name"])
            writer.writerows([i, mid, name] for i, (mid, name) in enumerate(zip(self.mids, self.names, strict=True)))


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


def read_manifest(source: Path, labels: Labels | Path | None = None, root: Path | None = None) -> Manifest:
    """Read a manifest, JSON or CSV, or a folder with one sub-folder per class.

    source: JSON `{"data": [{"wav": path, "labels": "mid,mid"}, ...]}`, which needs `labels`; or a file *.csv with the
    columns path and label (several mids or names of classes: separated by commas, in quotes); or a folder, of classes
    or of shards (`flexiast pack`). labels: table or CSV path; the default is the sub-folders of a folder, or the
    distinct labels of a CSV, in alphabetical order, or the table of the shards. root: where relative paths start
    (default: the manifest's folder). Raises DataError that names the file and the entry or line at fault.
    """
    source = Path(source)
    table = Labels.read(labels) if isinstance(labels, Path) else labels
    if (source / INDEX).is_file():
        return _read_packed(source, table)
    if source.is_dir():
        return _read_folder(source, table)
    if not source.exists():
        raise DataError(f"{source}: not readable as a manifest (No such file or folder)")
    if table is None and not _is_csv(source):
        raise DataError(f"{source}: a manifest needs a label table (CSV with index, mid, display_name); none was given")
    entries = _entries(source)
    table = table or _distinct(entries)
    index = {mid: i for i, mid in enumerate(table.mids)}
    if _is_csv(source):
        index = {name: i for i, name in enumerate(table.names)} | index
    root = source.parent if root is None else root
    return Manifest(source, tuple(Clip(root / e.path, _classes(source, e, index)) for e in entries), table)


def distinct_labels(source: Path) -> Labels:
    """The labels that a manifest, JSON or CSV, uses, in alphabetical order. Raises DataError as `read_manifest`."""
    return _distinct(_entries(source))


def write_manifest(path: Path, entries: Iterable[tuple[str, str]]) -> None:
    """Write (wav path, comma-separated mids) pairs as a manifest JSON."""
    with open(path, "w", encoding="utf-8") as file:
        separator = '{"data": [\n'
        for wav, mids in entries:  # a line for each clip: as one text, millions of clips would fill the memory
            file.write(separator + json.dumps({"wav": wav, "labels": mids}))
            separator = ",\n"
        file.write('{"data": []}\n' if separator[0] == "{" else "\n]}\n")


class _Entry(NamedTuple):
    """A clip as a manifest file has it."""

    number: int
    """Line of a CSV, or place in the list of a JSON."""
    path: str
    label: str


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _where(path: Path, number: int) -> str:
    return f"{path}, line {number}" if _is_csv(path) else f"{path}, data[{number}]"


def _entries(path: Path) -> list[_Entry]:
    try:
        return _csv_entries(path) if _is_csv(path) else _json_entries(path)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"{path}: not readable as a manifest ({_reason(error)})") from None


def _json_entries(path: Path) -> list[_Entry]:
    content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list) or not data:
        raise DataError(
            f'{path}: expected {{"data": [{{"wav": path, "labels": "id,id"}}, ...]}} with at least one entry'
        )
    entries = []
    for number, entry in enumerate(data):
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(k), str) and entry[k] for k in ("wav", "labels")
        ):
            raise DataError(
                f"{_where(path, number)}: found {repr(entry)[:120]}, expected the text fields wav and labels"
            )
        if not _is_path(entry["wav"]):
            raise DataError(f"{_where(path, number)}: found wav {entry['wav'][:120]!r}, which no file can be called")
        entries.append(_Entry(number, entry["wav"], entry["labels"]))
    return entries


def _csv_entries(path: Path) -> list[_Entry]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True, strict=True)
        columns = reader.fieldnames or ()
        if not {"path", "label"} <= set(columns):
            raise DataError(f"{path}: found columns {reader.fieldnames}, expected path and label")
        entries = []
        for row in reader:
            if None in row:
                raise DataError(
                    f"{_where(path, reader.line_num)}: found {len(columns) + len(row[None])} cells,"
                    f" expected {len(columns)}; several labels, or a path with a comma, go in quotes"
                )
            wav, label = ((row[column] or "").strip() for column in ("path", "label"))
            if not wav or not _is_path(wav) or "" in _split(label):
                raise DataError(
                    f"{_where(path, reader.line_num)}: found path {wav!r} and label {label!r},"
                    " expected one and at least one"
                )
            entries.append(_Entry(reader.line_num, wav, label))
    if not entries:
        raise DataError(f"{path}: found no clips, expected at least one line below the header")
    return entries


def _is_unicode(text: str) -> bool:
    """Whether text can be written: JSON can also hold halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_path(text: str) -> bool:
    return "\0" not in text and _is_unicode(text)


def _split(label: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in label.split(",")))


def _distinct(entries: Iterable[_Entry]) -> Labels:
    mids = tuple(sorted({mid for entry in entries for mid in _split(entry.label)}))
    return Labels(mids, mids)


def _classes(source: Path, entry: _Entry, index: Mapping[str, int]) -> tuple[int, ...]:
    if entry.label in index:  # also a name that holds a comma
        return (index[entry.label],)
    labels = _split(entry.label)
    for label in labels:
        if label not in index:
            raise DataError(
                f"{_where(source, entry.number)}: unknown label {label!r}, expected one of the"
                f" {len(set(index.values()))} in the label table"
            )
    return tuple(dict.fromkeys(index[label] for label in labels))


def _read_folder(folder: Path, labels: Labels | None) -> Manifest:
    # Folders such as _background_noise_ or .git hold no class.
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._")
    if not classes:
        raise DataError(f"{folder}: found no sub-folders, expected one per class with audio files in it")
    labels = labels or Labels(tuple(classes), tuple(classes))
    index = {mid: i for i, mid in enumerate(labels.mids)} | {name: i for i, name in enumerate(labels.names)}
    clips = []
    for name in classes:
        files = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file())
        if files and name not in index:
            raise DataError(
                f"{folder / name}: unknown label {name!r}, expected one of the {len(labels)} in the label table"
            )
        clips += [Clip(file, (index[name],)) for file in files]
    if not clips:
        raise DataError(f"{folder}: found no audio files ({', '.join(sorted(AUDIO_SUFFIXES))}) in its sub-folders")
    return Manifest(folder, tuple(clips), labels)


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


def _size(path: Path | ShardMember) -> int:
    """Bytes of a file, -1 if it is not there; asked once, for disks that answer slowly."""
    if isinstance(path, ShardMember):
        return path.size
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
