"""Data sets of Hugging Face `datasets`, and parquet files, as WebDataset tars in its cache.

The clips are copied once, as the bytes they are, so that sampling, ranks, workers and exact resuming are those of any
other data.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..runtime.extras import optional
from ..runtime.files import file_errors, make_folder_once
from .columns import NO_TARGETS, plain_name
from .labels import reason_of
from .number_cells import LARGEST
from .suffixes import AUDIO_SUFFIXES
from .webdataset import FIELDS

logger = logging.getLogger(__name__)
PREFIX = "hf:"
CLIPS_PER_TAR = 1000
MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}
"""How files begin whose name is not known; others are taken as .mp3."""


def is_dataset(source: Path) -> bool:
    """Whether this is `hf:NAME[:split]` or a parquet file, or a folder of nothing else; `hf://` is an address."""
    name = str(source)
    return (name.startswith(PREFIX) and not name.startswith(f"{PREFIX}/")) or bool(parquets(source))


def parquets(source: Path) -> list[str]:
    """A parquet file, there or not, or those in a folder that holds nothing else."""
    if not os.path.isdir(source):
        return [str(source)] if source.suffix.lower() == ".parquet" else []
    inside = []
    with contextlib.suppress(OSError), os.scandir(source) as entries:
        for entry in entries:
            if entry.name[0] != ".":
                if not entry.name.lower().endswith(".parquet"):
                    return []
                inside.append(entry.path)
    return sorted(inside)


def as_tars(source: Path, label_column: str | None = None) -> Path:
    """The folder of tars that holds the clips of `hf:NAME[:split]` (default: train) or of parquet files.

    label_column: default: the first column of class labels, else labels, label, class, category, ... Raises DataError
    for a data set that is not there, has no column of audio or labels, or an empty clip; ConfigError without
    `datasets`.
    """
    datasets = optional("datasets", "data")
    rows = _load(datasets, source)
    audio, label = audio_and_label(datasets, source, rows.features, label_column)
    return _copied(datasets, source, rows, audio, label)


def as_tars_with_numbers(source: Path, columns: Sequence[str], flag: str) -> tuple[Path, tuple[str, ...], np.ndarray]:
    """The folder of tars as of `as_tars`, the names of the columns of numbers, and these (n, C) float32, row by row.

    columns: default: every column of numbers. flag: the option that names them. Raises DataError as `as_tars`, and for
    a column that is not there, or a cell without a number.
    """
    datasets = optional("datasets", "data")
    rows = _load(datasets, source)
    audio, names = audio_and_numbers(datasets, source, rows.features, columns, flag)
    values = numbers_of(source, rows, names)
    return _copied(datasets, source, rows, audio, None), names, values


def audio_and_numbers(
    datasets: Any, source: Path, features: Any, columns: Sequence[str], flag: str
) -> tuple[str, tuple[str, ...]]:
    """Names of the columns of audio and of numbers, see `as_tars_with_numbers`."""
    kinds = {name: str(getattr(kind, "dtype", "")) for name, kind in features.items()}
    of_numbers = [name for name, kind in kinds.items() if kind.startswith(("int", "uint", "float"))]
    names = tuple(columns) or tuple(name for name in of_numbers if plain_name(name) not in NO_TARGETS)
    audio = _audio_column(datasets, features)
    if audio is None or not names or not set(names) <= set(of_numbers):
        wanted = f"numbers in {', '.join(columns)}" if columns else "at least one of numbers"
        raise DataError(
            f"{source}: found columns {', '.join(kinds)}, expected audio, and {wanted}; {flag} a,b names them"
        )
    return audio, names


def numbers_of(source: Path, rows: Any, names: Sequence[str]) -> np.ndarray:
    """(n, C) float32 of these columns, row by row. Raises DataError for a cell without a number."""
    values = np.stack([np.array(rows[name], dtype=np.float64) for name in names], axis=1)
    wrong = np.argwhere(~(np.abs(values) <= LARGEST))  # of NaN too
    if len(wrong):
        row, column = wrong[0].tolist()
        found = "an empty cell" if np.isnan(values[row, column]) else values[row, column]
        raise DataError(f"{source}: row {row}, column {names[column]}: found {found}, expected a number such as -20.5")
    return values.astype(np.float32)


def _copied(datasets: Any, source: Path, rows: Any, audio: str, label: str | None) -> Path:
    """The folder of tars with the clips and this column of labels, if any, made if it is not there yet."""
    columns = [audio] if label is None else [audio, label]
    rows = rows.cast_column(audio, datasets.Audio(decode=False)).select_columns(columns)
    digest = hashlib.sha256(f"{rows._fingerprint} {audio} {label}".encode()).hexdigest()[:16]
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "flexiast"
    folder = cache / f"{re.sub(r'[^A-Za-z0-9]+', '-', source.name)}-{digest}"
    if folder.is_dir():
        return folder
    with file_errors(cache):
        make_folder_once(folder, lambda part: _write(part, _samples(source, rows, audio, label)))
    logger.info("%s: %d clips, copied once to %s", source, len(rows), folder)
    return folder


def _load(datasets: Any, source: Path) -> Any:
    with readable(datasets, source):
        if not str(source).startswith(PREFIX):
            return datasets.load_dataset("parquet", data_files=parquets(source), split="train")
        name, split = name_and_split(source)
        return datasets.load_dataset(name, split=split)


def name_and_split(source: Path) -> tuple[str, str]:
    """NAME and split of `hf:NAME[:split]`."""
    name, _, split = str(source).removeprefix(PREFIX).partition(":")
    return name, split or "train"


@contextlib.contextmanager
def readable(datasets: Any, source: Path) -> Iterator[None]:
    """Tell in one line what `datasets` refuses. Raises DataError."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{source}: not readable as a data set ({' '.join(reason_of(error).split())[:300]})") from None


def audio_and_label(datasets: Any, source: Path, features: Any, label_column: str | None) -> tuple[str, str]:
    """Names of the columns of audio and of labels."""
    audio = _audio_column(datasets, features)
    of_classes = [name for name, kind in features.items() if class_label(datasets, kind)]
    label = next((name for name in (label_column, *of_classes, *FIELDS) if name in features), None)
    if audio is None or label is None or (label_column and label != label_column):
        expected = f"{label_column or 'label'} and audio"
        raise DataError(f"{source}: found columns {', '.join(features)}, expected {expected}; see --data.label-column")
    return audio, label


def _audio_column(datasets: Any, features: Any) -> str | None:
    of_audio = [name for name, kind in features.items() if isinstance(kind, datasets.Audio)]
    return next((name for name in (*of_audio, "audio", "file", "path") if name in features), None)


def class_label(datasets: Any, kind: Any) -> Any:
    """The names of a column of class labels, one or a list in a row; none for other columns."""
    kind = getattr(kind, "feature", kind)
    return kind if isinstance(kind, datasets.ClassLabel) else None


def _samples(source: Path, rows: Any, audio: str, label: str | None) -> Iterator[tuple[str, bytes, list[str]]]:
    """Suffix, bytes and labels of each clip."""
    names = class_label(optional("datasets", "data"), rows.features[label]) if label else None
    for number, row in enumerate(rows):
        sound, value = row[audio] or {}, row[label] if label else []
        labels = label_texts(f"{source}: row {number}", value, names)
        content, name = sound.get("bytes"), sound.get("path") or ""
        if content is None and name:
            try:
                content = Path(name).read_bytes()
            except OSError as error:
                raise DataError(f"{source}: row {number}: {name}: not readable ({error.strerror})") from None
        if not content:
            raise DataError(f"{source}: row {number} has no audio")
        suffix = Path(name).suffix.lower()
        suffix = suffix if suffix in AUDIO_SUFFIXES else MAGIC.get(content[:4], ".mp3")
        yield suffix, content, labels


def label_texts(row: str, value: Any, names: Any) -> list[str]:
    """The labels in a cell, of classes with these names if there are any. Raises DataError for one without."""
    items = value if isinstance(value, list) else [value]
    if any(item is None or item == -1 or not str(item).strip() for item in items):
        raise DataError(f"{row} has no label")
    return [names.int2str(item) if names and isinstance(item, int) else str(item) for item in items]


def _write(folder: Path, samples: Iterator[tuple[str, bytes, list[str]]]) -> None:
    """WebDataset tars of so many clips each."""
    archive = None
    try:
        for number, (suffix, content, labels) in enumerate(samples):
            if number % CLIPS_PER_TAR == 0:
                if archive:
                    archive.close()
                archive = tarfile.open(folder / f"{number // CLIPS_PER_TAR:06d}.tar", "w")  # noqa: SIM115
            for ending, data in ((suffix, content), (".json", json.dumps({"labels": labels}).encode())):
                info = tarfile.TarInfo(f"{number:08d}{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))  # type: ignore[union-attr]
    finally:
        if archive:
            archive.close()
