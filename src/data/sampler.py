"""Choose the clips of each training batch as a pure function of (seed, step), so that resuming needs no state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError
from .arrays import Lists

MOST_MIXED = 4096
"""Clips of a stream that are mixed at a time, like a shuffle buffer of this size; LEAST_MIXED pieces at least."""
LEAST_MIXED = 8
"""Pieces of a stream that are mixed at a time at least."""


class Draw(NamedTuple):
    """A clip drawn for training: the epoch, and its index in the manifest."""

    epoch: int
    clip: int


class BatchSchedule:
    """An endless stream of shuffled epochs, one after the other, cut into batches of equal size.

    Each epoch has its own permutation of the n clips; clip k of the stream is number k mod n of epoch k // n. No clip
    is left out or comes twice in an epoch, and a batch may hold the end of one epoch and the start of the next. With
    `weights`, one per clip, an epoch is instead n draws with replacement, with probabilities proportional to them.
    """

    def __init__(self, clips: int, batch_size: int, seed: int, weights: np.ndarray | None = None) -> None:
        if clips < 1 or batch_size < 1:
            raise ConfigError(f"batches: found {clips} clips in batches of {batch_size}, expected at least 1 of each")
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self._shares = None if weights is None else weights / weights.sum()
        self._order = lru_cache(maxsize=2)(self._draw_epoch)

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        if self._shares is None:
            return rng.permutation(self.clips)
        return rng.choice(self.clips, size=self.clips, p=self._shares)

    def steps(self, epochs: float) -> int:
        """Number of batches that cover this many epochs; the last one is completed."""
        return -(-round(epochs * self.clips) // self.batch_size)

    def __getitem__(self, step: int) -> list[Draw]:
        """The batch of a step, counted from 0."""
        first = step * self.batch_size
        places = (divmod(k, self.clips) for k in range(first, first + self.batch_size))
        return [Draw(epoch, int(self._order(epoch)[position])) for epoch, position in places]

    def batches(self, start: int, stop: int) -> Iterator[list[Draw]]:
        """The batches of steps start, ..., stop - 1."""
        return (self[step] for step in range(start, stop))


class StreamSchedule(BatchSchedule):
    """Shuffled epochs of clips that come in pieces, of which only some are there at a time.

    Each epoch takes the pieces in a new order. The place of a clip is that of its piece, plus a number drawn from [0,
    `mixed`): so many pieces are mixed at a time, and one is done with before more than `mixed` later ones have begun.
    """

    def __init__(self, pieces: np.ndarray, batch_size: int, seed: int) -> None:
        """pieces: (n,) number of the piece that each clip is in."""
        super().__init__(len(pieces), batch_size, seed)
        numbers, self._pieces = np.unique(pieces, return_inverse=True)
        self.count = len(numbers)
        self.mixed = max(LEAST_MIXED, -(-MOST_MIXED * self.count // len(pieces)))

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.count)
        return np.argsort(order[self._pieces] + rng.uniform(0, self.mixed, self.clips), kind="stable")


def balancing_weights(classes: Lists) -> np.ndarray:
    """(n,) a weight per clip, given its classes: the sum over these of 1 / (number of clips of the class), as in AST.

    Clips without a class count as one more class.
    """
    counts, without = np.bincount(classes.flat), classes.sizes == 0
    shares = 1.0 / counts[classes.flat]
    weights = np.bincount(classes.owners, shares, len(classes)).astype(np.float64)  # of no shares, it is integers
    weights[without] = 1.0 / max(1, without.sum())
    return weights


def share_of(batch: Sequence[Draw], rank: int, size: int, unit: int = 1) -> list[Draw]:
    """The part of a batch for one of `size` processes; groups of `unit` clips in a row are never split."""
    units = -(-len(batch) // unit)
    return list(batch[units * rank // size * unit : units * (rank + 1) // size * unit])
