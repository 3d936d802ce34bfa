"""Turn a public data set on disk into manifests: shared by the scripts egs/*/prepare.py.

A script reads the public lists into `Listed` clips; `usable_clips` removes those whose file is missing or broken;
`write_folder` writes train.json, val.json, test.json and labels.csv.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from ...errors import ConfigError, DataError
from ...runtime.bars import tqdm
from ...runtime.files import file_errors
from ..audio import check_audio
from ..labels import Labels
from ..manifest import write_manifest
from ..suffixes import AUDIO_SUFFIXES

SPLITS = ("train", "val", "test")
Check = Literal["size", "header", "decode"]


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """A clip in the public lists, and its audio file."""

    split: str
    """`train`, `val` or `test`."""
    name: str
    """Its name in the lists."""
    mids: tuple[str, ...]
    """Machine ids of its classes."""
    path: str | None
    """Its audio file; None if there is none with its name."""
    group: str = ""
    """Clips of one group, such as those cut from one recording, stay in one split (default: the clip by itself)."""


@dataclasses.dataclass(frozen=True)
class Checks:
    """How to check clips before they go into a manifest."""

    check: Check = "header"
    """`size`: files exist and are not empty. `header`: their first 25 ms can be decoded. `decode`: all of it can."""
    missing: Literal["skip", "refuse"] = "refuse"
    """What to do with clips without a usable file: leave them out and list them in missing.csv, or raise an error."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What was written, and where."""

    folder: Path
    classes: int
    clips: dict[str, int]
    """Number of clips written for each split."""
    missing: dict[str, int] = dataclasses.field(default_factory=dict)
    """Number of clips left out of each split."""

    def __str__(self) -> str:
        written = ", ".join(f"{split} {count:,}" for split, count in self.clips.items())
        text = f"{self.folder}: {self.classes} classes; clips: {written}"
        if self.missing:
            without = ", ".join(f"{split} {count:,}" for split, count in self.missing.items())
            text += f"; left out: {without} (missing.csv)"
        return text


# Finding -------------------------------------------------------------------------------------------------------


def find_file(folder: Path, name: str) -> Path:
    """The file of this name (or `folder/name`) in a folder or up to two levels below. Raises DataError if not found."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, expected one that holds {name}")
    for pattern in ("", "*/", "*/*/"):
        if matches := sorted(folder.glob(pattern + name)):
            return matches[0].absolute()
    raise DataError(f"{folder}: found no {name}, expected it there or up to two folders below")


def index_audio(folder: Path) -> dict[str, str]:
    """The path of every audio file below a folder, by its stem; if several files share a stem, the first by path."""
    index: dict[str, str] = {}
    visited = set()
    with tqdm(desc=f"index of {folder}", unit="file") as bar:
        for place, folders, files in os.walk(folder.absolute(), followlinks=True):
            real = os.path.realpath(place)
            if real in visited:  # links may form a circle
                folders.clear()
                continue
            visited.add(real)
            folders.sort()
            for name in sorted(files):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in AUDIO_SUFFIXES and not name.startswith("._"):  # macOS's metadata files
                    index.setdefault(stem, os.path.join(place, name))
            bar.update(len(files))
    return index


def find_audio(index: dict[str, str], stems: Iterable[str]) -> str | None:
    """The file of the first stem in the index, if any."""
    return next((index[stem] for stem in stems if stem in index), None)


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row of a CSV, except blank lines and those that begin with #."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            bar = tqdm(file, path.name, unit="line", delay=1)  # shown for long lists
            lines = ("\n" if line.startswith("#") else line for line in bar)
            reader = csv.reader(lines, skipinitialspace=True, strict=True)
            for cells in reader:
                if cells:
                    yield reader.line_num, [cell.strip() for cell in cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as a list of clips ({error})") from None


# Choosing ------------------------------------------------------------------------------------------------------


def hold_out(clips: Sequence[Listed], share: float) -> list[Listed]:
    """The same clips, with a share of the training clips moved to `val`: from every class, in whole groups.

    A clip counts for its rarest class. From each class, the groups whose names have the smallest SHA-256 are moved, at
    least one if there are two or more. So the choice depends only on the public lists, not on which files exist.
    Raises ConfigError unless 0 <= share < 1.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"val share: found {share}, expected 0 to below 1")
    train = [clip for clip in clips if clip.split == "train"]
    frequency = Counter(mid for clip in train for mid in clip.mids)
    groups: dict[str, set[str]] = defaultdict(set)
    for clip in train:
        groups[min(clip.mids, key=lambda mid: (frequency[mid], mid))].add(clip.group or clip.name)
    held: set[str] = set()
    for names in groups.values():
        count = min(max(1, round(share * len(names))), len(names) - 1) if share else 0
        held.update(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:count])
    return [
        dataclasses.replace(clip, split="val") if clip.split == "train" and (clip.group or clip.name) in held else clip
        for clip in clips
    ]


def usable_clips(clips: Sequence[Listed], checks: Checks, out_dir: Path) -> tuple[list[Listed], dict[str, int]]:
    """The clips with a usable file, and how many of each split have none; OUT_DIR/missing.csv lists the latter.

    Raises DataError if there are clips without a usable file and `checks` refuses them, or if no clip is usable.
    """
    faults = _faults(clips, checks.check)
    broken = [(clip, fault) for clip, fault in zip(clips, faults, strict=True) if fault]
    if broken and (checks.missing == "refuse" or len(broken) == len(clips)):
        first, fault = broken[0]
        raise DataError(
            f"{len(broken)} of {len(clips)} clips have no usable file: {first.path or first.name} ({fault})"
            + (", ...; --missing skip leaves them out and lists them" if checks.missing == "refuse" else ", ...")
        )
    with file_errors(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        with open(out_dir / "missing.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["split", "clip", "reason"])
            writer.writerows([clip.split, clip.name, fault] for clip, fault in broken)
    usable = [clip for clip, fault in zip(clips, faults, strict=True) if not fault]
    left_out = Counter(clip.split for clip, _ in broken)
    return usable, {split: left_out[split] for split in SPLITS if left_out[split]}


def _faults(clips: Sequence[Listed], check: Check) -> list[str | None]:
    """What is wrong with the file of each clip; many threads read them, for slow disks."""
    faults: list[str | None] = []
    with ThreadPoolExecutor(16) as pool, tqdm(desc="check", total=len(clips), unit="clip") as bar:
        for start in range(0, len(clips), 4096):  # a million clips at once would be a million waiting tasks
            faults += pool.map(lambda clip: _fault(clip, check), clips[start : start + 4096])
            bar.update(len(faults) - start)
    return faults


def _fault(clip: Listed, check: Check) -> str | None:
    if clip.path is None:
        return "no file"
    try:
        if os.stat(clip.path).st_size == 0:
            return "empty file"
        if check != "size":
            check_audio(clip.path, whole=check == "decode")
    except DataError as error:
        return str(error).removeprefix(f"{clip.path}: ")
    except FileNotFoundError:
        return "no file"
    except OSError as error:
        return error.strerror or str(error)
    return None


# Writing -------------------------------------------------------------------------------------------------------


def write_folder(folder: Path, clips: Sequence[Listed], labels: Labels, splits: Sequence[str] = SPLITS) -> Report:
    """Write labels.csv and a manifest for each of `splits`, with absolute paths; remove the manifests of other splits.

    Raises DataError if one of `splits` has no clips.
    """
    counts = Counter(clip.split for clip in clips)
    for split in splits:
        if not counts[split]:
            raise DataError(f"{folder}: found no usable clips for {split}, expected at least one")
    with file_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        labels.write(folder / "labels.csv")
        for split in SPLITS:
            if split in splits:
                entries = [(os.path.abspath(c.path), ",".join(c.mids)) for c in clips if c.split == split and c.path]
                write_manifest(folder / f"{split}.json", entries)
            else:
                (folder / f"{split}.json").unlink(missing_ok=True)
    return Report(folder, len(labels), {split: counts[split] for split in splits})


def write_all(out_dir: Path, clips: Sequence[Listed], labels: Labels, checks: Checks) -> Report:
    """Check the clips and write the manifests of all splits that occur in the lists."""
    splits = [split for split in SPLITS if any(clip.split == split for clip in clips)]
    usable, missing = usable_clips(clips, checks, out_dir)
    return dataclasses.replace(write_folder(out_dir, usable, labels, splits), missing=missing)
