"""Classes, confusions, calibration and clips of four clips and three classes, counted by hand."""

import math

import numpy as np
import pytest

from flexiast.traintest import mistakes
from flexiast.traintest.calibration import calibration_error

SCORES = np.array([[0.7, 0.2, 0.1], [0.9, 0.05, 0.05], [0.3, 0.6, 0.1], [0.45, 0.55, 0.0]])
TARGETS = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float32)


def test_recall_and_precision_of_each_class() -> None:
    one, two, three = mistakes.class_scores(SCORES, TARGETS)
    assert (one.clips, one.recall, one.precision) == (2, 0.5, 0.5)
    assert (two.clips, two.recall, two.precision) == (2, 0.5, 0.5)
    assert three.clips == 0
    assert math.isnan(three.recall)
    assert math.isnan(three.precision)
    assert one.auc == pytest.approx(2 / 4)  # of four pairs of a clip with and one without, 0 > 2 and 3 > 2 are right
    assert math.isnan(three.auc)
    assert one.ap == pytest.approx((1 / 2 + 2 / 3) / 2)  # clips 1, 0, 3, 2 by score: right at places 2 and 3


def test_confusions_leave_out_clips_of_several_classes() -> None:
    several = TARGETS.copy()
    several[3, 1] = 1
    counts = mistakes.confusion(SCORES, several)
    assert counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert mistakes.confusions(counts, 5) == [(1, 0, 1)]


def test_calibration_counts_each_clip_once() -> None:
    bins = mistakes.calibration(SCORES, TARGETS)
    full = {round(15 * one.low): (one.clips, one.accuracy) for one in bins if one.clips}
    assert full == {8: (1, 0.0), 9: (1, 1.0), 10: (1, 1.0), 13: (1, 0.0)}
    assert calibration_error(SCORES, TARGETS, "ce") == pytest.approx((0.55 + 0.4 + 0.3 + 0.9) / 4)
    assert sum(one.clips for one in mistakes.calibration(np.ones((3, 2)), np.ones((3, 2)))) == 3


def test_the_hardest_and_the_most_confidently_wrong_clips() -> None:
    assert mistakes.hardest(SCORES, TARGETS, 2) == [1, 3]
    assert mistakes.hardest(SCORES, np.zeros_like(TARGETS), 2) == []
    assert mistakes.confidently_wrong(SCORES, TARGETS, 5) == [1, 3]
