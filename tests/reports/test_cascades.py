"""The picture of cascades: the front that validation chose, with the intervals that were measured."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

from flexiast.reports.cascades import draw_cascades, front
from flexiast.traintest.cascade_report import Comparison

ROW = Comparison("m", "48", "", "1", 1.0, 1.0, "accuracy", 0.5, "gflops", "48", 0.4, 0.1, 0.05, 0.2)


def measured(*costs: tuple[float, float, float]) -> list[Comparison]:
    """Rows of (GFLOPs, milliseconds, measured score), in the order of the curve."""
    return [
        dataclasses.replace(ROW, gflops=gflops, ms=ms, score=score, by=by)
        for gflops, ms, score in costs
        for by in ("gflops", "ms")
    ]


ROWS = measured((1, 3, 0.5), (2, 1, 0.6), (3, 2, 0.9), (4, 2, 0.7))


def test_what_costs_more_than_a_later_one_is_left_out() -> None:
    """Later ones have better validation scores; the measured score has no say."""
    assert [row.gflops for row in front(ROWS, "gflops")] == [1, 2, 3, 4]
    assert [row.gflops for row in front(ROWS, "ms")] == [2, 4]


def test_the_front_is_drawn_with_its_intervals() -> None:
    axes = Figure().subplots()
    axes.plot([1], [1], color="red", label="m (pi)")
    draw_cascades(axes, ROWS, "ms")
    (drawn,) = axes.containers
    dots, _, (bars,) = drawn.lines
    assert dots.get_color() == "red"
    assert dots.get_xydata() == pytest.approx(np.array([[1, 60], [2, 70]]))
    assert bars.get_segments()[1][:, 1] == pytest.approx([70 - 5, 70 + 10])


def test_an_interval_that_was_rounded_in_a_file_is_drawn() -> None:
    axes = Figure().subplots()
    draw_cascades(axes, [dataclasses.replace(ROW, low=0.1 + 1e-9)], "gflops")
    assert len(axes.containers) == 1
