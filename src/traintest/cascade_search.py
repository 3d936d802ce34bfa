"""The best cascades of up to three sizes, from the scores of every size on validation data; no model is run.

Every chain from coarse to fine is tried, routed and averaged, with thresholds at shares of the clips that go on. What
going on changes is summed up in order of confidence, so that all thresholds of a chain cost one cumulative sum.

Dimensions: K sizes, n clips, C classes, L levels.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from ..classifier.cascade import ALWAYS, averaged, confidence
from ..models.config import Loss

LEVELS = np.linspace(0.05, 1.0, 20)
"""Shares of the clips that go on to the next size; 1 is plain averaging, or the finer size after the coarse one."""


class Chain(NamedTuple):
    """A cascade by numbers of sizes."""

    sizes: tuple[int, ...]
    thresholds: tuple[float, ...]
    average: bool
    cost: float
    """Mean over the clips."""
    value: float
    """Mean over the clips of `worth`."""


def worth(scores: np.ndarray, targets: np.ndarray, loss: Loss) -> np.ndarray:
    """What scores (n, C) are worth for each clip, (n,), 0 to 1.

    `ce`: whether the best class is right, whose mean is the accuracy. `bce`: the average precision of the clip's own
    ranking of the classes (1 without positives), which stands in for mAP, as mAP is no mean over clips. `mse`: 1 less
    the squared error over the target's variance in these clips, at most 1, whose mean is R2.
    """
    if loss == "mse":
        variance = targets.astype(np.float64).var(axis=0)
        known = variance > 0
        share = np.square(scores.astype(np.float64) - targets)[:, known] / variance[known]
        return 1 - share.mean(axis=1) if known.any() else np.zeros(len(scores))
    if loss == "ce":
        return (targets[np.arange(len(scores)), scores.argmax(axis=1)] > 0).astype(np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(targets, order, axis=1) > 0
    precision = hits.cumsum(axis=1) / np.arange(1, scores.shape[1] + 1)
    positives = hits.sum(axis=1)
    return np.where(positives > 0, (precision * hits).sum(axis=1) / np.maximum(positives, 1), 1.0)


def search(scores: np.ndarray, targets: np.ndarray, costs: np.ndarray, loss: Loss) -> list[Chain]:
    """The Pareto front of cost and value, cheapest first; every step costs more and is worth more.

    scores: (K, n, C) probabilities, temperature-scaled. targets: (n, C). costs: (K,), of one clip.
    """
    order = np.argsort(costs, kind="stable")  # from coarse to fine
    search = _Search(scores[order], targets, np.asarray(costs, dtype=np.float64)[order], loss)
    return [chain._replace(sizes=tuple(int(order[size]) for size in chain.sizes)) for chain in pareto(search.all())]


def pareto(chains: list[Chain]) -> list[Chain]:
    """The chains that no other matches at the same or a lower cost."""
    front: list[Chain] = []
    for chain in sorted(chains, key=lambda chain: (chain.cost, -chain.value, len(chain.sizes))):
        if not front or chain.value > front[-1].value:
            front.append(chain)
    return front


class _Search:
    """Scores and costs that all chains share, sizes in order of cost."""

    def __init__(self, scores: np.ndarray, targets: np.ndarray, costs: np.ndarray, loss: Loss) -> None:
        self.scores, self.targets, self.costs, self.loss = scores, targets, costs, loss
        self.clips = scores.shape[1]
        self.worths = [worth(one, targets, loss) for one in scores]
        self.chains: list[Chain] = []

    def all(self) -> list[Chain]:
        """Every single size, and the front of each longer chain."""
        sizes = range(len(self.scores))
        for size in sizes:
            self.chains.append(Chain((size,), (), False, float(self.costs[size]), float(self.worths[size].mean())))
        for pair in combinations(sizes, 2):
            for average in (False, True):
                self._pair(*pair, average)
        return self.chains

    def _pair(self, first: int, second: int, average: bool) -> None:
        """Two sizes, and every third one after them."""
        sure = confidence(self.scores[first], self.loss)
        order = np.argsort(sure, kind="stable")
        scores = averaged(self.scores[first], self.scores[second], 1) if average else self.scores[second]
        worths = worth(scores, self.targets, self.loss) if average else self.worths[second]
        thresholds, counts = _levels(sure[order])
        value = self.worths[first].mean() + _gains(worths - self.worths[first], order, counts) / self.clips
        cost = self.costs[first] + counts / self.clips * self.costs[second]
        for best in _front(cost, value):
            chain = Chain((first, second), (float(thresholds[best]),), average, float(cost[best]), float(value[best]))
            self.chains.append(chain)
        self._thirds(first, second, average, order, scores, worths, thresholds, counts, cost, value)

    def _thirds(
        self, first: int, second: int, average: bool, order: np.ndarray, scores: np.ndarray, worths: np.ndarray,
        thresholds: np.ndarray, counts: np.ndarray, cost: np.ndarray, value: np.ndarray,
    ) -> None:  # fmt: skip
        """Chains that go on from a pair, at each of its levels, to every finer size."""
        third = range(second + 1, len(self.scores))
        if not third:
            return
        rank = np.empty(self.clips, dtype=np.int64)
        rank[order] = np.arange(self.clips)
        sure = confidence(scores, self.loss)
        in_doubt = np.argsort(sure, kind="stable")
        after = [self._after(scores, size) if average else self.worths[size] for size in third]
        levels = []
        for level, count in enumerate(counts):
            members = in_doubt[rank[in_doubt] < count]  # those that hear the second size, least confident first
            later, later_counts = _levels(sure[members])
            levels.append((level, members, later, later_counts))
        for size, gained in zip(third, after, strict=True):
            gain = gained - worths
            costs, values, keys = [], [], []
            for level, members, later, later_counts in levels:
                values.append(value[level] + _gains(gain, members, later_counts) / self.clips)
                costs.append(cost[level] + later_counts / self.clips * self.costs[size])
                keys += [(float(thresholds[level]), float(t)) for t in later]
            all_costs, all_values = np.concatenate(costs), np.concatenate(values)
            self.chains += [
                Chain((first, second, size), keys[i], average, float(all_costs[i]), float(all_values[i]))
                for i in _front(all_costs, all_values)
            ]

    def _after(self, scores: np.ndarray, size: int) -> np.ndarray:
        return worth(averaged(scores, self.scores[size], 2), self.targets, self.loss)


def _levels(sure: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds (L,) on sorted confidences, and how many clips are below each: none is counted that would stop."""
    wanted = np.unique(np.ceil(LEVELS * len(sure)).astype(int))
    thresholds = np.append(sure, ALWAYS)[wanted]
    counts = np.searchsorted(sure, thresholds, side="left")
    kept = np.flatnonzero(counts)
    return thresholds[kept], counts[kept]


def _gains(gain: np.ndarray, order: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sum of the gains of the first `counts` clips in this order."""
    return np.append(0.0, np.cumsum(gain[order]))[counts]


def _front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Indices of the Pareto front, cheapest first."""
    order = np.lexsort((-value, cost))
    best = np.maximum.accumulate(value[order])
    kept = np.ones(len(order), dtype=bool)
    kept[1:] = value[order][1:] > best[:-1]
    return order[kept]
