"""Metrics against scikit-learn and golden values, ties and empty classes included."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from flexiast.errors import ConfigError
from flexiast.traintest.metrics import BLOCK, accuracy, average_precision, classification_metrics, d_prime, roc_auc

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics.npz"


@settings(max_examples=40, deadline=None)
@given(clips=st.integers(2, 60), levels=st.sampled_from([2, 3, 10, 10**9]), seed=st.integers(0, 2**32 - 1))
def test_average_precision_and_auc_are_those_of_scikit_learn(clips, levels, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=(clips, 3)) / levels  # few levels: many ties
    targets = rng.integers(2, size=(clips, 3))
    targets[:2] = [[1, 1, 1], [0, 0, 0]]  # each class has both
    columns = range(3)
    ap = [average_precision_score(targets[:, c], scores[:, c]) for c in columns]
    auc = [roc_auc_score(targets[:, c], scores[:, c]) for c in columns]
    np.testing.assert_allclose(average_precision(scores, targets), ap, atol=1e-12)
    np.testing.assert_allclose(roc_auc(scores, targets), auc, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_any_dtype_any_share_of_positives_and_more_classes_than_a_block(dtype, share):
    rng = np.random.default_rng(0)
    scores, classes = (100 * rng.standard_normal((200, BLOCK + 3))).astype(dtype), range(BLOCK + 3)
    scores[:20] *= 0  # 0 and -0 are equal scores
    targets = rng.random(scores.shape) < share
    targets[:2, :] = [[True], [False]]
    ap = [average_precision_score(targets[:, c], scores[:, c]) for c in classes]
    auc = [roc_auc_score(targets[:, c], scores[:, c]) for c in classes]
    np.testing.assert_allclose(average_precision(scores, targets), ap, atol=1e-12)
    np.testing.assert_allclose(roc_auc(scores, targets.astype(np.float32)), auc, atol=1e-12)


@pytest.mark.parametrize("shape", [(9, 1), (1, 9), (9, 9)])
def test_scores_and_targets_are_left_as_they_are(shape):
    scores, targets = np.random.default_rng(0).random((2, *shape))
    kept = scores.copy(), targets.copy()
    classification_metrics(scores, targets)
    np.testing.assert_array_equal((scores, targets), kept)


@pytest.mark.parametrize("kind", ["exact", "ties"])
def test_golden_metrics(kind):
    golden = np.load(GOLDEN)
    scores, targets = golden[f"score_{kind}"], golden["target"]
    np.testing.assert_allclose(average_precision(scores, targets), golden[f"AP_{kind}"], atol=1e-12)
    np.testing.assert_allclose(roc_auc(scores, targets), golden[f"auc_{kind}"], atol=1e-12)
    metrics = classification_metrics(scores, targets)
    assert metrics.mAP == pytest.approx(golden[f"AP_{kind}"].mean())
    assert metrics.mAUC == pytest.approx(golden[f"auc_{kind}"].mean())
    assert metrics.d_prime == pytest.approx(golden[f"dprime_{kind}"])


def test_golden_accuracy_of_one_class_per_clip():
    golden = np.load(GOLDEN)
    # The published accuracy compares with the first class of a clip; clips of several classes are another matter.
    first = np.eye(8)[golden["target"].argmax(axis=1)]
    assert accuracy(golden["score_exact"], first) == pytest.approx(golden["acc_exact"])


def test_accuracy_counts_any_class_of_a_clip_and_the_first_of_equal_scores():
    scores = np.array([[0.1, 0.9, 0.0], [0.5, 0.5, 0.1], [0.2, 0.3, 0.3], [1.0, 0.0, 0.0]])
    targets = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]])
    assert accuracy(scores, targets) == 0.75


def test_classes_that_cannot_be_ranked_are_left_out_of_the_means():
    scores = np.array([[0.9, 0.3, 0.2], [0.1, 0.8, 0.7]])
    targets = np.array([[1, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(average_precision(scores, targets), [1.0, np.nan, 1.0])
    np.testing.assert_array_equal(roc_auc(scores, targets), [1.0, np.nan, np.nan])
    metrics = classification_metrics(scores, targets)
    assert (metrics.mAP, metrics.mAUC, metrics.d_prime) == (1.0, 1.0, math.inf)


def test_without_any_positive_the_means_are_unknown():
    metrics = classification_metrics(np.eye(3), np.zeros((3, 3)))
    assert metrics.accuracy == 0.0
    assert all(math.isnan(value) for value in (metrics.mAP, metrics.mAUC, metrics.d_prime))


@pytest.mark.parametrize("auc", [0.01, 0.5, 0.7, 0.99])
def test_d_prime_is_the_normal_quantile(auc):
    assert d_prime(auc) == pytest.approx(math.sqrt(2) * norm.ppf(auc), abs=1e-12)


@pytest.mark.parametrize(("auc", "expected"), [(0.0, -math.inf), (1.0, math.inf)])
def test_d_prime_of_perfect_separation_is_infinite(auc, expected):
    assert d_prime(auc) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    scores = np.eye(3)
    scores[1, 2] = bad
    with pytest.raises(ConfigError, match="1 scores that are not finite"):
        classification_metrics(scores, np.eye(3))


@pytest.mark.parametrize(("scores", "targets"), [((3, 2), (3, 3)), ((3,), (3,)), ((0, 2), (0, 2))])
def test_shapes_that_do_not_fit_are_refused(scores, targets):
    with pytest.raises(ConfigError, match="expected the same"):
        classification_metrics(np.zeros(scores), np.zeros(targets))
