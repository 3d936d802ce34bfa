"""Read what a run must know ahead of a data set that is streamed: its pieces, and the columns of labels or numbers.

Parquet keeps columns apart, so that this takes a small part of the bytes, at an address too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, FlexiASTError
from ..runtime.extras import optional
from .clips import Paths
from .hugging_face import (
    PREFIX,
    audio_and_label,
    audio_and_numbers,
    class_label,
    is_dataset,
    label_texts,
    name_and_split,
    numbers_of,
    parquets,
    readable,
)
from .labels import composed, reason_of
from .pieces import Piece, room
from .remote import address_of, is_address, opened_at, remote_files

_AT_ONCE = 16
"""Files that are asked at a time."""


def stream_labels(source: Path, label_column: str | None) -> tuple[Paths, list[tuple[str, ...]]]:
    """The clips of parquet files, or of `hf:NAME[:split]`, and the labels of each; no audio is read.

    source: the files may be here or at an address. label_column: as of `hugging_face.as_tars`. Raises DataError as
    `as_tars`, and for a set that is not in parquet files.
    """
    datasets = optional("datasets", "data")
    files, features = _files(datasets, source)
    audio, label = audio_and_label(datasets, source, features, label_column)
    read = _read(files, audio, [label])
    names, known = class_label(datasets, features[label]), dict[str, tuple[str, ...]]()
    texts = []
    for row, value in enumerate(value for _, table in read for value in table.column(label).to_pylist()):
        key = repr(value)  # a value may be a list or a structure
        if key not in known:
            found = label_texts(f"{source}: row {row}", value, names)
            known[key] = tuple(dict.fromkeys(composed(text.strip()) for text in found))
        texts.append(known[key])
    return _paths(source, read), texts


def stream_numbers(source: Path, columns: Sequence[str], flag: str) -> tuple[Paths, tuple[str, ...], np.ndarray]:
    """The clips, and the names and values (n, C) of the columns of numbers, see `as_tars_with_numbers`."""
    datasets = optional("datasets", "data")
    files, features = _files(datasets, source)
    audio, names = audio_and_numbers(datasets, source, features, columns, flag)
    read = _read(files, audio, names)
    table = optional("pyarrow", "data").concat_tables([table for _, table in read], promote_options="permissive")
    return _paths(source, read), names, numbers_of(source, table, names)


def _files(datasets: Any, source: Path) -> tuple[list[str], Any]:
    """The parquet files, and the kinds of their columns. Raises DataError."""
    room()
    remedy = "leave out --data.streaming, or write it with `flexiast pack` and read that"
    if not is_dataset(source):
        raise DataError(f"{source}: found no parquet files to stream, expected these or hf:NAME[:split]; {remedy}")
    features = None
    if is_address(source):
        files = [file.url for file in remote_files(address_of(source))]
    elif not str(source).startswith(PREFIX):
        files = [os.path.abspath(path) for path in parquets(source)]
    else:
        name, split = name_and_split(source)
        with readable(datasets, source):
            builder = datasets.load_dataset_builder(name)
        of_splits = getattr(builder.config, "data_files", None) or {}
        files, features = list(map(str, of_splits.get(split, ()))), builder.info.features
        if of_splits and not files:
            raise DataError(f"{source}: found splits {', '.join(map(str, of_splits))}, expected {split} among them")
    others = [file for file in files if not file.lower().partition("?")[0].endswith(".parquet")]
    if others or not files:
        found = others[0] if others else "no files"
        raise DataError(f"{source}: found {found}, expected parquet files to stream; {remedy}")
    if features is None:
        features = datasets.Features.from_arrow_schema(_asked(files[0], lambda parquet: parquet.schema_arrow))
    return files, features


def _read(files: Sequence[str], audio: str, columns: Sequence[str]) -> list[tuple[list[Piece], Any]]:
    """Of each file its pieces and a table of these columns."""

    def read(url: str) -> tuple[list[Piece], Any]:
        def told(parquet: Any) -> tuple[list[Piece], Any]:
            there = parquet.schema_arrow.names
            if missing := [name for name in (audio, *columns) if name not in there]:
                raise DataError(f"{url}: found columns {', '.join(there)}, expected {missing[0]}, as in {files[0]}")
            return _pieces(url, parquet, audio), parquet.read(list(columns), use_threads=False).select(list(columns))

        return _asked(url, told)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(read, files))


def _asked(url: str, what: Any) -> Any:
    """What a function tells of a parquet file. Raises DataError."""
    parquet = optional("pyarrow.parquet", "data")
    try:
        with opened_at(url) as file:
            return what(parquet.ParquetFile(file))
    except FlexiASTError:
        raise
    except Exception as error:  # each file system has errors of its own
        reason = " ".join(f"{type(error).__name__}: {reason_of(error)}".split())[:300]
        raise DataError(f"{url}: not readable as a parquet file ({reason})") from None


def _pieces(url: str, parquet: Any, audio: str) -> list[Piece]:
    """The row groups of a file. Raises DataError if it has no column of the bytes of audio files."""
    kind, column = parquet.schema_arrow.field(audio).type, audio
    if optional("pyarrow", "data").types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind, column = kind.field("bytes").type, f"{audio}.bytes"
    if str(kind) not in ("binary", "large_binary"):
        raise DataError(f"{url}: found a column {audio} of {kind}, expected the bytes of audio files to stream")
    pieces, first = list[Piece](), 0
    for number in range(parquet.num_row_groups):
        pieces.append(Piece.of(url, parquet, number, first, column))
        first += pieces[-1].rows
    return [piece for piece in pieces if piece.rows]


def _paths(source: Path, read: Sequence[tuple[list[Piece], Any]]) -> Paths:
    pieces = [piece for of_file, _ in read for piece in of_file]
    if not pieces:
        raise DataError(f"{source}: found no clips in its {len(read)} files")
    return Paths.of_pieces(pieces)
