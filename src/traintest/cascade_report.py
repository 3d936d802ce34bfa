"""The cascades of models' curves on other data than they were searched on, against the models' single sizes.

Dimensions: n clips, C classes.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.cascade import ALWAYS, Rule
from ..classifier.curve import Cascade
from .cascade_search import worth
from .curve import Scores, reach_of, replay, score_of
from .evaluate import Result
from .metrics import metric_of
from .resampling import interval

logger = logging.getLogger(__name__)
Cost = Literal["gflops", "ms"]
COSTS: tuple[Cost, ...] = ("gflops", "ms")


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


@dataclasses.dataclass(frozen=True)
class AtSize:
    """One single size, beside the model's cascade of the best validation score among those that cost no more here.

    No label of this data has a part in the choice.
    """

    model: str
    patch_size: str
    by: Cost
    """The cost in which the cascade costs no more."""
    cost: float
    """Of the single size, in GFLOPs or milliseconds; the other costs are in the same unit."""
    score_name: str
    score: float
    """Of the single size."""
    cascade: str
    """Its sizes from coarse to fine."""
    cascade_cost: float
    """Mean over the clips."""
    cascade_score: float
    difference: float
    """Cascade less single size, of what a clip is worth on average, as in `Comparison`."""
    low: float
    high: float
    """95 % interval of the difference, by resampling clips, the same for both."""
    plain_cost: float
    """Of the cascade's sizes all heard by every clip and averaged, with the same temperatures: no routing."""
    plain_score: float
    plain_difference: float
    """Cascade less this plain average."""
    plain_low: float
    plain_high: float


class CascadeReport(NamedTuple):
    """The cascades of all models that have a curve."""

    cascades: list[Comparison]
    """Two for each cascade, by GFLOPs and by time, in the order of the curve: validation scores rise."""
    at_sizes: list[AtSize]
    """At most two for each size that was measured, by GFLOPs and by time; none where every cascade costs more."""


def compare_cascades(
    models: dict[str, AudioClassifier], results: Sequence[Result], targets: np.ndarray
) -> CascadeReport:
    """Replay the cascades of every model that has a curve, with the thresholds and temperatures found there.

    results: of all models, with scores (n, C) at targets (n, C). A cascade with a size that was not measured is left
    out, and logged.
    """
    report = CascadeReport([], [])
    for name, model in models.items():
        measured = {r.patch_size: r for r in results if r.model == name and r.resize == "pi"}
        if model.curve is None or not measured:
            continue
        cascades = model.curve.cascades
        usable = [cascade for cascade in cascades if set(cascade.rule.sizes) <= measured.keys()]
        if missing := {size for cascade in cascades for size in cascade.rule.sizes} - measured.keys():
            logger.warning(
                "model %s: %d of its %d cascades are left out, as patch size %s was not measured",
                name, len(cascades) - len(usable), len(cascades), ", ".join(map(str, sorted(missing))),
            )  # fmt: skip
        heard = list(measured.values())
        singles = [_Played(Rule((size,)), heard, model, targets) for size in measured]
        played = [(cascade, _Played(cascade.rule, heard, model, targets)) for cascade in usable]
        report.cascades.extend(_compare(name, one, singles, by) for _, one in played for by in COSTS)
        plain = [_Played(_plain(cascade.rule), heard, model, targets) for cascade in usable]
        report.at_sizes.extend(_at_sizes(name, singles, played, plain))
    return report


class _Played:
    """A rule on this data: costs, score, and worth (n,) of each clip."""

    def __init__(self, rule: Rule, results: Sequence[Result], model: AudioClassifier, targets: np.ndarray) -> None:
        by_size = {result.patch_size: result for result in results}
        scores: Scores = {size: by_size[size].scores for size in rule.sizes}
        followed = replay(rule, scores, model.loss)
        self.rule, self.reach = rule, reach_of(followed, rule)
        looks = list(zip(self.reach, (by_size[size] for size in rule.sizes), strict=True))
        self.costs: dict[Cost, float] = {
            "gflops": sum(share * result.gflops for share, result in looks),
            "ms": sum(share * 1e3 / result.clips_per_second for share, result in looks),
        }
        self.score_name = metric_of(model.loss)
        self.score = score_of(followed.scores, targets, model.loss)
        self.worth = worth(followed.scores, targets, model.loss)


def _plain(rule: Rule) -> Rule:
    """The mean of the same sizes for every clip."""
    return dataclasses.replace(rule, thresholds=(ALWAYS,) * len(rule.thresholds), average=True)


def _at_sizes(
    name: str, singles: Sequence[_Played], cascades: Sequence[tuple[Cascade, _Played]], plain: Sequence[_Played]
) -> list[AtSize]:
    """A row for each single size and cost, cheapest first; none for a size that every cascade costs more than."""
    rows = []
    for by in COSTS:
        for single in sorted(singles, key=lambda one: one.costs[by]):
            limit = single.costs[by] * (1 + 1e-9)
            within = [number for number, (_, one) in enumerate(cascades) if one.costs[by] <= limit]
            if within:
                best = max(within, key=lambda number: cascades[number][0].score)
                rows.append(_at_size(name, single, cascades[best][1], plain[best], by))
    return rows


def _at_size(name: str, single: _Played, cascade: _Played, plain: _Played, by: Cost) -> AtSize:
    difference, routing = cascade.worth - single.worth, cascade.worth - plain.worth
    (low, high), (plain_low, plain_high) = interval(difference), interval(routing)
    return AtSize(
        model=name,
        patch_size=str(single.rule),
        by=by,
        cost=single.costs[by],
        score_name=single.score_name,
        score=single.score,
        cascade=str(cascade.rule),
        cascade_cost=cascade.costs[by],
        cascade_score=cascade.score,
        difference=float(difference.mean()),
        low=low,
        high=high,
        plain_cost=plain.costs[by],
        plain_score=plain.score,
        plain_difference=float(routing.mean()),
        plain_low=plain_low,
        plain_high=plain_high,
    )


def _compare(name: str, played: _Played, singles: Sequence[_Played], by: Cost) -> Comparison:
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
