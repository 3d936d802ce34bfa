"""Bootstrap over clips (Efron, 1979): 95 % intervals of means and of mAP, by the percentiles of resamples.

Dimensions: n clips, C classes, R resamples, r resamples of a part that fits the memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

RESAMPLES = 2000
FEWEST = 50
"""Resamples of an mAP over very many scores, see `mean_average_precision_interval`."""
_PART = 1 << 22
"""Draws held in memory at once."""
_WORK = 1 << 25
"""Scores times resamples that an mAP's interval may go through, about a second."""


def draws(clips: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each clip is drawn in each resample, (r, n) float64, all parts together R; the same for equal seeds."""
    rng, size = np.random.default_rng(seed), max(1, _PART // clips)
    for first in range(0, resamples, size):
        rows = min(size, resamples - first)
        drawn = rng.integers(clips, size=(rows, clips)) + clips * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * clips).reshape(rows, clips).astype(np.float64)


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of values (n,)."""
    return _percentiles(np.concatenate([counts @ values for counts in draws(len(values), seed=seed)]) / len(values))


def mean_average_precision_interval(scores: np.ndarray, targets: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mAP of scores and targets (n, C): of as many resamples as take about a second, 50
    to 2,000.

    Classes without positives in a resample are left out of its mean. NaN without any positive.
    """
    resamples = int(np.clip(_WORK // scores.size, FEWEST, RESAMPLES))
    classes = [c for c in range(scores.shape[1]) if targets[:, c].any()]
    values = []
    for counts in draws(len(scores), resamples, seed):
        total, present = np.zeros(len(counts)), np.zeros(len(counts))
        for c in classes:
            precision = resampled_average_precision(scores[:, c], targets[:, c], counts)
            there = ~np.isnan(precision)
            total[there] += precision[there]
            present += there
        values.append(total[present > 0] / present[present > 0])
    return _percentiles(np.concatenate(values))


def resampled_average_precision(scores: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average precision (r,) of scores and targets (n,) in which each clip occurs as often as counts (r, n) say.

    Equal scores share one threshold, as in `metrics.average_precision`; NaN without positives.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of clips of equal score
    ordered = counts[:, order]
    seen = ordered.cumsum(axis=1)[:, last]
    hits = (ordered * (targets[order] > 0)).cumsum(axis=1)[:, last]
    gained = np.diff(hits, prepend=0, axis=1)
    with np.errstate(invalid="ignore"):
        return (gained * hits / np.maximum(seen, 1)).sum(axis=1) / hits[:, -1]


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return math.nan, math.nan
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
