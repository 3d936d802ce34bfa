"""The clips of a manifest, in arrays: what they are read from, and their classes; a `Clip` is made when asked for.

Dimensions: n clips.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .arrays import Lists, Selectable, Selection, Texts
from .pieces import Piece, StreamedClip
from .shards import ShardMember

_MEMBER = np.dtype([("tar", np.int32), ("offset", np.int64), ("size", np.int64)])


@dataclass(frozen=True)
class Clip:
    """One audio file and the indices of its classes."""

    path: Path | ShardMember
    classes: tuple[int, ...]


class Paths(Selectable["Path | ShardMember"]):
    """What clips are read from: files, members of shards, or rows of a stream."""

    def __init__(self, names: Texts, tars: tuple[Path | Piece, ...] = (), members: np.ndarray | None = None) -> None:
        """names: a file's path as `str(path)` gives it, a member's name.

        members: (n,) for each clip its number in `tars`, -1 for a file, and its offset and size there, or its row in a
        piece; None if all are files.
        """
        self.names, self.tars, self.members = names, tars, members

    @classmethod
    def of(cls, paths: Iterable[Path | ShardMember]) -> Paths:
        """These paths."""
        names: list[str] = []
        tars: dict[Path, int] = {}
        members: list[tuple[int, int, int]] = []
        for path in paths:
            if isinstance(path, ShardMember):
                names.append(path.name)
                members.append((tars.setdefault(path.shard, len(tars)), path.offset, path.size))
            else:
                names.append(str(path))
                members += [(-1, 0, 0)] if tars else []
        if not tars:
            return cls(Texts.of(names))
        of_files = [(-1, 0, 0)] * (len(names) - len(members))  # before the first member
        return cls(Texts.of(names), tuple(tars), np.array(of_files + members, dtype=_MEMBER))

    @classmethod
    def of_pieces(cls, pieces: Sequence[Piece]) -> Paths:
        """Every row of these pieces, in order."""
        rows = np.array([piece.rows for piece in pieces])
        members = np.zeros(rows.sum(), _MEMBER)
        members["tar"] = np.repeat(np.arange(len(pieces)), rows)
        members["offset"] = np.concatenate([np.arange(count) for count in rows])
        return cls(Texts.of([name for piece in pieces for name in piece.names()]), tuple(pieces), members)

    def __len__(self) -> int:
        return len(self.names)

    def _one(self, place: int) -> Path | ShardMember:
        name = self.names[place]
        tar, offset, size = (-1, 0, 0) if self.members is None else self.members[place].item()
        if tar < 0:
            return Path(name)
        shard = self.tars[tar]
        if isinstance(shard, Piece):
            return StreamedClip.of(shard, offset, name)
        return ShardMember(shard, offset, size, name)

    def __iter__(self) -> Iterator[Path | ShardMember]:
        return map(Path, self.names) if self.members is None else map(self._one, range(len(self)))

    def take(self, selection: Selection) -> Paths:
        """Some of the paths."""
        members = None if self.members is None else self.members[selection]
        return Paths(self.names.take(selection), self.tars, members)

    def ends(self) -> Iterator[str]:
        """The last two parts of each path, with / between them."""
        for place, name in enumerate(self.names):
            last = f"/{name}".rsplit("/", 2)[1:]
            plain = len(last) == 2 and "" not in last and "." not in last and os.sep == "/"
            yield "/".join(last if plain else self[place].parts[-2:])

    def sizes(self) -> Iterator[int]:
        """Bytes of each, -1 if it does not exist; a single system call for a file, for slow disks."""
        known: Iterable[int] = itertools.repeat(-1)
        if self.members is not None:
            known = np.where(self.members["tar"] < 0, -1, self.members["size"]).tolist()
        for name, size in zip(self.names, known, strict=False):
            if size >= 0:
                yield size
                continue
            try:
                yield os.stat(name).st_size
            except OSError:
                yield -1

    @property
    def shards(self) -> np.ndarray | None:
        """(n,) number of the shard that each clip is in; None unless all of them are in shards."""
        if self.members is None or (self.members["tar"] < 0).any():
            return None
        return self.members["tar"]

    @property
    def pieces(self) -> np.ndarray | None:
        """(n,) number in `tars` of the piece that each clip is in; None unless they are streamed."""
        return self.shards if self.tars and isinstance(self.tars[0], Piece) else None


class Clips(Selectable[Clip]):
    """Clips, as a sequence that cannot be changed; equal to any other sequence of equal clips."""

    def __init__(self, paths: Paths, classes: Lists, values: np.ndarray | None = None) -> None:
        """values: (n, C) float32 numbers to predict, in place of classes, of which there are then none."""
        self.paths, self.classes, self.values = paths, classes, values

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> Clips:
        """These clips."""
        if isinstance(clips, Clips):
            return clips
        clips = list(clips)
        return cls(Paths.of(clip.path for clip in clips), Lists.of([clip.classes for clip in clips]))

    def __len__(self) -> int:
        return len(self.paths)

    def _one(self, place: int) -> Clip:
        return Clip(self.paths[place], self.classes[place])

    def __iter__(self) -> Iterator[Clip]:
        return map(Clip, self.paths, self.classes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"Clips({', '.join(map(repr, self[:3]))}{', ...' if len(self) > 3 else ''}; {len(self):,} in all)"

    def take(self, selection: Selection) -> Clips:
        """Some of the clips."""
        values = None if self.values is None else self.values[selection]
        return Clips(self.paths.take(selection), self.classes.take(selection), values)
