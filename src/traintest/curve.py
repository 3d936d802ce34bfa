"""Measure a model's curve on validation data: one pass over the clips, then calibration and the cascades' search.

Dimensions: K sizes, n clips, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.cascade import Followed, Rule, follow, temper
from ..classifier.curve import Cascade, Curve, Point
from ..classifier.latency import machine, measure_seconds
from ..data.manifest import Manifest
from ..models.config import Loss
from ..models.geometry import PatchSize
from ..runtime.arguments import Precision
from .calibration import calibration_error, fit_temperature
from .cascade_search import Chain, pareto, search
from .evaluate import Result, sweep, targets_of
from .metrics import accuracy, mean_average_precision, metric_of
from .regression import r_squared

Scores = dict[PatchSize, np.ndarray]
"""Scores (n, C) at each patch size, not temperature-scaled."""


def measure_curve(
    model: AudioClassifier,
    data: Manifest,
    patch_sizes: Sequence[PatchSize],
    *,
    batch_size: int = 32,
    workers: int = 2,
    precision: Precision = "auto",
    progress: bool = True,
    hop: float | None = None,
) -> tuple[Curve, list[Result]]:
    """The curve, which the model then has as `model.curve`, and the results that it comes from.

    The arguments are those of `sweep`, and so are the errors.
    """
    results = sweep(
        {"model": model}, data, patch_sizes, batch_size=batch_size, workers=workers, precision=precision,
        progress=progress, hop=hop,
    )  # fmt: skip
    curve = curve_from(results, targets_of(data, results[0].excluded), model.loss)
    for one in dict.fromkeys(("fp32", precision)):
        here = machine(model.kernel.device, one)
        if here not in curve.seconds:
            curve.seconds[here] = measure_seconds(model, patch_sizes, one).to_json()
    model.metadata["curve"] = curve.to_json()
    return curve, results


def curve_from(results: Sequence[Result], targets: np.ndarray, loss: Loss) -> Curve:
    """The curve of results with scores (n, C) and targets (n, C), without times."""
    points = [_point(result, targets, loss) for result in results]
    if loss == "mse":  # no confidence, and so no cascades
        alone = [Cascade(Rule((p.patch_size,)), (1.0,), p.gflops, p.score) for p in points]
        return Curve(metric_of(loss), len(targets), tuple(points), _front(alone), {})
    tempered = np.stack([temper(r.scores, p.temperature, loss) for r, p in zip(results, points, strict=True)])
    chains = search(tempered, targets, np.array([point.gflops for point in points]), loss)
    scores = {result.patch_size: result.scores for result in results}
    cascades = [_cascade(chain, points, scores, targets, loss) for chain in chains]
    # The search knows mAP by a stand-in only, and sums in another order.
    cascades += [Cascade(Rule((p.patch_size,), (), (p.temperature,)), (1.0,), p.gflops, p.score) for p in points]
    return Curve(metric_of(loss), len(targets), tuple(points), _front(cascades), {})


def _front(cascades: Sequence[Cascade]) -> tuple[Cascade, ...]:
    """Those that no other matches at the same or a lower cost, cheapest first."""
    numbered = [Chain((number,), (), False, one.gflops, one.score) for number, one in enumerate(cascades)]
    return tuple(cascades[chain.sizes[0]] for chain in pareto(numbered))


def _point(result: Result, targets: np.ndarray, loss: Loss) -> Point:
    temperature, ece_before, ece_after = 1.0, 0.0, 0.0
    if loss != "mse":
        temperature = fit_temperature(result.scores, targets, loss)
        ece_before = calibration_error(result.scores, targets, loss)
        ece_after = calibration_error(temper(result.scores, temperature, loss), targets, loss)
    return Point(
        result.patch_size, result.tokens, result.gflops, score_of(result.scores, targets, loss), temperature,
        ece_before, ece_after,
    )  # fmt: skip


def _cascade(chain: Chain, points: Sequence[Point], scores: Scores, targets: np.ndarray, loss: Loss) -> Cascade:
    mine = [points[number] for number in chain.sizes]
    rule = Rule(tuple(p.patch_size for p in mine), chain.thresholds, tuple(p.temperature for p in mine), chain.average)
    followed = replay(rule, scores, loss)
    reach = reach_of(followed, rule)
    cost = sum(share * point.gflops for share, point in zip(reach, mine, strict=True))
    return Cascade(rule, reach, cost, score_of(followed.scores, targets, loss))


def replay(rule: Rule, scores: Scores, loss: Loss) -> Followed:
    """What a rule makes of clips whose scores are known at all its sizes."""
    clips = len(scores[rule.sizes[0]])
    return follow(rule, loss, clips, lambda step, going: scores[rule.sizes[step]][going])


def reach_of(followed: Followed, rule: Rule) -> tuple[float, ...]:
    """Share of the clips that each size of the rule hears."""
    return tuple(float((followed.looks > step).mean()) for step in range(len(rule.sizes)))


def score_of(scores: np.ndarray, targets: np.ndarray, loss: Loss) -> float:
    """Accuracy (`ce`), mAP (`bce`; 0 without any positive) or the mean R2 of the targets (`mse`)."""
    if loss == "mse":
        return float(r_squared(scores.astype(np.float64), targets.astype(np.float64)).mean())
    score = accuracy(scores, targets) if loss == "ce" else mean_average_precision(scores, targets)
    return 0.0 if math.isnan(score) else score
