"""A run: whether it learnt, and what kept it from learning more."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..classifier.audio_classifier import AudioClassifier
from ..errors import FileError, FlexiASTError
from ..models.geometry import PatchSize
from ..traintest.evaluate import sweep, targets_of
from ..traintest.finished_run import FinishedRun
from ..traintest.metrics import metric_of
from ..traintest.summary import AT_CHANCE
from .checkpoint import model_faults
from .finding import Examination, Finding, beside, counted, quoted, some

OVERFIT = 1.15
"""Validation loss at the end, relative to its lowest, from which a run has overfitted."""
LEAST_CLIPS = 3
"""Validation clips from which on a class that is never predicted counts."""
DIP = 0.15
"""How far, of 1, a patch size may lie below both of its neighbours."""


def examine_run(run: FinishedRun, workers: int = 0, progress: bool = True) -> Examination:
    """How a run went, and what is wrong with it; its model is evaluated on the validation clips, at its base patch."""
    where = str(run.path)
    model, model_findings = _model(run)
    try:
        steps, validations = run.steps, run.validations
    except FileError as error:
        steps, validations = [], []
        missing = Finding(
            "log-missing", "warning", str(error), where, "how the run went is not known",
            f"cp BACKUP/train.jsonl {quoted(run.path)}; nothing else brings it back",
        )  # fmt: skip
        return Examination(where, {}, (missing, *model_findings))
    facts = {"steps": f"{max((r['step'] for r in (*steps, *validations)), default=0):,}"}
    if validations and (mean := validations[-1].get("mean")) is not None:
        facts["last validation, mean over patch sizes"] = f"{mean:.3f}"
    findings = [
        *_loss(run, model, steps, validations),
        *_rate(run, steps),
        *_skipped(run, validations),
        *_bad_files(run),
    ]
    findings += [*_overfitting(run, validations), *_dips(run, validations), *model_findings]
    if model and not any(f.kind == "weights-not-finite" for f in findings):
        predicted, note = _predictions(run, model, workers, progress)
        findings += predicted
        facts["validation clips"] = note
    return Examination(where, facts, tuple(findings))


def _loss(
    run: FinishedRun,
    model: AudioClassifier | None,
    steps: Sequence[dict[str, Any]],
    validations: Sequence[dict[str, Any]],
) -> Iterator[Finding]:
    where = str(run.path)
    losses = [float(r["train_loss"]) for r in validations if r.get("train_loss") is not None]
    losses = losses or [float(r["loss"]) for r in steps if r["loss"] is not None]
    classes, settings = len(model.labels) if model else 0, run.settings
    plain = settings.get("loss") == "ce" and not (settings.get("distill") or {}).get("teacher")
    if losses and plain and classes > 1 and losses[-1] >= AT_CHANCE * math.log(classes):
        yield Finding(
            "loss-at-chance", "serious",
            f"the training loss ended at {losses[-1]:.3f}, guessing among {classes} classes gives"
            f" {math.log(classes):.3f}", where, "nothing was learnt",
            f"flexiast doctor {_train(run)}; to check the labels, then more --epochs, or another --optim.lr",
        )  # fmt: skip
    if not validations or not run.has_model:
        yield Finding(
            "unfinished", "warning", "the run has not come to its first validation or has kept no model", where,
            "there is nothing to use yet",
            f"flexiast train --config {quoted(run.path)}/train_config.json; goes on with it",
        )  # fmt: skip


def _rate(run: FinishedRun, steps: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    peak, rates = run.settings["optim"].get("lr"), [r["lr"] for r in steps if r.get("lr") is not None]
    if not rates or not isinstance(peak, (int, float)):
        return
    if max(rates) < 0.5 * peak:
        yield Finding(
            "rate-never-rises", "serious", f"the learning rate reached {max(rates):.2g} of a peak of {peak:.2g}",
            str(run.path), "the warm-up is longer than the run: little is learnt",
            "--optim.warmup-steps auto; or more --epochs",
        )  # fmt: skip
    elif sum(rate < 0.1 * peak for rate in rates) > 0.5 * len(rates):
        yield Finding(
            "rate-mostly-low", "warning", "the learning rate was below a tenth of its peak in most steps",
            str(run.path), "most steps changed the model little",
            "--optim.schedule cosine; or a later --optim.step-from",
        )  # fmt: skip


def _skipped(run: FinishedRun, validations: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    skipped = validations[-1].get("skipped_steps", 0) if validations else 0
    if skipped:
        yield Finding(
            "skipped-steps", "warning",
            f"{counted(skipped, 'step')} without a finite loss or gradient, skipped",
            f"{run.path}/train.jsonl", "training is close to diverging", "--optim.clip-norm 1; or a lower --optim.lr",
        )  # fmt: skip


def _bad_files(run: FinishedRun) -> Iterator[Finding]:
    file = run.path / "bad_files.csv"
    if not file.exists():
        return
    with open(file, newline="", encoding="utf-8", errors="replace") as text:
        paths = [row.get("path", "") for row in csv.DictReader(text)]
    if paths:
        yield Finding(
            "bad-files", "warning",
            f"{counted(len(paths), 'clip')} could not be used; others took the place",
            f"{file} ({some(paths)})", "the model learnt nothing from them", f"flexiast doctor {_train(run)}",
        )  # fmt: skip


def _train(run: FinishedRun) -> str:
    """What the run was trained on, as a word of a shell command."""
    return quoted(run.settings["data"].get("train"))


def _overfitting(run: FinishedRun, validations: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    curves = [r for r in validations if r["validation"]]
    losses = [float(np.mean([one["loss"] for one in r["validation"].values()])) for r in curves]
    train = [float(r.get("train_loss") or math.nan) for r in curves]
    if len(losses) < 3 or not train[-1] < train[0] or losses[-1] <= OVERFIT * min(losses):
        return
    best = losses.index(min(losses))
    yield Finding(
        "overfitting", "warning",
        f"the validation loss was lowest, {losses[best]:.3f}, at epoch {curves[best]['epoch']:g} and ended at"
        f" {losses[-1]:.3f}, while the training loss fell to {train[-1]:.3f}", str(run.path),
        "later epochs memorised the clips; the scores are overconfident",
        f"--epochs {max(1.0, curves[best]['epoch']):g}; or --augment.mixup 0.5, or more clips",
    )  # fmt: skip


def _dips(run: FinishedRun, validations: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    curve: dict[str, dict[str, Any]] = next((r["validation"] for r in reversed(validations) if r["validation"]), {})
    metric = metric_of(run.settings.get("loss", "ce"))
    points = sorted((PatchSize.parse(p), one[metric]) for p, one in curve.items() if one.get(metric) is not None)
    for (_, before), (patch, score), (_, after) in zip(points, points[1:], points[2:], strict=False):
        if score < min(before, after) - DIP:
            yield Finding(
                "dip-at-a-size", "warning", f"{metric} is {score:.3f} at patch {patch}, {before:.3f} and {after:.3f} at"
                " its neighbours", str(run.path), "that size was trained too rarely, or not at all",
                f"flexiast flexify {quoted(run.path)} --out {beside(run.path, 'flexible')} --data.train {_data(run)}",
            )  # fmt: skip


def _data(run: FinishedRun) -> str:
    """What --data.train took, and how it was read."""
    return _train(run) + (" --data.streaming" if run.settings["data"].get("streaming") else "")


def _model(run: FinishedRun) -> tuple[AudioClassifier | None, list[Finding]]:
    """The model that the run kept, if it can be read, and its faults."""
    if not run.has_model:
        return None, []
    try:
        return run.model, model_faults(run.model, str(run.path), _data(run))
    except FlexiASTError as error:
        return None, [
            Finding(
                "checkpoint-unreadable", "serious", str(error), str(run.path), "no command can use it",
                f"flexiast train --config {quoted(run.path)}/train_config.json --out {beside(run.path, 'again')}; or"
                " put model.safetensors and config.json back",
            )
        ]  # fmt: skip


def _predictions(run: FinishedRun, model: AudioClassifier, workers: int, progress: bool) -> tuple[list[Finding], str]:
    """Faults in the predictions for the validation clips; and how many clips there are, or why there are none."""
    try:
        data = run.validation_data()
        if data is None:
            return [], "none"
        patch = model.config.patch_size
        (result,) = sweep({"model": model}, data, [patch], workers=workers, progress=progress)
    except FlexiASTError as error:
        return [], f"not read: {error}"
    if model.loss != "ce":
        return [], f"{len(data):,}"
    never = never_predicted(result.scores, targets_of(data, result.excluded))
    if not never:
        return [], f"{len(data):,}"
    names = [model.labels.names[c] for c in never]
    return [
        Finding(
            "classes-never-predicted", "warning",
            f"{len(never)} of {len(model.labels)} classes are never predicted at patch {patch}", some(names),
            "the model prefers others that are more frequent or similar",
            "--data.sampling balanced; or more clips of them: the confusion matrix of flexiast report shows for which",
        )
    ], f"{len(data):,}"  # fmt: skip


def never_predicted(scores: np.ndarray, targets: np.ndarray) -> list[int]:
    """Classes of at least LEAST_CLIPS clips that score highest on none, from scores and targets (n, C)."""
    predicted = set(scores.argmax(axis=1).tolist())
    return [c for c, clips in enumerate(targets.sum(axis=0)) if clips >= LEAST_CLIPS and c not in predicted]
