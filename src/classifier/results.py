"""What `predict` and `predict_windows` return.

Dimensions: C classes.
"""

from __future__ import annotations

import logging
from typing import NamedTuple, TypeVar

from torch import Tensor

from ..errors import DataError

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Prediction(NamedTuple):
    """One class and its score: a softmax probability (`ce`) or the class's own probability (`bce`)."""

    label: str
    score: float

    def __repr__(self) -> str:
        return f"Prediction(label={self.label!r}, score={self.score:.4g})"


class Window(NamedTuple):
    """Part of a clip, from `start` to `end` in seconds, and its scores (C,)."""

    start: float
    end: float
    scores: Tensor
    best: Prediction
    """The class with the highest score."""

    @property
    def label(self) -> str:
        """Name of the class with the highest score."""
        return self.best.label

    def __repr__(self) -> str:
        return f"Window({self.start:.2f} to {self.end:.2f} s, label={self.label!r}, score={self.best.score:.4g})"


class Results(list[list[T]]):
    """Results for a list of clips, in order; empty for a clip that could not be used."""

    def __init__(self, clips: int) -> None:
        super().__init__([] for _ in range(clips))
        self.errors: dict[int, DataError] = {}
        """Errors of the clips that could not be used, by position in the list."""

    def report(self) -> None:
        """Log how many clips could not be used. Raises DataError if that is all of them."""
        if not self.errors:
            return
        place, first = min(self.errors.items())
        if len(self.errors) == len(self):
            raise DataError(f"audio: found no usable clip among {len(self)}; the first: {first}")
        logger.warning(
            "%d of %d clips could not be used, see .errors; the first, clip %d: %s",
            len(self.errors), len(self), place, first,
        )  # fmt: skip
