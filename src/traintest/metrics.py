"""Classification metrics on scores and multi-hot targets, exact, ties included.

Dimensions: n clips, C classes. Scores are any numbers that rank clips: probabilities or logits.
"""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist
from typing import Literal

import numpy as np

from ..errors import ConfigError
from ..models.config import Loss

Score = Literal["accuracy", "mAP", "R2"]
BLOCK = 32
"""Classes laid out side by side at a time: few enough that a large evaluation needs no second copy of its scores."""


def _checked(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.shape != targets.shape or scores.ndim != 2 or len(scores) == 0:
        raise ConfigError(
            f"metrics: found scores {scores.shape} and targets {targets.shape}, expected the same (clips, classes)"
        )
    if not np.isfinite(scores).all():
        raise ConfigError(f"metrics: found {int((~np.isfinite(scores)).sum())} scores that are not finite")
    return scores, targets


def _ranking(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and area under the ROC curve, (C,) each.

    Both are sums over the positives alone: of how many clips, and how many positives, score as high or higher,
    and lower. So all it takes is to sort the scores, and to look up in them those of the few positives.
    """
    clips, classes = scores.shape
    precision, area = np.full(classes, np.nan), np.full(classes, np.nan)
    for first in range(0, classes, BLOCK):
        block = scores[:, first : first + BLOCK].T.copy()
        positive = targets[:, first : first + BLOCK].T.copy() > 0
        hits = [np.sort(row[mask]) for row, mask in zip(block, positive, strict=True)]  # scores of the positives
        block.sort(axis=1)
        for c, (row, hit) in enumerate(zip(block, hits, strict=True), start=first):
            lower, hits_lower = np.searchsorted(row, hit), np.searchsorted(hit, hit)
            if len(hit):
                precision[c] = np.mean((len(hit) - hits_lower) / (clips - lower))
            if 0 < len(hit) < clips:
                # Negatives below each positive, those of equal score half: all that are lower, minus positives.
                not_higher, hits_not_higher = np.searchsorted(row, hit, "right"), np.searchsorted(hit, hit, "right")
                twice_below = (lower - hits_lower).sum() + (not_higher - hits_not_higher).sum()
                area[c] = twice_below / (2 * len(hit) * (clips - len(hit)))
    return precision, area


def by_class(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`average_precision` and `roc_auc`, at little more than the cost of one."""
    return _ranking(*_checked(scores, targets))


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision per class (C,) of scores and targets (n, C); NaN for a class without positives.

    The sum over thresholds of precision times the gain in recall, equal scores sharing one threshold, as
    scikit-learn defines it.
    """
    return by_class(scores, targets)[0]


def roc_auc(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Area under the ROC curve per class (C,) of scores and targets (n, C); NaN without positives or negatives."""
    return by_class(scores, targets)[1]


def accuracy(scores: np.ndarray, targets: np.ndarray) -> float:
    """Share of clips whose highest score is at one of their classes (at equal scores the first class counts)."""
    scores, targets = _checked(scores, targets)
    return float((targets[np.arange(len(scores)), scores.argmax(axis=1)] > 0).mean())


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean of the average precision over the classes that have positives; NaN if none has."""
    return mean_of_known(average_precision(scores, targets))


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

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return dataclasses.asdict(self)


def metric_of(loss: Loss) -> Score:
    """Name in `Metrics` or `RegressionMetrics` of the score that models with this loss are compared by."""
    return "accuracy" if loss == "ce" else "mAP" if loss == "bce" else "R2"


def heading(metric: str) -> str:
    """A score's name above its numbers: all but R2, which may be negative, are shown in per cent."""
    return metric if metric == "R2" else f"{metric}, %"


def number(metric: str, value: float, digits: int = 1) -> str:
    """A score under its heading: 93.1, or 0.931 of R2. digits: after the point, of per cents."""
    return f"{value:.{digits + 2}f}" if metric == "R2" else f"{100 * value:.{digits}f}"


def figure(metric: str, value: float, digits: int = 1) -> str:
    """A score by itself: 93.1 %, or 0.931 of R2."""
    return number(metric, value, digits) + ("" if metric == "R2" else " %")


def classification_metrics(scores: np.ndarray, targets: np.ndarray) -> Metrics:
    """All metrics of scores and targets (n, C)."""
    precision, area = by_class(scores, targets)
    auc = mean_of_known(area)
    return Metrics(accuracy(scores, targets), mean_of_known(precision), auc, d_prime(auc))


def mean_of_known(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else math.nan
