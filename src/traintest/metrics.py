"""Classification metrics on scores and multi-hot targets, exact, ties included.

Dimensions: n clips, C classes. Scores are any numbers that rank clips: probabilities or logits.
"""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import numpy as np

from ..errors import ConfigError


def _ranked(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True and false positives at every threshold of one class, and which ranks end a run of equal scores."""
    order = np.argsort(-scores, kind="stable")
    positive = targets[order] > 0
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(positive)[ends]
    return true, ends + 1 - true, ends


def _checked(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if scores.shape != targets.shape or scores.ndim != 2 or len(scores) == 0:
        raise ConfigError(
            f"metrics: found scores {scores.shape} and targets {targets.shape}, expected the same (clips, classes)"
        )
    if not np.isfinite(scores).all():
        raise ConfigError(f"metrics: found {int((~np.isfinite(scores)).sum())} scores that are not finite")
    return scores, targets


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision per class (C,) of scores and targets (n, C); NaN for a class without positives.

    The sum over thresholds of precision times the gain in recall, equal scores sharing one threshold, as
    scikit-learn defines it.
    """
    scores, targets = _checked(scores, targets)
    result = np.full(scores.shape[1], np.nan)
    for c in range(scores.shape[1]):
        true, false, _ = _ranked(scores[:, c], targets[:, c])
        if true[-1]:
            result[c] = np.sum(np.diff(true, prepend=0) * (true / (true + false))) / true[-1]
    return result


def roc_auc(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Area under the ROC curve per class (C,) of scores and targets (n, C); NaN without positives or negatives."""
    scores, targets = _checked(scores, targets)
    result = np.full(scores.shape[1], np.nan)
    for c in range(scores.shape[1]):
        true, false, _ = _ranked(scores[:, c], targets[:, c])
        if true[-1] and false[-1]:
            heights = true + np.concatenate([[0], true[:-1]])  # twice the mean height of each trapezoid
            result[c] = np.sum(np.diff(false, prepend=0) * heights) / (2.0 * true[-1] * false[-1])
    return result


def accuracy(scores: np.ndarray, targets: np.ndarray) -> float:
    """Share of clips whose highest score is at one of their classes (at equal scores the first class counts)."""
    scores, targets = _checked(scores, targets)
    return float((targets[np.arange(len(scores)), scores.argmax(axis=1)] > 0).mean())


def d_prime(auc: float) -> float:
    """Separation of two unit normals with this area under the ROC curve: sqrt(2) times the normal quantile."""
    if math.isnan(auc):
        return math.nan
    return math.sqrt(2.0) * NormalDist().inv_cdf(auc) if 0.0 < auc < 1.0 else math.copysign(math.inf, auc - 0.5)


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Scores of one model on one data set at one patch size."""

    accuracy: float
    """Share of clips whose top class is right, 0 to 1."""
    mAP: float
    """Mean over classes of the average precision (classes without positives left out)."""
    mAUC: float
    """Mean over classes of the area under the ROC curve."""
    d_prime: float
    """d' of the mean AUC, as AudioSet evaluations report it."""


def classification_metrics(scores: np.ndarray, targets: np.ndarray) -> Metrics:
    """All metrics of scores and targets (n, C)."""
    scores = np.asarray(scores)
    auc = _mean(roc_auc(scores, targets))
    return Metrics(accuracy(scores, targets), _mean(average_precision(scores, targets)), auc, d_prime(auc))


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else math.nan
