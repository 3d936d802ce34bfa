"""Temperature scaling (Guo et al., ICML 2017) and calibration error of scores.

Dimensions: n clips, C classes. Scores are probabilities; targets are 1 at each class of a clip.
"""

from __future__ import annotations

import numpy as np

from ..classifier.cascade import temper
from ..models.config import Loss

COLDEST, HOTTEST = 0.05, 20.0
BINS = 15
"""Bins of confidence, of equal width."""


def fit_temperature(scores: np.ndarray, targets: np.ndarray, loss: Loss) -> float:
    """The temperature from 0.05 to 20 that minimises the negative log-likelihood, found to a hundredth."""
    low, high = np.log(COLDEST), np.log(HOTTEST)
    best = 0.0
    while high - low > 1e-3:
        tried = np.linspace(low, high, 13)
        losses = [negative_log_likelihood(temper(scores, float(np.exp(t)), loss), targets, loss) for t in tried]
        best, step = tried[int(np.argmin(losses))], tried[1] - tried[0]
        low, high = max(low, best - step), min(high, best + step)
    return float(np.exp(best))


def negative_log_likelihood(scores: np.ndarray, targets: np.ndarray, loss: Loss) -> float:
    """Mean over the clips (for `bce`, over clips and classes), in nats."""
    bounded = np.clip(scores, 1e-12, 1 - 1e-12)
    if loss == "ce":
        shares = targets / np.maximum(targets.sum(axis=1, keepdims=True), 1)
        return float(-(shares * np.log(bounded)).sum(axis=1).mean())
    return float(-(targets * np.log(bounded) + (1 - targets) * np.log(1 - bounded)).mean())


def calibration_error(scores: np.ndarray, targets: np.ndarray, loss: Loss) -> float:
    """Expected calibration error over 15 bins of equal width: of the best class (`ce`) or of every class (`bce`)."""
    if loss == "ce":
        best = scores.argmax(axis=1)
        rows = np.arange(len(scores))
        stated, right = scores[rows, best], targets[rows, best]
    else:
        stated, right = scores.ravel(), targets.ravel()
    bins = np.minimum((stated * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=stated - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(stated))
