"""Pieces of a data set that is streamed: fetched when a clip in them is first heard, the longest unused removed.

A piece is a row group of a parquet file. In the cache it is one file: where each clip starts and the last one ends, as
8-byte numbers, then the clips as the bytes they are. All pieces of all runs together take at most `room()`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import ConfigError, DataError, FlexiASTError, NotFetched, require
from ..runtime.extras import optional
from ..runtime.files import file_errors, remove_leftovers, replacing
from ..runtime.lock import locked
from .remote import Address, name_of, opened_at
from .remote_cache import CACHE, cache_folder
from .shards import ShardMember, Window

ROOM = "FLEXIAST_STREAM_GB"
"""Environment variable with the gigabytes of disk that pieces may take."""
USUAL_ROOM = 20.0
WAITS = (1.0, 5.0, 20.0)
"""Seconds to wait before each further attempt to read a piece."""
MOST_EVICTED = 5
"""How often in a row a piece may be gone before a clip in it is read."""
_LOCKS = 64
"""Pieces that may be fetched at once."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """A row group of a parquet file, at an address or on this machine."""

    url: str
    group: int
    """Its number in the file."""
    first: int
    """Number of its first row in the file."""
    rows: int
    column: str
    """The audio, as parquet names its bytes: `audio.bytes`, or `audio` for a column of bytes."""
    size: int
    """Bytes of the audio, less what equal clips share."""
    digest: str
    """Of the sizes of all columns, see `digest_of`; another one if the file has changed."""
    path: Path
    """Where it is in the cache, while it is there."""

    @classmethod
    def of(cls, url: str, parquet: Any, number: int, first: int, column: str) -> Piece:
        """A row group of an opened parquet file."""
        group = parquet.metadata.row_group(number)
        names = [group.column(place).path_in_schema for place in range(group.num_columns)]
        size, digest = group.column(names.index(column)).total_uncompressed_size, digest_of(group)
        name = hashlib.sha256(f"{url} {number} {digest}".encode()).hexdigest()[:24]
        return cls(url, number, first, group.num_rows, column, size, digest, cache_folder() / "stream" / name)

    def __str__(self) -> str:
        return f"{self.url}, row group {self.group} (rows {self.first} to {self.first + self.rows - 1})"

    def names(self) -> Iterator[str]:
        """Names of its clips: the file's and the row's number."""
        stem = name_of(self.url).rpartition(".")[0]
        return (f"{stem}/{row:08d}" for row in range(self.first, self.first + self.rows))

    def clip(self, row: int) -> BinaryIO:
        """The clip in this row of the piece, as a file; the piece is fetched if it is not there.

        Raises DataError for a row without audio; NotFetched, in one line, if the piece cannot be read or kept.
        """
        try:
            with file_errors(self.path):
                file = self._opened()
        except NotFetched:
            raise
        except FlexiASTError as error:
            reason = str(error).removeprefix("out: ")  # of the lock
            raise NotFetched(f"{self}: {reason}; {CACHE} says where it is kept, {ROOM} how much may be") from None
        file.seek(8 * row)
        start, end = np.frombuffer(file.read(16), "<i8").tolist()
        if start == end:
            file.close()
            raise DataError(f"{self.url}: row {self.first + row} has no audio in it")
        return io.BufferedReader(Window(file, start, end - start))

    def _opened(self) -> io.FileIO:
        for _ in range(MOST_EVICTED):
            try:
                os.utime(self.path)
                return open(self.path, "rb", buffering=0)
            except FileNotFoundError:
                self._fetch()
        raise NotFetched(f"{self}: removed {MOST_EVICTED} times before it was read; more room is needed ({ROOM})")

    def _fetch(self) -> None:
        """Put the piece into the cache; of several processes one does, the others wait."""
        folder, number = self.path.parent, int(self.path.name, 16) % _LOCKS
        with locked(folder / "locks" / str(number), wait=True, silent=True):
            if self.path.exists():
                return
            clips = self._read()
            starts = np.cumsum([8 * (len(clips) + 1), *map(len, clips)], dtype="<i8")
            with locked(folder, wait=True, silent=True):
                _make_room(folder, int(starts[-1]))
                with replacing(self.path) as file:
                    file.write(starts.tobytes())
                    file.writelines(clips)

    def _read(self, attempt: int = 0) -> list[bytes]:
        """The clips, empty where there is none, after some attempts. Raises NotFetched."""
        try:
            with opened_at(self.url) as file:
                return self._clips(file)
        except Exception as error:  # each file system has errors of its own
            final = isinstance(error, (DataError, ConfigError, FileNotFoundError, PermissionError))
            if final or attempt == len(WAITS):
                reason = str(error) if isinstance(error, FlexiASTError) else f"{type(error).__name__}: {error}"
                raise NotFetched(f"{self}: not readable ({' '.join(reason.split())[:300]})") from None
        time.sleep(WAITS[attempt])
        return self._read(attempt + 1)

    def _clips(self, file: BinaryIO) -> list[bytes]:
        parquet = optional("pyarrow.parquet", "data").ParquetFile(file)
        if self.group >= parquet.num_row_groups or digest_of(parquet.metadata.row_group(self.group)) != self.digest:
            raise DataError("the file has changed since the run began; run this again")
        column = parquet.read_row_group(self.group, [self.column], use_threads=False).column(0)
        chunks = (chunk.field(0) if self.column.endswith(".bytes") else chunk for chunk in column.chunks)
        return [value.as_py() or b"" for chunk in chunks for value in chunk]


@dataclasses.dataclass(frozen=True, slots=True)
class StreamedClip(ShardMember):
    """A clip in a piece: `shard` is the parquet file, `offset` the row in the piece, `size` is not known."""

    piece: Piece

    @classmethod
    def of(cls, piece: Piece, row: int, name: str) -> StreamedClip:
        """The clip in this row of a piece."""
        return cls(Address(piece.url), row, 0, name, piece)

    def __str__(self) -> str:
        return f"{self.shard}: row {self.piece.first + self.offset}"

    def open(self) -> BinaryIO:
        return self.piece.clip(self.offset)


def digest_of(row_group: Any) -> str:
    """SHA-256 over the sizes of the columns of a row group, as the file's own description has them."""
    columns = map(row_group.column, range(row_group.num_columns))
    told = [(c.path_in_schema, c.num_values, c.total_compressed_size, c.total_uncompressed_size) for c in columns]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def room() -> int:
    """Bytes of disk that pieces may take. Raises ConfigError unless FLEXIAST_STREAM_GB is a positive number."""
    text = os.environ.get(ROOM) or str(USUAL_ROOM)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    require(0 < value < math.inf, ROOM, repr(text), "a positive number of gigabytes")
    return int(value * 1e9)


def require_room(pieces: Sequence[Piece], at_once: int) -> None:
    """Raise ConfigError if so many of the pieces, and a few to come, may not have room at a time."""
    largest = max(piece.size + 8 * (piece.rows + 1) for piece in pieces)
    needed = min(at_once + 2, len(pieces)) * largest
    if needed > room():
        raise ConfigError(
            f"{ROOM}: found {room() / 1e9:g} GB for the pieces of {pieces[0].url}, of up to {largest / 1e9:.3g} GB,"
            f" expected at least {needed / 1e9:.3g}, for {at_once} of them are mixed; allow more, or write the parquet"
            " files with smaller row groups"
        )


def _make_room(folder: Path, size: int) -> None:
    """Remove the pieces that were not used for longest, until so many bytes fit. The folder is locked."""
    remove_leftovers(folder)
    if size > room():
        raise ConfigError(f"takes {size / 1e9:.3g} GB, expected at most {room() / 1e9:g}")
    with os.scandir(folder) as entries:
        files = [(entry.stat(), entry.path) for entry in entries if entry.is_file() and entry.name[0] != "."]
    pieces = sorted((told.st_mtime_ns, told.st_size, path) for told, path in files)
    total = sum(held for _, held, _ in pieces)
    for _, held, path in pieces:
        if total + size <= room():
            break
        os.unlink(path)
        total -= held
