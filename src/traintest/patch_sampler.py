"""The patch size of a training step: a pure function of (seed, step), the same on every rank and after a resume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError
from ..models.geometry import PatchSize

_STREAM = 1  # so that a step's patch size and an epoch's order of clips (BatchSchedule) come from different draws


class PatchSampler:
    """Draws one of `sizes` for each step, uniformly or with `weights` (any positive scale)."""

    def __init__(self, sizes: Sequence[PatchSize], weights: Sequence[float] = (), seed: int = 0) -> None:
        if not sizes or len(set(sizes)) != len(sizes):
            raise ConfigError(f"patches.sizes: found {[str(s) for s in sizes]}, expected one or more distinct sizes")
        if weights and (len(weights) != len(sizes) or not all(0 < w < float("inf") for w in weights)):
            raise ConfigError(
                f"patches.weights: found {list(weights)}, expected {len(sizes)} positive numbers, one per size"
            )
        self.sizes, self.weights, self.seed = tuple(sizes), tuple(weights), seed
        shares = np.asarray(weights or [1.0] * len(sizes), dtype=np.float64)
        self.shares = shares / shares.sum()

    def __getitem__(self, step: int) -> PatchSize:
        """The size of a step, counted from 0."""
        return self.sizes[np.random.default_rng([self.seed, step, _STREAM]).choice(len(self.sizes), p=self.shares)]
