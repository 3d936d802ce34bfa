"""Draws of patch sizes that were tried and are not in the product, and losses that tie two sizes together.

Dimensions: B clips, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flexiast.models.geometry import PatchSize
from flexiast.runtime.device import autocast
from flexiast.traintest.losses import classification_loss, distillation_loss
from flexiast.traintest.objective import Inputs, Objective
from flexiast.traintest.patch_draws import Array, Weights, coarse
from flexiast.traintest.patch_sampler import PatchSampler


def by_area(start: float, end: float | None = None) -> Weights:
    """The side to a power that goes from `start` to `end` over the run."""

    def weights(areas: Array, costs: Array, progress: float) -> Array:
        return areas ** (0.5 * (start + ((start if end is None else end) - start) * progress))

    return weights


def two_draws(begin: float, end: float, fine: float) -> Weights:
    """Two draws by the side at once: of coarse sizes, from side^2.5 to side^1.6, and of fine ones, side^`fine`.

    begin, end: share of the former at the start and at the end of the run.
    """

    def weights(areas: Array, costs: Array, progress: float) -> Array:
        share = begin + (end - begin) * progress
        coarse, rest = areas ** (1.25 - 0.45 * progress), areas ** (0.5 * fine)
        return share * coarse / coarse.sum() + (1 - share) * rest / rest.sum()

    return weights


class LossDriven(PatchSampler):
    """`coarse`, times how far the training loss at a size is above that of the best size: what lags is drawn more.

    Losses are running means over nine ranges of the side; the draw depends on the run, not on (seed, step) alone.
    """

    strength = 2.0
    memory = 0.98

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        edges = np.geomspace(self.areas.min(), self.areas.max() * 1.001, 10)
        self.group = np.clip(np.digitize(self.areas, edges) - 1, 0, 8)
        self.losses = np.full(9, np.nan)

    def heard(self, patch: PatchSize, loss: float) -> None:
        """Take note of the loss of a step."""
        group = self.group[self.sizes.index(patch)]
        old = self.losses[group]
        self.losses[group] = loss if np.isnan(old) else self.memory * old + (1 - self.memory) * loss

    def shares(self, step: int) -> Array:
        weights = coarse(self.areas, self.costs, 0.0)
        if not np.isnan(self.losses).any():
            weights = weights * (self.losses / self.losses.min())[self.group] ** self.strength
        return weights / weights.sum()


class Sandwich(PatchSampler):
    """Each batch in three parts: the finest size, the coarsest, and one drawn as `coarse`."""

    def mean_cost(self) -> float:
        return float((self.costs[0] + self.costs[-1] + super().mean_cost()) / 3)

    def __getitem__(self, step: int) -> tuple[PatchSize, ...]:
        return (self.sizes[0], self.sizes[-1], *super().__getitem__(step))


class Twins:
    """The same clips at two sizes, the finer one first; the coarser one also learns from what the finer one says.

    Takes the place of an objective whose batch holds the clips twice.
    """

    def __init__(self, objective: Objective, share: float) -> None:
        """share: weight of the finer size's answer against the labels, at the coarser size."""
        self.share, self.loss = share, objective.loss
        self.device, self.precision = objective.device, objective.precision
        self.finer: Tensor | None = None

    def __call__(self, network: nn.Module, inputs: Inputs, patch: PatchSize) -> Tensor:
        with autocast(self.device, self.precision):
            logits = network(inputs.student, patch).float()
        loss = classification_loss(logits, inputs.targets, self.loss)
        finer, self.finer = self.finer, logits.detach() if self.finer is None else None
        if finer is None:
            return loss
        return (1 - self.share) * loss + self.share * distillation_loss(logits, finer, self.loss)


def twice(inputs: Inputs, patches: Sequence[PatchSize]) -> tuple[Inputs, list[PatchSize]]:
    """The first half of the clips two times, and the two sizes, the finer one first."""
    half = next(inputs.parts(-(-len(inputs.targets) // 2)))
    student = half.student * 2 if isinstance(half.student, list) else torch.cat([half.student] * 2)
    doubled = Inputs(student, None, torch.cat([half.targets] * 2))
    return doubled, sorted(patches, key=lambda size: size.freq * size.time)
