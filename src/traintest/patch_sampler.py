"""The patch sizes of a training step: a pure function of (seed, step), the same on every rank and after a resume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError, require
from ..models.geometry import PatchSize
from .patch_draws import Array, Weights, uniform

_STREAM = 1  # so that a step's patch sizes and an epoch's order of clips (BatchSchedule) come from different draws


class PatchSampler:
    """Draws the sizes of each step: `parts` different ones, each for its part of the batch.

    weights: relative frequency of each size, on any positive scale; without them `draw` says how often each is drawn.
    costs: FLOPs of a clip at each size. steps: length of the run, which `draw` sees the progress of. square_share: how
    much of the draws is squares where there are both squares and rectangles (default: as the weights have it). Raises
    ConfigError if sizes, weights and parts do not go together.
    """

    def __init__(
        self,
        sizes: Sequence[PatchSize],
        weights: Sequence[float] = (),
        seed: int = 0,
        parts: int = 1,
        draw: Weights = uniform,
        costs: Sequence[float] = (),
        steps: int = 1,
        square_share: float | None = None,
    ) -> None:
        if not sizes or len(set(sizes)) != len(sizes):
            raise ConfigError(f"patches.sizes: found {[str(s) for s in sizes]}, expected one or more distinct sizes")
        if weights and (len(weights) != len(sizes) or not all(0 < w < float("inf") for w in weights)):
            raise ConfigError(
                f"patches.weights: found {list(weights)}, expected {len(sizes)} positive numbers, one per size"
            )
        require(1 <= parts <= len(sizes), "patches.parts", parts, f"1 to {len(sizes)}, the number of patch sizes")
        self.sizes, self.seed, self.parts, self.steps = tuple(sizes), seed, parts, max(1, steps)
        self.square = np.array([size.freq == size.time for size in sizes])
        self.square_share = None if self.square.all() or not self.square.any() else square_share
        self.weights = np.asarray(weights, dtype=np.float64) if weights else None
        self.draw = draw
        self.areas = np.array([size.freq * size.time / 64 for size in sizes])
        self.costs = np.asarray(costs if costs else np.ones(len(sizes)), dtype=np.float64)

    def shares(self, step: int) -> Array:
        """How likely each size is at a step; they sum to 1."""
        weights = self.weights
        if weights is None:
            weights = self.draw(self.areas, self.costs, min(1.0, step / self.steps))
        if self.square_share is None:
            return weights / weights.sum()
        squares, others = weights * self.square, weights * ~self.square
        return self.square_share * squares / squares.sum() + (1 - self.square_share) * others / others.sum()

    def mean_cost(self) -> float:
        """FLOPs of a clip's forward pass, averaged over the sizes drawn in the whole run."""
        moments = np.linspace(0, self.steps - 1, min(self.steps, 101)).round().astype(int)
        return float(np.mean([self.shares(step) @ self.costs for step in moments.tolist()]))

    def __getitem__(self, step: int) -> tuple[PatchSize, ...]:
        """The sizes of a step, counted from 0."""
        random = np.random.default_rng([self.seed, step, _STREAM])
        if self.parts == 1:
            return (self.sizes[random.choice(len(self.sizes), p=self.shares(step))],)
        drawn = random.choice(len(self.sizes), size=self.parts, replace=False, p=self.shares(step))
        return tuple(self.sizes[index] for index in drawn)
