"""Combine the scores of windows into scores of clips, as the windows come in.

Dimensions: B windows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from ..errors import ConfigError

Aggregate = Literal["mean", "max"]
"""How window scores are combined. `mean`: what lasts through the clip. `max`: what occurs anywhere in it."""


class Tally:
    """Clips in progress, and the combined scores of their windows so far."""

    def __init__(self, aggregate: Aggregate = "mean") -> None:
        """Raises ConfigError for an unknown aggregate."""
        if aggregate not in get_args(Aggregate):
            raise ConfigError(f"aggregate: found {aggregate!r}, expected one of {get_args(Aggregate)}")
        self.aggregate = aggregate
        self._clips: dict[int, tuple[Tensor, int]] = {}

    def add(self, clips: Sequence[int], scores: Tensor) -> None:
        """Add the scores (B, C) of windows of these clips."""
        for clip, new in zip(clips, scores, strict=True):
            before, windows = self._clips.get(clip, (None, 0))
            if before is not None:
                new = before + new if self.aggregate == "mean" else before.maximum(new)
            self._clips[clip] = new, windows + 1

    def take(self, clip: int) -> Tensor:
        """Return the scores (C,) of a clip whose windows are all in, and forget the clip."""
        scores, windows = self._clips.pop(clip)
        return scores / windows if self.aggregate == "mean" and windows > 1 else scores

    def drop(self, clip: int) -> None:
        """Forget a clip."""
        self._clips.pop(clip, None)
