"""What a measurement says beyond its averages: intervals, calibration, classes, confusions, and model against model.

Each function returns rows of a table. Dimensions: n clips, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..classifier.audio_classifier import AudioClassifier
from ..models.config import Loss
from . import mistakes
from .calibration import calibration_error
from .cascade_search import worth
from .evaluate import Result
from .metrics import metric_of
from .resampling import interval, mean_average_precision_interval

Row = dict[str, Any]
MOST_CONFUSIONS = 100
"""Pairs of classes for each model and size."""


def uncertainty(result: Result, targets: np.ndarray, loss: Loss) -> Row:
    """Expected calibration error, and 95 % intervals of accuracy and mAP over resampled clips; of numbers to predict
    that of R2, with the variance of all clips."""
    if loss == "mse":
        return dict(zip(("R2_low", "R2_high"), interval(worth(result.scores, targets, loss)), strict=True))
    accuracy = interval(worth(result.scores, targets, "ce"))
    precision = mean_average_precision_interval(result.scores, targets)
    return {
        "ece": calibration_error(result.scores, targets, loss),
        "accuracy_low": accuracy[0],
        "accuracy_high": accuracy[1],
        "mAP_low": precision[0],
        "mAP_high": precision[1],
    }


def classes_of(results: Sequence[Result], targets: np.ndarray, names: Sequence[str]) -> list[Row]:
    """How well each result knows each class."""
    return [
        _which(result)
        | {"class": names[one.number], "support": one.clips, "AP": one.ap, "AUC": one.auc}
        | {"precision": one.precision, "recall": one.recall}
        for result in results
        for one in mistakes.class_scores(result.scores, targets)
    ]


def confusions_of(results: Sequence[Result], targets: np.ndarray, names: Sequence[str]) -> list[Row]:
    """The most frequent confusions of each result, over clips of one class."""
    rows = []
    for result in results:
        counts = mistakes.confusion(result.scores, targets)
        for true, taken, clips in mistakes.confusions(counts, MOST_CONFUSIONS):
            share = clips / counts[true].sum()
            rows.append(
                _which(result)
                | {"class": names[true], "taken_for": names[taken], "clips": clips, "share": float(share)}
            )
    return rows


def comparisons_of(results: Sequence[Result], models: Mapping[str, AudioClassifier], targets: np.ndarray) -> list[Row]:
    """Every two models (or kinds of resizing) at each patch size, clip by clip.

    difference: of what a clip is worth on average (see `cascade_search.worth`: accuracy, or a clip's own average
    precision if a model is multi-label, R2), the second less the first, with the 95 % interval over resamples of the
    clips, the same for both.
    """
    rows = []
    for patch in dict.fromkeys(result.patch_size for result in results):
        for one, other in combinations([result for result in results if result.patch_size == patch], 2):
            kinds = {models[result.model].loss for result in (one, other)}
            loss: Loss = next(iter(kinds)) if kinds in ({"ce"}, {"mse"}) else "bce"
            first, second = (worth(result.scores, targets, loss) for result in (one, other))
            low, high = interval(second - first)
            rows.append(
                {"patch_freq": patch.freq, "patch_time": patch.time}
                | {"first": _line(one), "second": _line(other)}
                | {"score_name": "clip AP" if loss == "bce" else metric_of(loss)}
                | {"first_score": float(first.mean()), "second_score": float(second.mean())}
                | {"difference": float((second - first).mean()), "low": low, "high": high}
            )
    return rows


def _which(result: Result) -> Row:
    patch = result.patch_size
    return {"model": result.model, "resize": result.resize, "patch_freq": patch.freq, "patch_time": patch.time}


def _line(result: Result) -> str:
    return f"{result.model} ({result.resize})"
