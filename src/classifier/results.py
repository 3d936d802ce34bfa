"""What `predict` and `predict_windows` return.

Dimensions: C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from torch import Tensor

from ..errors import DataError
from ..models.geometry import PatchSize
from .cascade import Rule

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Prediction(NamedTuple):
    """One class and its score: a softmax probability (`ce`) or the class's own probability (`bce`); of a regression
    (`mse`) a target's name and its value."""

    label: str
    score: float

    def __repr__(self) -> str:
        return f"Prediction(label={self.label!r}, score={self.score:.4g})"


class Choice(NamedTuple):
    """What was chosen for a budget or a cascade."""

    rule: Rule
    reason: str
    """In words: what it costs, what it gives, and on what data."""

    def __repr__(self) -> str:
        return f"{self.rule} ({self.reason})"


class Heard(list[T]):
    """What was made of a clip: a list that also says how the clip was scored."""

    def __init__(
        self, made: Iterable[T] = (), patch_sizes: tuple[PatchSize, ...] = (), choice: Choice | None = None
    ) -> None:
        super().__init__(made)
        self.patch_sizes = patch_sizes
        """The sizes that scored this clip, from coarse to fine; for a clip in several windows, all that scored any."""
        self.choice = choice
        """What was chosen and why, if a budget or a cascade was asked for."""

    def __repr__(self) -> str:
        if self.choice is None:
            return super().__repr__()
        return f"<{super().__repr__()} scored at {' > '.join(map(str, self.patch_sizes))}; {self.choice!r}>"


class Predictions(Heard[Prediction]):
    """The best classes of a clip, best first."""


class Window(NamedTuple):
    """Part of a clip, from `start` to `end` in seconds, and its scores (C,)."""

    start: float
    end: float
    scores: Tensor
    predictions: list[Prediction]
    """The best classes, best first; as many as were asked for."""
    patch_sizes: tuple[PatchSize, ...] = ()
    """The sizes that scored it, from coarse to fine."""

    @property
    def best(self) -> Prediction:
        """The class with the highest score, and its score."""
        return self.predictions[0]

    @property
    def label(self) -> str:
        """Name of the class with the highest score."""
        return self.best.label

    def __repr__(self) -> str:
        return f"Window({self.start:.2f} to {self.end:.2f} s, label={self.label!r}, score={self.best.score:.4g})"


class Windows(Heard[Window]):
    """The windows of a clip, in order of time."""


class Results(list[list[T]]):
    """Results for a list of clips, in order; empty for a clip that could not be used."""

    def __init__(self, clips: int) -> None:
        super().__init__([] for _ in range(clips))
        self.errors: dict[int, DataError] = {}
        """Errors of the clips that could not be used, by position in the list."""
        self.choice: Choice | None = None
        """What was chosen and why, if a budget or a cascade was asked for."""

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
