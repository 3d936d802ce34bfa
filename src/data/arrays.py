"""Millions of texts, or of short lists of numbers, in a few arrays.

A Python object for each would take several times the memory, and a forked process would copy it bit by bit: looking at
an object counts a reference to it, which writes to its page. Arrays are only read, so that processes share them.

Dimensions: n items, m numbers in all lists together.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, TypeAlias, TypeVar, overload

import numpy as np

_AT_ONCE = 1 << 14
"""Items that are looked up together in an iteration."""
T = TypeVar("T")
Selection: TypeAlias = "slice | np.ndarray"
"""Some of n items: a slice, (k,) indices, or (n,) booleans."""


class Selectable(Sequence[T]):
    """A sequence that cannot be changed, and gives selections of itself."""

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> Self: ...

    def __getitem__(self, place: int | slice) -> T | Self:
        return self.take(place) if isinstance(place, slice) else self._one(place)

    @abstractmethod
    def _one(self, place: int) -> T:
        """The item at a place."""

    @abstractmethod
    def take(self, selection: Selection) -> Self:
        """Some of the items."""


class Texts(Selectable[str]):
    """Texts, one after the other as UTF-8, and where each starts and ends; a selection shares the bytes."""

    def __init__(self, content: bytes, starts: np.ndarray, ends: np.ndarray) -> None:
        """starts, ends: (n,) int64 positions in the content."""
        self.content, self.starts, self.ends = content, starts, ends

    @classmethod
    def of(cls, texts: Sequence[str], prefix: str = "") -> Texts:
        """These texts, each with the prefix before it. Halves of characters (surrogates) are kept as they are."""
        whole = prefix + prefix.join(texts) if texts else ""
        if whole.isascii():
            sizes, content = np.fromiter(map(len, texts), np.int64, len(texts)) + len(prefix), whole.encode()
        else:
            encoded = [_encode(prefix + text) for text in texts]
            sizes, content = np.fromiter(map(len, encoded), np.int64, len(texts)), b"".join(encoded)
        ends = np.cumsum(sizes)
        return cls(content, ends - sizes, ends)

    def __len__(self) -> int:
        return len(self.starts)

    def _one(self, place: int) -> str:
        return _decode(self.content[self.starts[place] : self.ends[place]])

    def __iter__(self) -> Iterator[str]:
        for some in _parts(len(self)):
            places = zip(self.starts[some].tolist(), self.ends[some].tolist(), strict=True)
            yield from [_decode(self.content[start:end]) for start, end in places]

    def take(self, selection: Selection) -> Texts:
        """Some of the texts."""
        return Texts(self.content, self.starts[selection], self.ends[selection])

    def __reduce__(self) -> tuple[Callable[..., Texts], tuple[Any, ...]]:
        """A pickle holds only what is selected."""
        sizes = self.ends - self.starts
        if sizes.sum() == len(self.content):
            return Texts, (self.content, self.starts, self.ends)
        pieces = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        content = b"".join([self.content[start:end] for start, end in pieces])
        ends = np.cumsum(sizes)
        return Texts, (content, ends - sizes, ends)


class Lists(Selectable[tuple[int, ...]]):
    """Short lists of numbers, one after the other."""

    def __init__(self, flat: np.ndarray, offsets: np.ndarray) -> None:
        """flat: (m,) int32. offsets: (n + 1,) int64, list i is flat[offsets[i] : offsets[i + 1]]."""
        self.flat, self.offsets = flat, offsets

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Lists:
        """These lists."""
        offsets = _offsets(np.fromiter(map(len, lists), np.int64, len(lists)))
        return cls(np.fromiter(itertools.chain.from_iterable(lists), np.int32, offsets[-1]), offsets)

    @property
    def sizes(self) -> np.ndarray:
        """(n,) numbers in each list."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> np.ndarray:
        """(m,) which list each number is in."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _one(self, place: int) -> tuple[int, ...]:
        place = range(len(self))[place]
        return tuple(self.flat[self.offsets[place] : self.offsets[place + 1]].tolist())

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        for some in _parts(len(self)):
            bounds = self.offsets[some.start : some.stop + 1].tolist()
            numbers = self.flat[bounds[0] : bounds[-1]].tolist()
            for start, end in itertools.pairwise(bounds):
                yield tuple(numbers[start - bounds[0] : end - bounds[0]])

    def take(self, selection: Selection) -> Lists:
        """Some of the lists."""
        sizes = self.sizes[selection]
        offsets = _offsets(sizes)
        shifts = np.repeat(self.offsets[:-1][selection] - offsets[:-1], sizes)
        return Lists(self.flat[shifts + np.arange(offsets[-1])], offsets)


def _offsets(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def _parts(count: int) -> Iterable[slice]:
    return (slice(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE))


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decode(text: bytes) -> str:
    return str(text, "utf-8", "surrogatepass")
