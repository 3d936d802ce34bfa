"""The cascade search on scores alone: its front is a front, beats every size, and says what its rules really do."""

import dataclasses
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexiast.classifier.cascade import ALWAYS, Rule, confidence, follow, rule_of, temper
from flexiast.classifier.curve import Curve
from flexiast.errors import CheckpointError, ConfigError
from flexiast.models.config import Loss
from flexiast.models.geometry import PatchSize
from flexiast.traintest.calibration import calibration_error, fit_temperature, negative_log_likelihood
from flexiast.traintest.cascade_search import search, worth
from flexiast.traintest.curve import curve_from, reach_of, replay, score_of
from flexiast.traintest.evaluate import Result
from flexiast.traintest.metrics import classification_metrics

SIZES = [PatchSize(s, s) for s in (48, 40, 32, 24, 20, 16, 12, 10, 8)]


def made_up(sizes: int, clips: int, classes: int, loss: Loss, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (K, n, C) that improve with cost, targets (n, C), and costs (K,)."""
    rng = np.random.default_rng(seed)
    if loss == "ce":
        targets = np.eye(classes, dtype=np.float32)[rng.integers(classes, size=clips)]
    else:
        targets = (rng.random((clips, classes)) < 0.3).astype(np.float32)
    strength = np.linspace(1.0, 2.0, sizes)[:, None, None]
    logits = 3 * (strength * targets + rng.normal(0, 1, (sizes, clips, classes))).astype(np.float32)
    scores = 1 / (1 + np.exp(-logits))
    if loss == "ce":
        scores = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return scores, targets, np.sort(rng.uniform(1, 30, sizes))


def results(scores: np.ndarray, targets: np.ndarray, costs: np.ndarray) -> list[Result]:
    return [
        Result("m", "pi", size, 10, cost, 1.0, 0.0, classification_metrics(one, targets), one)
        for size, cost, one in zip(SIZES, costs, scores, strict=False)
    ]


cases = given(
    st.integers(1, 5), st.integers(2, 60), st.integers(2, 6), st.sampled_from(["ce", "bce"]), st.integers(0, 10**6)
)


@cases
@settings(max_examples=40, deadline=None)
def test_the_front_rises_and_is_never_below_a_single_size(sizes, clips, classes, loss, seed) -> None:
    scores, targets, costs = made_up(sizes, clips, classes, loss, seed)
    curve = curve_from(results(scores, targets, costs), targets, loss)
    front = curve.cascades
    assert all(a.gflops < b.gflops and a.score < b.score for a, b in pairwise(front))
    for point in curve.points:
        assert max(c.score for c in front if c.gflops <= point.gflops + 1e-9) >= point.score - 1e-12


@cases
@settings(max_examples=40, deadline=None)
def test_a_found_chain_costs_and_gives_what_the_search_says(sizes, clips, classes, loss, seed) -> None:
    scores, targets, costs = made_up(sizes, clips, classes, loss, seed)
    by_size = dict(zip(SIZES, scores, strict=False))
    for chain in search(np.stack([temper(one, 1.0, loss) for one in scores]), targets, costs, loss):
        rule = Rule(tuple(SIZES[i] for i in chain.sizes), chain.thresholds, average=chain.average)
        followed = replay(rule, by_size, loss)
        cost = sum(share * costs[i] for share, i in zip(reach_of(followed, rule), chain.sizes, strict=True))
        assert cost == pytest.approx(chain.cost)
        assert worth(followed.scores, targets, loss).mean() == pytest.approx(chain.value)


def test_plain_averaging_is_among_the_candidates() -> None:
    """Three equally good sizes whose errors are independent: the best is the mean of all three, for every clip."""
    rng = np.random.default_rng(0)
    targets = np.eye(5, dtype=np.float32)[rng.integers(5, size=4000)]
    logits = 1.5 * targets + rng.normal(0, 1, (3, 4000, 5))
    scores = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    curve = curve_from(results(scores, targets, np.array([1.0, 1.1, 1.2])), targets, "ce")
    averaged = Rule(tuple(SIZES[:3]), (ALWAYS, ALWAYS), tuple(p.temperature for p in curve.points), True)
    plain = score_of(replay(averaged, dict(zip(SIZES, scores, strict=False)), "ce").scores, targets, "ce")
    assert curve.cascades[-1].score >= plain > max(p.score for p in curve.points) + 0.03
    assert curve.cascades[-1].rule.average


def test_two_thousand_clips_at_thirteen_sizes_take_seconds() -> None:
    scores, targets, costs = made_up(13, 2000, 35, "ce", 0)
    start = time.process_time()
    assert len(search(scores.astype(np.float64), targets, costs, "ce")) > 5
    assert time.process_time() - start < 30  # about 4 s on one core


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_the_temperature_undoes_a_scale_of_the_logits(loss: Loss) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (20_000, 4))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) if loss == "ce" else 1 / (1 + np.exp(-logits))
    if loss == "ce":
        targets = np.eye(4)[(true.cumsum(axis=1) < rng.random((len(true), 1))).sum(axis=1).clip(max=3)]
    else:
        targets = (rng.random(true.shape) < true).astype(float)
    too_sure = temper(true.astype(np.float32), 0.4, loss)
    temperature = fit_temperature(too_sure, targets, loss)
    assert temperature == pytest.approx(2.5, rel=0.05)
    mended = temper(too_sure, temperature, loss)
    assert calibration_error(mended, targets, loss) < 0.02 < calibration_error(too_sure, targets, loss)
    assert negative_log_likelihood(mended, targets, loss) <= negative_log_likelihood(too_sure, targets, loss)


def test_confidence_is_the_lead_of_the_best_class_or_what_the_most_uncertain_class_leaves() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])
    assert confidence(scores, "ce") == pytest.approx([0.5, 0.0])
    # entropy of 0.5 is 1 bit, of 0.11 it is 0.4999 bit
    assert confidence(np.array([[0.9999999, 0.5], [0.11, 0.0]]), "bce") == pytest.approx([0.0, 0.5], abs=1e-3)


def test_only_clips_in_doubt_are_heard_again() -> None:
    coarse = np.array([[0.9, 0.1], [0.55, 0.45], [0.2, 0.8]])
    asked = []

    def hear(step: int, going: np.ndarray) -> np.ndarray:
        asked.append(going.tolist())
        return coarse[going] if step == 0 else np.array([[0.05, 0.95]] * len(going))

    rule = Rule((PatchSize(48, 48), PatchSize(16, 16)), (0.5,), average=True)
    followed = follow(rule, "ce", 3, hear)
    assert asked == [[0, 1, 2], [1]]
    assert followed.looks.tolist() == [1, 2, 1]
    assert followed.scores[1] == pytest.approx([0.3, 0.7])


@pytest.mark.parametrize(
    ("sizes", "threshold", "said"),
    [
        ("48", 0.5, "cascade: found '48'"),
        ([48, 48], 0.5, "distinct"),
        ([48, 16], None, "threshold: found none"),
        ([48, 16], [0.5, 0.4], "threshold: found 2 for a cascade of 2 sizes, expected 1"),
        ([48, 16], -0.1, "threshold"),
        ([48, 16], "high", "threshold"),
        ([], 0.5, "cascade: found 0 sizes"),
    ],
)
def test_a_wrong_rule_is_refused(sizes, threshold, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rule_of(sizes, threshold)


def test_a_curve_survives_json_and_a_broken_one_is_named() -> None:
    scores, targets, costs = made_up(3, 50, 4, "ce", 1)
    curve = curve_from(results(scores, targets, costs), targets, "ce")
    curve = dataclasses.replace(curve, seconds={"cpu": {"48": 0.01}})
    assert Curve.from_json(curve.to_json()) == curve
    for broken in ({}, [], curve.to_json() | {"points": []}, curve.to_json() | {"cascades": [{"rule": 3}]}):
        with pytest.raises(CheckpointError, match="flexiast curve"):
            Curve.from_json(broken)
