"""Metrics of numbers to predict: R2, root mean squared error and Pearson's correlation, of each target and in the mean.

Dimensions: n clips, C targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError
from .metrics import mean_of_known


@dataclasses.dataclass(frozen=True)
class RegressionMetrics:
    """Scores of one model on one data set at one patch size."""

    R2: float
    """Mean over the targets of the share of the variance that is explained: 1 at best, 0 for predicting the mean, below
    0 for worse; for a target that is the same in all clips 0, or 1 if it is met, as in scikit-learn."""
    RMSE: float
    """Mean over the targets of the root mean squared error, in their units."""
    pearson: float
    """Mean over the targets of Pearson's correlation; targets or predictions that are all alike have none."""
    targets: dict[str, tuple[float, float, float]]
    """R2, RMSE and correlation of each target."""

    def as_dict(self) -> dict[str, float]:
        """By name; those of each target as `R2 NAME`, if there are several."""
        means = {"R2": self.R2, "RMSE": self.RMSE, "pearson": self.pearson}
        several = self.targets.items() if len(self.targets) > 1 else ()
        return means | {f"{kind} {name}": one[place] for place, kind in enumerate(means) for name, one in several}


def regression_metrics(scores: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> RegressionMetrics:
    """All metrics of predicted and true values (n, C) of targets with these names."""
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if scores.shape != targets.shape or scores.ndim != 2 or not len(scores) or scores.shape[1] != len(names):
        raise ConfigError(
            f"metrics: found values {scores.shape} and targets {targets.shape}, expected the same (clips, {len(names)})"
        )
    errors = scores - targets
    rmse = np.sqrt(np.square(errors).mean(axis=0))
    kinds = zip(r_squared(scores, targets), rmse, _pearson(scores, targets), strict=True)
    by_name = {name: (float(r2), float(e), float(p)) for name, (r2, e, p) in zip(names, kinds, strict=True)}
    r2, error, pearson = (mean_of_known(np.array(kind)) for kind in zip(*by_name.values(), strict=True))
    return RegressionMetrics(r2, error, pearson, by_name)


def r_squared(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """R2 (C,) of each target."""
    errors = np.square(scores - targets).sum(axis=0)
    spread = np.square(targets - targets.mean(axis=0)).sum(axis=0)
    return np.where(spread > 0, 1 - errors / np.where(spread > 0, spread, 1), np.where(errors > 0, 0.0, 1.0))


def _pearson(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Correlation (C,); NaN where either side is all alike."""
    one, other = scores - scores.mean(axis=0), targets - targets.mean(axis=0)
    size = np.sqrt(np.square(one).sum(axis=0) * np.square(other).sum(axis=0))
    alike = (np.ptp(scores, axis=0) == 0) | (np.ptp(targets, axis=0) == 0)
    return np.where(alike, np.nan, (one * other).sum(axis=0) / np.where(size > 0, size, 1))
