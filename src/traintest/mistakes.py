"""What a model gets wrong: class by class, pair by pair, how sure of itself it is, and on which clips.

Dimensions: n clips, C classes.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .calibration import BINS
from .metrics import by_class


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """How well one class is recognised."""

    number: int
    clips: int
    """Clips of the class."""
    recall: float
    """Share of them whose top class it is; NaN without any."""
    precision: float
    """Share of the clips it is the top class of that are of it; NaN if it never is."""
    ap: float
    """Average precision; NaN without any clip."""
    auc: float
    """Area under the ROC curve; NaN without any clip of the class, or of others."""


@dataclasses.dataclass(frozen=True)
class Bin:
    """Clips whose top score lies between `low` and `high`."""

    low: float
    high: float
    clips: int
    confidence: float
    """Their mean top score; NaN without clips."""
    accuracy: float
    """Share of them whose top class is right; NaN without clips."""


def class_scores(scores: np.ndarray, targets: np.ndarray) -> list[ClassScore]:
    """Each class, in order, from scores and multi-hot targets (n, C)."""
    top, right = scores.argmax(axis=1), targets > 0
    (ap, auc), rows = by_class(scores, targets), []
    for c in range(scores.shape[1]):
        hits = float(right[top == c, c].sum())
        clips, predicted = int(right[:, c].sum()), int((top == c).sum())
        recall, precision = (hits / count if count else math.nan for count in (clips, predicted))
        rows.append(ClassScore(c, clips, recall, precision, float(ap[c]), float(auc[c])))
    return rows


def confusion(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(C, C) counts: clips of each class (rows) by their top class (columns); clips of several classes are left out."""
    single = (targets > 0).sum(axis=1) == 1
    counts = np.zeros((scores.shape[1],) * 2, dtype=int)
    np.add.at(counts, (targets[single].argmax(axis=1), scores[single].argmax(axis=1)), 1)
    return counts


def confusions(counts: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """The most frequent confusions (class, what it is taken for, clips) of a confusion matrix."""
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(int(i) // len(counts), int(i) % len(counts)) for i in order]
    return [(row, column, int(wrong[row, column])) for row, column in pairs if wrong[row, column]]


def calibration(scores: np.ndarray, targets: np.ndarray) -> list[Bin]:
    """How often the top class is right, by how sure the model is of it."""
    confidence, right = _top(scores, targets)
    place = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    bins = []
    for b in range(BINS):
        inside = place == b
        mean, share = (float(v[inside].mean()) if inside.any() else math.nan for v in (confidence, right))
        bins.append(Bin(b / BINS, (b + 1) / BINS, int(inside.sum()), mean, share))
    return bins


def hardest(scores: np.ndarray, targets: np.ndarray, most: int) -> list[int]:
    """Clips whose own classes score lowest, hardest first; clips without a class are left out."""
    lowest = np.where(targets > 0, scores, np.inf).min(axis=1)
    return [int(clip) for clip in np.argsort(lowest, kind="stable")[:most] if math.isfinite(lowest[clip])]


def confidently_wrong(scores: np.ndarray, targets: np.ndarray, most: int) -> list[int]:
    """Clips whose top class is wrong, the most confident first."""
    confidence, right = _top(scores, targets)
    order = np.argsort(-confidence, kind="stable")
    return [int(clip) for clip in order if not right[clip]][:most]


def furthest_off(values: np.ndarray, targets: np.ndarray, most: int) -> list[int]:
    """Clips whose predicted numbers (n, C) are furthest off, in standard deviations of each target; worst first."""
    spread = targets.std(axis=0)
    distance = (np.abs(values - targets) / np.where(spread > 0, spread, 1)).mean(axis=1)
    return [int(clip) for clip in np.argsort(-distance, kind="stable")[:most]]


def _top(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score of each clip's top class, and whether that is right."""
    rows, top = np.arange(len(scores)), scores.argmax(axis=1)
    return scores[rows, top], targets[rows, top] > 0
