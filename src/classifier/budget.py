"""A budget, such as `20ms`, `5GFLOPs`, `256tokens` or `accuracy>=0.9`, and the choice that keeps it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal

from ..errors import ConfigError
from ..models.geometry import PatchSize
from ..runtime.arguments import Precision
from .cascade import Rule, rule_of
from .curve import Cascade, Curve, Point
from .latency import Times, seconds_of
from .listening import Listener
from .results import Choice

Kind = Literal["ms", "GFLOPs", "tokens", "score"]
FORMS = "20ms, 0.1s, 5GFLOPs, 256tokens, or accuracy>=0.9"
_UNITS: dict[str, tuple[Kind, float]] = {
    "ms": ("ms", 1.0),
    "s": ("ms", 1e3),
    "mflops": ("GFLOPs", 1e-3),
    "gflops": ("GFLOPs", 1.0),
    "tflops": ("GFLOPs", 1e3),
    "tokens": ("tokens", 1.0),
}
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
MISSING = "the model has no curve, expected one in its checkpoint: flexiast curve CHECKPOINT --data VALIDATION"


@dataclasses.dataclass(frozen=True)
class Budget:
    """At most so many milliseconds, GFLOPs or tokens, or at least such a score."""

    kind: Kind
    limit: float
    text: str
    """As it was given."""
    score_name: str = ""
    """accuracy, mAP or R2, for a `score`."""

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget. Raises ConfigError for anything else than `FORMS`."""
        if isinstance(text, str):
            if match := re.fullmatch(rf"\s*{_NUMBER}\s*([a-zA-Z]+)\s*", text):
                unit = match[2].lower()
                unit = unit if unit in _UNITS else unit + "s"  # 1 token, 5 GFLOP
                if unit in _UNITS and float(match[1]) > 0:
                    kind, factor = _UNITS[unit]
                    return cls(kind, float(match[1]) * factor, text.strip())
            elif match := re.fullmatch(rf"\s*(accuracy|mAP|R2)\s*>=\s*{_NUMBER}\s*(%?)\s*", text, re.IGNORECASE):
                limit = float(match[2]) / (100 if match[3] else 1)
                if limit <= 1:
                    names = {"map": "mAP", "r2": "R2", "accuracy": "accuracy"}
                    return cls("score", limit, text.strip(), names[match[1].lower()])
        raise ConfigError(f"budget: found {text!r}, expected a form such as {FORMS}")

    def __str__(self) -> str:
        return self.text


def cascade_arguments(cascade: Sequence[str], threshold: Sequence[float]) -> tuple[Any, Any]:
    """A command's options `--cascade` and `--threshold` as the arguments of `choose`."""
    sizes = "auto" if list(cascade) == ["auto"] else list(cascade) or None
    return sizes, (threshold[0] if len(threshold) == 1 else tuple(threshold) or None)


def choose(
    model: Listener, budget: str | None, cascade: Any = None, threshold: Any = None, precision: Precision = "fp32"
) -> Choice:
    """The rule for a budget, a cascade, or both; see `AudioClassifier.predict`.

    Raises ConfigError for what cannot be read or kept, and where a curve is needed and there is none.
    """
    parsed = None if budget is None else Budget.parse(budget)
    curve = model.curve
    if cascade is not None and model.loss == "mse":
        raise ConfigError(
            "cascade: found one for a model that predicts numbers, which have no confidence to go by; expected a patch"
            " size, or a budget by the curve"
        )
    if cascade is not None and cascade != "auto":
        if parsed:
            raise ConfigError("budget: found it beside the sizes of a cascade, expected one of them, or cascade='auto'")
        rule = rule_of(cascade, threshold)
        points = [curve.point(size) if curve else None for size in rule.sizes]
        temperatures = tuple(point.temperature if point else 1.0 for point in points)
        off = [str(size) for size, point in zip(rule.sizes, points, strict=True) if curve and point is None]
        reason = f"as asked for; not on the curve, so not calibrated: {', '.join(off)}" if off else "as asked for"
        return Choice(dataclasses.replace(rule, temperatures=temperatures), reason)
    if threshold is not None:
        raise ConfigError("threshold: found it without sizes, expected it beside cascade=[...]; auto brings its own")
    if curve is None:
        raise ConfigError(f"{'cascade' if parsed is None else 'budget'}: {MISSING}")
    if parsed and parsed.kind == "score" and parsed.score_name != curve.score_name:
        raise ConfigError(f"budget: found {parsed.score_name}, expected {curve.score_name}, which the curve measures")
    times = Times(0.0, {})
    if parsed and parsed.kind == "ms":
        times = seconds_of(model, [point.patch_size for point in curve.points], curve.seconds, precision)
    if cascade is None:
        return _choose(curve, parsed, [_alone(point) for point in curve.points], times)
    return _choose(curve, parsed, curve.cascades, times)


def _alone(point: Point) -> Cascade:
    """One size for every clip, its scores as they are."""
    return Cascade(Rule((point.patch_size,)), (1.0,), point.gflops, point.score)


def _mean_cost(curve: Curve, candidate: Cascade, kind: Kind, times: Times) -> float:
    """Of a clip, in the unit of a kind of budget; of a cascade, with the shares of clips that validation gave."""
    if kind == "ms":
        return 1e3 * times.mean(candidate.rule.sizes, candidate.reach)
    points = [_point(curve, size) for size in candidate.rule.sizes]
    costs = [point.gflops if kind == "GFLOPs" else float(point.tokens) for point in points]
    return sum(share * cost for share, cost in zip(candidate.reach, costs, strict=True))


def _choose(curve: Curve, budget: Budget | None, candidates: Sequence[Cascade], times: Times) -> Choice:
    """The best candidate within the budget; of equal ones the cheapest."""
    kind: Kind = "GFLOPs" if budget is None or budget.kind == "score" else budget.kind
    costs = [_mean_cost(curve, candidate, kind, times) for candidate in candidates]
    rated = sorted(zip(costs, candidates, strict=True), key=lambda pair: pair[0])
    if budget is None:
        within = rated
    elif budget.kind == "score":
        within = [pair for pair in rated if pair[1].score >= budget.limit][:1]
    else:
        within = [pair for pair in rated if pair[0] <= budget.limit * (1 + 1e-9)]
    if not within:
        cost, nearest = max(rated, key=lambda pair: pair[1].score) if budget.kind == "score" else rated[0]  # type: ignore[union-attr]
        name = "best" if budget and budget.kind == "score" else "cheapest"
        raise ConfigError(
            f"budget: found {budget}, which no size of the curve keeps; the {name}, {nearest.rule}, takes"
            f" {_cost(cost, kind, nearest)} for {curve.score_name} {nearest.score:.3f}"
        )
    cost, best = max(within, key=lambda pair: pair[1].score)  # the first, and so the cheapest, of equal ones
    why = "best of the curve" if budget is None else f"{'cheapest' if budget.kind == 'score' else 'best'} for {budget}"
    return Choice(
        best.rule,
        f"{why}: {_cost(cost, kind, best)}, {curve.score_name} {best.score:.3f} on {curve.clips} validation clips",
    )


def _cost(cost: float, kind: Kind, chosen: Cascade) -> str:
    several = len(chosen.rule.sizes) > 1
    note = " at the 95th percentile on this machine" if kind == "ms" else ""
    return f"{cost:.3g} {kind}{' a clip on average' if several else ''}{note}"


def _point(curve: Curve, size: PatchSize) -> Point:
    point = curve.point(size)
    if point is None:
        raise ConfigError(f"curve: a cascade uses patch size {size}, which was not measured; run flexiast curve again")
    return point
