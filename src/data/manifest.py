"""Which clips there are and what they are called: manifests in the AST convention, plain folders, label tables."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from ..errors import DataError

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3"})


@dataclasses.dataclass(frozen=True)
class Labels:
    """Classes in the order of the model's outputs: machine ids (`mids`) and names for people."""

    mids: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) for text in (*self.mids, *self.names)):
            raise DataError("labels: found ids or names that are not text")
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
            if not (row["index"] or "").isdecimal() or not row["mid"] or int(row["index"]) in by_index:
                raise DataError(f"{path}, line {line}: found {row}, expected a new index and a mid")
            by_index[int(row["index"])] = row
        if sorted(by_index) != list(range(len(rows))) or not rows:
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

    path: Path
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
            size = clip.path.stat().st_size if clip.path.exists() else -1
            digest.update(f"{'/'.join(clip.path.parts[-2:])}\t{size}\t{clip.classes}\n".encode())
        return digest.hexdigest()


def read_manifest(source: Path, labels: Labels | Path | None = None, root: Path | None = None) -> Manifest:
    """Read a manifest JSON (needs `labels`), or a folder with one sub-folder per class.

    source: `{"data": [{"wav": path, "labels": "mid,mid"}, ...]}`, or a folder. labels: table or CSV path; for a
    folder the default is its sub-folders in alphabetical order. root: where relative paths start (default: the
    manifest's folder). Raises DataError that names the file and the entry at fault.
    """
    source = Path(source)
    table = Labels.read(labels) if isinstance(labels, Path) else labels
    if source.is_dir():
        return _read_folder(source, table)
    if not source.exists():
        raise DataError(f"{source}: not readable as a manifest (No such file or folder)")
    if table is None:
        raise DataError(f"{source}: a manifest needs a label table (CSV with index, mid, display_name); none was given")
    return _read_json(source, table, source.parent if root is None else root)


def write_manifest(path: Path, entries: Iterable[tuple[str, str]]) -> None:
    """Write (wav path, comma-separated mids) pairs as a manifest JSON."""
    data = [{"wav": wav, "labels": mids} for wav, mids in entries]
    path.write_text(json.dumps({"data": data}, indent=1), encoding="utf-8")


def _read_json(path: Path, labels: Labels, root: Path) -> Manifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as a manifest ({_reason(error)})") from None
    entries = content.get("data") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DataError(
            f'{path}: expected {{"data": [{{"wav": path, "labels": "id,id"}}, ...]}} with at least one entry'
        )
    index = {mid: i for i, mid in enumerate(labels.mids)}
    clips = []
    for number, entry in enumerate(entries):
        where = f"{path}, data[{number}]"
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(k), str) and entry[k] for k in ("wav", "labels")
        ):
            raise DataError(f"{where}: found {str(entry)[:120]}, expected the text fields wav and labels")
        mids = list(dict.fromkeys(mid.strip() for mid in entry["labels"].split(",")))
        unknown = [mid for mid in mids if mid not in index]
        if unknown:
            raise DataError(
                f"{where}: unknown label {unknown[0]!r}, expected one of the {len(labels)} in the label table"
            )
        clips.append(Clip(root / entry["wav"], tuple(index[mid] for mid in mids)))
    return Manifest(path, tuple(clips), labels)


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


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
