"""Clips inside tar shards: read at their offsets, in any order, or shard by shard.

A folder of shards holds `index.json` and the tars listed there, written by `flexiast pack`. They are WebDataset tars:
for each clip NUMBER.flac (the unchanged file) and NUMBER.json (its labels and its old name). The index gives the
offset of each clip in its tar, so that a clip can be read by its number as if it were a file; sampling, ranks, workers
and resuming work as with files. Nothing is unpacked to disk, and the headers in the tars are not trusted.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..errors import DataError
from .sampler import BatchSchedule

INDEX = "index.json"
FORMAT = "flexiast-shards-1"


@dataclasses.dataclass(frozen=True, slots=True)
class ShardMember:
    """A clip inside a shard; used in place of a file's path."""

    shard: Path
    """The tar file."""
    offset: int
    """Where the clip's bytes start in the tar file."""
    size: int
    """Number of bytes."""
    name: str
    """Last two parts of the path that the clip was packed from, joined by `/`."""

    def __str__(self) -> str:
        return f"{self.shard}:{self.name}"

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of its name, as `Path.parts`."""
        return PurePosixPath(self.name).parts

    def open(self) -> BinaryIO:
        """The clip as a file, which reads of the shard what it is asked for. Raises DataError unless all is there."""
        try:
            file = open(self.shard, "rb", buffering=0)  # noqa: SIM115 (closed with the window)
        except OSError as error:
            raise DataError(f"{self}: not readable ({error.strerror})") from None
        there = max(0, os.fstat(file.fileno()).st_size - self.offset)
        if there < self.size:
            file.close()
            raise DataError(f"{self}: found {there} bytes in the shard, expected {self.size}")
        return io.BufferedReader(Window(file, self.offset, self.size))


class Window(io.RawIOBase):
    """A part of a file, as a file of its own."""

    def __init__(self, file: io.FileIO, offset: int, size: int) -> None:
        super().__init__()
        self._file, self._offset, self._size, self._place = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there is anything; returns the number of bytes."""
        count = max(0, min(len(buffer), self._size - self._place))
        self._file.seek(self._offset + self._place)
        read = self._file.readinto(memoryview(buffer)[:count]) or 0
        self._place += read
        return read

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Move as in any file."""
        self._place = max(0, place + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence])
        return self._place

    def close(self) -> None:
        self._file.close()
        super().close()


class Shards(NamedTuple):
    """The checked content of an index."""

    mids: tuple[str, ...]
    """Label ids, in the order of the classes."""
    names: tuple[str, ...]
    """Human-readable names of the labels."""
    members: list[ShardMember]
    classes: list[tuple[int, ...]]
    """Classes of each member."""


def read_shards(folder: Path) -> Shards:
    """Read the index of a folder of shards.

    Raises DataError that names the index and the field if anything in it is wrong, such as a file in another folder,
    bytes beyond the end of a tar, or a class that is not in the label table.
    """
    path = folder / INDEX
    index = read_index(path)
    labels, shards = index.get("labels"), index.get("shards")
    if not isinstance(labels, dict) or not all(_texts(labels.get(key)) for key in ("mids", "names")):
        raise DataError(f"{path}: found no label table, expected labels.mids and labels.names")
    if not isinstance(shards, list) or not shards:
        raise DataError(f"{path}: found no shards, expected a list of at least one")
    checked = Shards(tuple(labels["mids"]), tuple(labels["names"]), [], [])
    for number, shard in enumerate(shards):
        _add(checked, folder, shard, f"{path}, shards[{number}]")
    if not checked.members:
        raise DataError(f"{path}: found no clips")
    return checked


def read_index(path: Path) -> dict[str, Any]:
    """The content of an index, of which nothing but its format is checked. Raises DataError if it is of another one."""
    try:
        index: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as an index of shards ({error})") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        version = index.get("format") if isinstance(index, dict) else type(index).__name__
        raise DataError(f"{path}: found format {version!r}, expected {FORMAT!r}")
    return index


def _add(checked: Shards, folder: Path, shard: Any, where: str) -> None:
    """Check one shard's entry and add its clips."""
    if not isinstance(shard, dict):
        raise DataError(f"{where}: found {type(shard).__name__}, expected an object")
    file, size = shard.get("file"), shard.get("bytes")
    if not isinstance(file, str) or Path(file).name != file or not file.endswith(".tar") or "\0" in file:
        raise DataError(f"{where}.file: found {str(file)[:80]!r}, expected the name of a .tar beside the index")
    tar = folder / file
    try:
        tar_size = os.stat(tar).st_size
    except (OSError, ValueError) as error:
        raise DataError(f"{tar}: not readable ({getattr(error, 'strerror', error)})") from None
    if tar_size != size:
        raise DataError(f"{tar}: found {tar_size} bytes, expected the {size} of the index")
    columns: list[Any] = [shard.get(name) for name in ("offsets", "sizes", "names", "classes")]
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        raise DataError(f"{where}: expected offsets, sizes, names and classes of equal length")
    offsets, sizes, names, classes = columns
    if not _texts(names):
        raise DataError(f"{where}.names: expected text only")
    for clip, (start, length, of_clip) in enumerate(zip(offsets, sizes, classes, strict=True)):
        if not (_is_int(start) and _is_int(length) and start >= 0 and 0 <= length <= tar_size - start):
            raise DataError(f"{where}: clip {clip}: found offset {start!r} and size {length!r} in {tar_size} bytes")
        if not (isinstance(of_clip, list) and all(_is_int(c) and 0 <= c < len(checked.mids) for c in of_clip)):
            known = f"some of {len(checked.mids)} labels"
            raise DataError(f"{where}: clip {clip}: found classes {of_clip!r}, expected {known}")
        checked.members.append(ShardMember(tar, start, length, names[clip]))
        checked.classes.append(tuple(of_clip))


def _texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class ShardSchedule(BatchSchedule):
    """Shuffled epochs that keep reading local: for shards on disks that seek slowly, or in object storage.

    Each epoch goes through the shards in a new order, a few at a time, and shuffles the clips within those few. If the
    clips were shuffled before packing (`flexiast pack --shuffle`), this is close to a full shuffle.
    """

    def __init__(self, counts: Sequence[int], batch_size: int, seed: int, at_once: int = 4) -> None:
        """counts: clips in each shard. at_once: number of shards whose clips are mixed."""
        super().__init__(sum(counts), batch_size, seed)
        self.counts, self.at_once = tuple(counts), at_once

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        ends = np.cumsum(self.counts)
        order = rng.permutation(len(ends))
        groups = (order[i : i + self.at_once] for i in range(0, len(order), self.at_once))
        return np.concatenate([rng.permutation(_clips(group, ends, self.counts)) for group in groups])


def _clips(shards: Iterable[int], ends: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Indices of the clips in these shards."""
    return np.concatenate([np.arange(ends[shard] - counts[shard], ends[shard]) for shard in shards])
