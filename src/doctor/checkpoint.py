"""A checkpoint: whether it can be read, whether its weights are numbers, and what it was trained for."""

from __future__ import annotations

import torch

from ..checkpoints.hub import locate
from ..classifier.audio_classifier import AudioClassifier
from ..classifier.listening import trained_sizes
from ..classifier.load import load
from ..errors import CheckpointError
from .finding import Examination, Finding, beside, counted, quoted


def examine_checkpoint(source: str) -> Examination:
    """What a checkpoint of any readable format is like, and what is wrong with it.

    Raises CheckpointError as `locate` does, which asks the Hub once for a model that is not here.
    """
    file = locate(source)
    try:
        model = load(file)
    except CheckpointError as error:
        where, _, what = str(error).partition(": ")
        unreadable = Finding(
            "checkpoint-unreadable", "serious", what or str(error), where, "no command can use it",
            f"ls -l {quoted(file)}; compare with the original, and fetch or copy it again, whole",
        )  # fmt: skip
        return Examination(source, {}, (unreadable,))
    facts = {"model": repr(model)}
    if model.load_report is not None:
        model.load_report.source = source
        facts["tensors"] = str(model.load_report).splitlines()[0]
    return Examination(source, facts, tuple(model_faults(model, source)))


def model_faults(model: AudioClassifier, where: str, train: str = "SOUNDS") -> list[Finding]:
    """What is wrong with a model that could be read. where: its file or folder; train: what --data.train takes."""
    findings = []
    odd = [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]
    if odd:
        findings.append(
            Finding(
                "weights-not-finite", "serious",
                f"{counted(len(odd), 'tensor holds', 'tensors hold')} NaN or infinity, the first {odd[0]}", where,
                "every score is NaN",
                "--optim.clip-norm 1; train again so, or with a lower rate, or take an earlier state",
            )
        )  # fmt: skip
    if model.labels.numbered:
        findings.append(
            Finding(
                "classes-without-names", "warning", f"its {len(model.labels)} classes are only numbered", where,
                "predictions are numbers, whose order nobody can check",
                f"flexiast convert {quoted(where)} {beside(where, 'named')}; then write the names into `labels` of its"
                " config.json",
            )
        )  # fmt: skip
    if len(trained_sizes(model)) == 1:
        findings.append(
            Finding(
                "one-patch-size", "warning", f"it was trained at patch size {trained_sizes(model)[0]} alone", where,
                "accuracy falls away at other sizes",
                f"flexiast flexify {quoted(where)} --out {beside(where, 'flexible')} --data.train {train}",
            )
        )  # fmt: skip
    return findings
