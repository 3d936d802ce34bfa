"""The cascades of models' curves on other data than they were searched on, against the models' single sizes.

Dimensions: n clips, C classes.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.cascade import Rule
from .cascade_search import worth
from .curve import Scores, reach_of, replay, score_of
from .evaluate import Result
from .metrics import metric_of
from .resampling import interval

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One cascade on this data, beside the best single size that costs no more."""

    model: str
    cascade: str
    """Its sizes from coarse to fine."""
    thresholds: str
    reach: str
    """Share of the clips that each size scored."""
    gflops: float
    """Mean over the clips."""
    ms: float
    """Milliseconds of forward passes for each clip in batches, from each size's own rate and `reach`."""
    score_name: str
    score: float
    by: str
    """The cost in which the single size costs no more: `gflops` or `ms`."""
    single: str
    """The best of those sizes, on this very data."""
    single_score: float
    difference: float
    """Of what a clip is worth on average: accuracy, or for multi-label models the average precision of a clip's own
    ranking of the classes."""
    low: float
    high: float
    """95 % interval of the difference, by resampling clips, the same for both."""


def compare_cascades(
    models: dict[str, AudioClassifier], results: Sequence[Result], targets: np.ndarray
) -> list[Comparison]:
    """Replay the cascades of every model that has a curve, with the thresholds and temperatures found there.

    results: of all models, with scores (n, C) at targets (n, C). A cascade with a size that was not measured is left
    out, and logged.
    """
    rows = []
    for name, model in models.items():
        measured = {r.patch_size: r for r in results if r.model == name and r.resize == "pi"}
        if model.curve is None or not measured:
            continue
        rules = [cascade.rule for cascade in model.curve.cascades]
        usable = [rule for rule in rules if set(rule.sizes) <= measured.keys()]
        if missing := {size for rule in rules for size in rule.sizes} - measured.keys():
            logger.warning(
                "model %s: %d of its %d cascades are left out, as patch size %s was not measured",
                name, len(rules) - len(usable), len(rules), ", ".join(map(str, sorted(missing))),
            )  # fmt: skip
        singles = [_Played(Rule((size,)), list(measured.values()), model, targets) for size in measured]
        for rule in usable:
            played = _Played(rule, list(measured.values()), model, targets)
            rows += [_compare(name, played, singles, by) for by in ("gflops", "ms")]
    return rows


class _Played:
    """A rule on this data: costs, score, and worth (n,) of each clip."""

    def __init__(self, rule: Rule, results: Sequence[Result], model: AudioClassifier, targets: np.ndarray) -> None:
        by_size = {result.patch_size: result for result in results}
        scores: Scores = {size: by_size[size].scores for size in rule.sizes}
        followed = replay(rule, scores, model.loss)
        self.rule, self.reach = rule, reach_of(followed, rule)
        looks = list(zip(self.reach, (by_size[size] for size in rule.sizes), strict=True))
        self.costs = {
            "gflops": sum(share * result.gflops for share, result in looks),
            "ms": sum(share * 1e3 / result.clips_per_second for share, result in looks),
        }
        self.score_name = metric_of(model.loss)
        self.score = score_of(followed.scores, targets, model.loss)
        self.worth = worth(followed.scores, targets, model.loss)


def _compare(name: str, played: _Played, singles: Sequence[_Played], by: str) -> Comparison:
    limit = played.costs[by] * (1 + 1e-9)
    cheapest = min(singles, key=lambda one: one.costs[by])
    within = [one for one in singles if one.costs[by] <= limit] or [cheapest]
    single = max(within, key=lambda one: one.worth.mean())
    difference = played.worth - single.worth
    low, high = interval(difference)
    return Comparison(
        model=name,
        cascade=str(played.rule),
        thresholds=" ".join(f"{threshold:.4g}" for threshold in played.rule.thresholds),
        reach=" ".join(f"{share:.3f}" for share in played.reach),
        gflops=played.costs["gflops"],
        ms=played.costs["ms"],
        score_name=played.score_name,
        score=played.score,
        by=by,
        single=str(single.rule),
        single_score=single.score,
        difference=float(difference.mean()),
        low=low,
        high=high,
    )
