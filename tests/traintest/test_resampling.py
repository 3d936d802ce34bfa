"""Bootstrap intervals: the coverage they promise, and an mAP of resamples that is that of the resampled clips."""

import math

import numpy as np
import pytest

from flexiast.traintest.metrics import average_precision, mean_average_precision
from flexiast.traintest.resampling import (
    draws,
    interval,
    mean_average_precision_interval,
    resampled_average_precision,
)


def test_the_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    holds = [low <= 0.1 <= high for low, high in (interval(rng.normal(0.1, 1, 200)) for _ in range(80))]
    assert 0.87 <= np.mean(holds) <= 1
    assert interval(np.zeros(10)) == (0.0, 0.0)


def test_every_resample_has_as_many_clips_in_whatever_parts_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(draws(7, 50)))
    assert whole.shape == (50, 7)
    assert (whole.sum(axis=1) == 7).all()
    monkeypatch.setattr("flexiast.traintest.resampling._PART", 21)
    parts = list(draws(7, 50))
    assert len(parts) == 17
    assert np.array_equal(np.concatenate(parts), whole)


def test_average_precision_of_resamples_is_that_of_the_clips_repeated() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 8, size=(40, 1)) / 8  # with ties
    targets = (rng.random((40, 1)) < 0.2).astype(np.float32)
    counts = np.concatenate([np.ones((1, 40)), next(draws(40, 30))])
    found = resampled_average_precision(scores[:, 0], targets[:, 0], counts)
    for value, count in zip(found, counts.astype(int), strict=True):
        expected = average_precision(scores.repeat(count, axis=0), targets.repeat(count, axis=0))[0]
        assert value == pytest.approx(expected, nan_ok=True)
    nobody = resampled_average_precision(scores[:, 0], np.zeros(40), counts)
    assert np.isnan(nobody).all()


def test_the_interval_of_map_surrounds_it_and_narrows_with_more_clips() -> None:
    rng, widths = np.random.default_rng(0), []
    for clips in (50, 800):
        targets = np.eye(4)[rng.integers(4, size=clips)]
        scores = targets + rng.normal(0, 1, targets.shape)
        low, high = mean_average_precision_interval(scores, targets)
        assert low < mean_average_precision(scores, targets) < high
        widths.append(high - low)
    assert 2.5 < widths[0] / widths[1] < 6  # 4 by the square root of the number of clips
    assert all(map(math.isnan, mean_average_precision_interval(scores, np.zeros_like(targets))))
