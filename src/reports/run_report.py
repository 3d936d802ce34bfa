"""A run and its results as one web page that needs no network."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import shlex
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.curve import Cascade, Curve
from ..errors import FileError
from ..runtime.terminal import printable
from ..traintest import mistakes
from ..traintest.bench import Bench
from ..traintest.finished_run import FinishedRun
from ..traintest.metrics import metric_of
from .bench import plot_bench
from .findings import Findings
from .flexibility import patch_of, plot_flexibility
from .pictures import Picture
from .run_clips import clips_shown
from .run_pictures import plot_calibration, plot_confusion, plot_predicted, plot_training
from .run_tables import (
    as_rows,
    cascade_table,
    confusion_rows,
    csv_link,
    predicted_rows,
    target_rows,
    training_rows,
)

MOST_DRAWN_CLASSES = 60
"""Classes up to which the confusion matrix is drawn; of more, its largest entries are listed."""
MOST_LISTED = 15


def render(
    run: FinishedRun, findings: Findings, bench: Bench, environment: dict[str, Any], clips: int, own_data: str = ""
) -> str:
    """The page. clips: shown of either kind. own_data: options that say where the results are from."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    model, patch = run.model, findings.patch
    context = {
        "name": run.path.name,
        "model": model,
        "numbers": model.loss == "mse",
        "found": findings,
        "patch": str(patch),
        "curve": [row | {"patch": str(patch_of(row))} for row in findings.curve],
        "at_patch": findings.shown(findings.curve)[0],
        "cascades": cascade_table(model.curve),
        "comparisons_csv": csv_link(findings.comparisons),
        "unit": "" if model.loss == "mse" else ", %",
        "shown": clips_shown(model, findings.answers, clips) if findings.answers else None,
        "bench": bench,
        "training": _training(run),
        "choices": _choices(run),
        "settings": json.dumps(run.settings, indent=1).splitlines(),
        "environment": json.dumps(environment, indent=1).splitlines(),
        "trained_by": model.metadata.get("commit", "unknown"),
        "run": shlex.quote(str(run.path)),
        "own_data": own_data,
        **(_of_numbers if model.loss == "mse" else _of_classes)(findings, model),
    }
    context["pictures"] |= _pictures(findings, model, bench, context["training"])
    page = Environment(
        loader=FunctionLoader(_template), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page.finalize = _one_line
    page.filters |= {"percent": _percent, "number": _number, "score": _score}
    return page.get_template("run.html").render(context)


def _template(name: str) -> str:
    return (files(__package__ or "") / name).read_text(encoding="utf-8")


def _of_classes(findings: Findings, model: AudioClassifier) -> dict[str, Any]:
    """What the page says of classes: tables at the size that is shown, links to those of all sizes."""
    answers = findings.answers
    classes = sorted(findings.shown(findings.classes), key=lambda row: (math.isnan(row["AP"]), row["AP"]))
    bins = mistakes.calibration(answers.scores, answers.targets) if answers else []
    counts = mistakes.confusion(answers.scores, answers.targets) if answers else np.zeros((0, 0), dtype=int)
    names, pictures = model.labels.names, {}
    if answers:
        pictures["calibration"] = _embedded(plot_calibration(bins), as_rows(bins))
    if 0 < len(counts) <= MOST_DRAWN_CLASSES:
        pictures["confusion"] = _embedded(plot_confusion(counts, names), confusion_rows(counts, names))
    return {
        "classes": classes,
        "classes_csv": csv_link(findings.classes),
        "confusions": findings.shown(findings.confusions)[:MOST_LISTED],
        "confusions_csv": csv_link(findings.confusions),
        "bins": bins,
        "pictures": pictures,
    }


def _of_numbers(findings: Findings, model: AudioClassifier) -> dict[str, Any]:
    """What the page says of numbers to predict."""
    answers, names = findings.answers, model.labels.names
    targets, pictures = target_rows(findings.shown(findings.curve)[0], names), {}
    if answers:
        image = plot_predicted(answers, names, [row["RMSE"] for row in targets])
        rows = predicted_rows(answers.paths, answers.scores, answers.targets, names)
        pictures["predicted"] = _embedded(image, rows)
    return {"targets": targets, "pictures": pictures}


def _pictures(
    findings: Findings, model: AudioClassifier, bench: Bench, training: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Those that every page has."""
    curve, rows = plot_flexibility(findings.curve, findings.clips, front=_front(model.curve)), findings.curve
    drawn = {"curve": _embedded(curve, rows), "bench": _embedded(plot_bench(bench), as_rows(bench.costs))}
    if training:
        numbers = training_rows(training, metric_of(model.loss))
        drawn["training"] = _embedded(plot_training(training, model.loss), numbers)
    return drawn


def _one_line(value: object) -> object:
    """Text from elsewhere without control characters; what a macro has made is left as it is."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def _score(value: float, numbers: bool) -> str:
    """R2 of numbers to predict, or per cent."""
    return _number(value) if numbers else _percent(value)


def _embedded(image: Picture, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A picture for the page, with the address of its numbers."""
    images = {name: base64.b64encode(getattr(image, name)).decode() for name in ("light", "dark")}
    return images | {"csv": csv_link(rows)}


def _front(curve: Curve | None) -> tuple[Cascade, ...]:
    """The cascades that can be drawn over accuracies."""
    return curve.cascades if curve and curve.score_name == "accuracy" else ()


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
