"""A run and its results as one web page that needs no network."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import shlex
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.curve import Cascade, Curve
from ..data.clips import Clip
from ..data.manifest import Manifest
from ..errors import DataError, FileError
from ..models.geometry import PatchSize
from ..runtime.terminal import printable
from ..traintest import mistakes
from ..traintest.bench import Bench
from ..traintest.detail import uncertainty
from ..traintest.evaluate import Result, targets_of
from ..traintest.finished_run import FinishedRun
from ..traintest.metrics import metric_of
from .bench import plot_bench
from .flexibility import as_row, plot_flexibility
from .pictures import MARKERS, Picture, name_lines, picture
from .run_tables import as_rows, cascade_table, confusion_rows, csv_link, training_rows
from .sound import sound_and_spectrogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SOUND = 4_000_000
"""Bytes of all sounds and spectrograms together; clips beyond are named only."""
MOST_DRAWN_CLASSES = 60
"""Classes up to which the confusion matrix is drawn; of more, its largest entries are listed."""
MOST_LISTED = 15


def render(
    run: FinishedRun,
    model: AudioClassifier,
    data: Manifest,
    results: Sequence[Result],
    patch: PatchSize,
    bench: Bench,
    environment: dict[str, Any],
    clips: int,
    own_data: Path | None = None,
) -> str:
    """The page. patch: one of the results', which the classes and clips are shown at. clips: shown of either kind.

    own_data: where the data are, if they are not the run's validation data.
    """
    from jinja2 import Environment, StrictUndefined

    chosen = next(result for result in results if result.patch_size == patch)
    excluded = {failure.clip for failure in chosen.excluded}
    kept = [clip for number, clip in enumerate(data.clips) if number not in excluded]
    targets = targets_of(data, chosen.excluded)
    training = _training(run)
    curve = [as_row(result) | uncertainty(result, targets, model.loss) for result in results]
    counts = mistakes.confusion(chosen.scores, targets)
    bins = mistakes.calibration(chosen.scores, targets)
    context = {
        "name": run.path.name,
        "model": model,
        "data": data,
        "clips": len(kept),
        "excluded": [failure.reason for failure in chosen.excluded],
        "patch": str(patch),
        "curve": [row | {"patch": str(result.patch_size)} for row, result in zip(curve, results, strict=True)],
        "cascades": cascade_table(model.curve),
        "classes": sorted(mistakes.class_scores(chosen.scores, targets), key=lambda one: (one.ap, one.number)),
        "confusions": mistakes.confusions(counts, MOST_LISTED),
        "bins": bins,
        "calibration_error": next(row["ece"] for row, one in zip(curve, results, strict=True) if one is chosen),
        "shown": _shown(model, kept, chosen.scores, targets, clips),
        "bench": bench,
        "training": training,
        "choices": _choices(run),
        "settings": json.dumps(run.settings, indent=1).splitlines(),
        "environment": json.dumps(environment, indent=1).splitlines(),
        "trained_by": model.metadata.get("commit", "unknown"),
        "run": shlex.quote(str(run.path)),
        "source": shlex.quote(str(own_data)) if own_data else None,
        "pictures": {
            "curve": _embedded(plot_flexibility(curve, len(kept), front=_front(model.curve)), curve),
            "bench": _embedded(plot_bench(bench), as_rows(bench.costs)),
            "calibration": _embedded(_plot_calibration(bins), as_rows(bins)),
            "training": _training_picture(training, metric_of(model.loss)) if training else None,
            "confusion": _confusion_picture(counts, model) if len(counts) <= MOST_DRAWN_CLASSES else None,
        },
    }
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.finalize = _one_line
    page.filters |= {"percent": _percent, "number": lambda value: "-" if value is None else f"{value:.4g}"}
    template = (files(__package__ or "") / "run.html").read_text(encoding="utf-8")
    return page.from_string(template).render(context)


def _one_line(value: object) -> object:
    """Text from elsewhere without control characters; what a macro has made is left as it is."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _embedded(image: Picture, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A picture for the page, with the address of its numbers."""
    images = {name: base64.b64encode(getattr(image, name)).decode() for name in ("light", "dark")}
    return images | {"csv": csv_link(rows)}


def _front(curve: Curve | None) -> tuple[Cascade, ...]:
    """The cascades that can be drawn over accuracies."""
    return curve.cascades if curve and curve.score_name == "accuracy" else ()


def _training_picture(training: Sequence[dict[str, Any]], metric: str) -> dict[str, str]:
    return _embedded(_plot_training(training, metric), training_rows(training, metric))


def _confusion_picture(counts: np.ndarray, model: AudioClassifier) -> dict[str, str]:
    return _embedded(_plot_confusion(counts, model), confusion_rows(counts, model.labels.names))


def _training(run: FinishedRun) -> list[dict[str, Any]]:
    try:
        return [record for record in run.validations if record["validation"]]
    except FileError:
        return []


def _choices(run: FinishedRun) -> list[dict[str, str]]:
    """Settings that were chosen automatically, with their reasons."""
    file = run.path / "choices.csv"
    if not file.exists():
        return []
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8", errors="replace"))))


def _shown(
    model: AudioClassifier, clips: Sequence[Clip], scores: np.ndarray, targets: np.ndarray, most: int
) -> dict[str, list[dict[str, Any]]]:
    """The hardest and the most confidently wrong clips, as many with sound as there is room for."""
    room = [MOST_SOUND]
    wanted = {
        "hardest": mistakes.hardest(scores, targets, most),
        "confidently wrong": mistakes.confidently_wrong(scores, targets, most),
    }
    return {title: list(_clips(model, clips, scores, numbers, room)) for title, numbers in wanted.items()}


def _clips(
    model: AudioClassifier, clips: Sequence[Clip], scores: np.ndarray, numbers: Sequence[int], room: list[int]
) -> Iterator[dict[str, Any]]:
    names = model.labels.names
    for number in numbers:
        top = np.argsort(-scores[number], kind="stable")[:3]
        try:
            sound, spectrogram = sound_and_spectrogram(clips[number].path, model.feature_config)
        except DataError:
            sound = spectrogram = ""
        if len(sound) + len(spectrogram) > room[0]:
            sound = spectrogram = ""
        room[0] -= len(sound) + len(spectrogram)
        yield {
            "path": str(clips[number].path),
            "own": [(names[c], float(scores[number, c])) for c in clips[number].classes],
            "top": [(names[c], float(scores[number, c])) for c in top],
            "sound": sound,
            "spectrogram": spectrogram,
        }


def _plot_training(records: Sequence[dict[str, Any]], metric: str) -> Picture:
    """The score at each patch size over the epochs, and the losses."""

    def draw(figure: Figure) -> None:
        by_size, losses = figure.subplots(1, 2)
        epochs = [record["epoch"] for record in records]
        ends = []
        for number, size in enumerate(records[-1]["validation"]):
            values = [100 * (record["validation"].get(size, {}).get(metric) or math.nan) for record in records]
            style = {"marker": MARKERS[number % len(MARKERS)], "linestyle": "-" if number < len(MARKERS) else "--"}
            (line,) = by_size.plot(epochs, values, label=size, markersize=3, **style)
            ends.append((epochs[-1], values[-1], size, line.get_color()))
        by_size.set(xlabel="epochs", ylabel=f"validation {metric} at each patch size, %")
        name_lines(by_size, ends)
        ends = []
        for name, values in (
            ("training", [record.get("train_loss") for record in records]),
            ("validation", [np.mean([one["loss"] for one in record["validation"].values()]) for record in records]),
        ):
            values = [math.nan if value is None else float(value) for value in values]
            (line,) = losses.plot(epochs, values, marker="o", markersize=3)
            ends.append((epochs[-1], values[-1], name, line.get_color()))
        losses.set(xlabel="epochs", ylabel="loss, nats")
        name_lines(losses, ends)

    return picture(draw, 11, 4)


def _plot_calibration(bins: Sequence[mistakes.Bin]) -> Picture:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        full = [one for one in bins if one.clips]
        axes.plot([0, 100], [0, 100], "--", color="C5")
        axes.plot([100 * one.confidence for one in full], [100 * one.accuracy for one in full], "o-", color="C0")
        axes.set_title("measured", color="C0", fontsize=9)
        axes.set_title("as sure as right", color="C5", fontsize=9, loc="right")
        axes.set(xlabel="score of the top class, %", ylabel="top class right, % of clips", xlim=(0, 100), ylim=(0, 100))

    return picture(draw, 5, 4)


def _plot_confusion(counts: np.ndarray, model: AudioClassifier) -> Picture:
    """Shares of each class, in per cent, by the class that the model names."""
    classes = len(counts)
    size = max(4.0, 0.17 * classes + 2.0)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        shares = 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        image = axes.imshow(shares, cmap="viridis", vmin=0, vmax=100)
        names = [f"{name[:18]}…" if len(name) > 19 else name for name in map(printable, model.labels.names)]
        axes.set_xticks(range(classes), names, rotation=90, fontsize=7)
        axes.set_yticks(range(classes), names, fontsize=7)
        axes.set(xlabel="named by the model", ylabel="true class")
        axes.grid(visible=False)
        figure.colorbar(image, ax=axes, label="% of the true class", shrink=0.7)

    return picture(draw, size + 1, size)
