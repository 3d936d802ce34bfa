"""Pictures of a run's page: training, calibration, confusions, and predicted against true numbers.

Dimensions: C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models.config import Loss
from ..runtime.terminal import printable
from ..traintest import mistakes
from ..traintest.metrics import metric_of
from .findings import ClipAnswers
from .pictures import MARKERS, Picture, name_lines, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TARGETS = 6
"""Numbers to predict that have a panel."""


def plot_training(records: Sequence[dict[str, Any]], loss: Loss) -> Picture:
    """The score at each patch size over the epochs, and the losses."""
    metric, unit = metric_of(loss), "in variances of each target" if loss == "mse" else "nats"
    scale = 1 if loss == "mse" else 100

    def draw(figure: Figure) -> None:
        by_size, losses = figure.subplots(1, 2)
        epochs = [record["epoch"] for record in records]
        ends = []
        for number, size in enumerate(records[-1]["validation"]):
            scores = [record["validation"].get(size, {}).get(metric) for record in records]
            values = [math.nan if score is None else scale * score for score in scores]
            style = {"marker": MARKERS[number % len(MARKERS)], "linestyle": "-" if number < len(MARKERS) else "--"}
            (line,) = by_size.plot(epochs, values, label=size, markersize=3, **style)
            ends.append((epochs[-1], values[-1], size, line.get_color()))
        if loss == "mse":
            by_size.set_ylim(bottom=max(-1.0, by_size.get_ylim()[0]))  # far below 0, R2 says nothing more
        by_size.set(xlabel="epochs", ylabel=f"validation {metric} at each patch size{', %' * (loss != 'mse')}")
        name_lines(by_size, ends)
        ends = []
        for name, values in (
            ("training", [record.get("train_loss") for record in records]),
            ("validation", [np.mean([one["loss"] for one in record["validation"].values()]) for record in records]),
        ):
            values = [math.nan if value is None else float(value) for value in values]
            (line,) = losses.plot(epochs, values, marker="o", markersize=3)
            ends.append((epochs[-1], values[-1], name, line.get_color()))
        losses.set(xlabel="epochs", ylabel=f"loss, {unit}")
        name_lines(losses, ends)

    return picture(draw, 11, 4)


def plot_calibration(bins: Sequence[mistakes.Bin]) -> Picture:
    """How often the top class is right, by its score."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        full = [one for one in bins if one.clips]
        axes.plot([0, 100], [0, 100], "--", color="C5")
        axes.plot([100 * one.confidence for one in full], [100 * one.accuracy for one in full], "o-", color="C0")
        axes.set_title("measured", color="C0", fontsize=9)
        axes.set_title("as sure as right", color="C5", fontsize=9, loc="right")
        axes.set(xlabel="score of the top class, %", ylabel="top class right, % of clips", xlim=(0, 100), ylim=(0, 100))

    return picture(draw, 5, 4)


def plot_confusion(counts: np.ndarray, labels: Sequence[str]) -> Picture:
    """Shares of each class, in per cent, by the class that the model names, from counts (C, C)."""
    classes = len(counts)
    size = max(4.0, 0.17 * classes + 2.0)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        shares = 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        image = axes.imshow(shares, cmap="viridis", vmin=0, vmax=100)
        names = [f"{name[:18]}…" if len(name) > 19 else name for name in map(printable, labels)]
        axes.set_xticks(range(classes), names, rotation=90, fontsize=7)
        axes.set_yticks(range(classes), names, fontsize=7)
        axes.set(xlabel="named by the model", ylabel="true class")
        axes.grid(visible=False)
        figure.colorbar(image, ax=axes, label="% of the true class", shrink=0.7)

    return picture(draw, size + 1, size)


def plot_predicted(answers: ClipAnswers, names: Sequence[str], spreads: Sequence[float]) -> Picture:
    """Predicted against true values, a panel for each of the first targets. spreads: RMSE of each target."""
    shown = min(len(names), MOST_TARGETS)
    columns = min(shown, 3)
    rows = -(-shown // columns)

    def draw(figure: Figure) -> None:
        for place in range(shown):
            axes = figure.add_subplot(rows, columns, place + 1)
            true, predicted = answers.targets[:, place], answers.scores[:, place]
            ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
            axes.plot(ends, ends, "--", color="C5")
            axes.plot(true, predicted, "o", color="C0", markersize=4, alpha=0.5)
            axes.set_title(printable(names[place]), fontsize=10)
            axes.set_title(f"RMSE {spreads[place]:.3g}", fontsize=9, loc="right")
            axes.set(xlabel="true", ylabel="predicted")

    return picture(draw, 1 + 4 * columns, 3.8 * rows)
