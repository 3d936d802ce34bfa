"""Export a cascade: each size as an ONNX file, and the rule that leads from one to the next as JSON.

Dimensions: B clips, S samples, C classes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.cascade import Followed, Rule, follow
from ..errors import CheckpointError, FlexiASTError
from ..runtime.files import file_errors, put_in_place, require_new, to_json_text, told_as, write_atomically
from .export import Exported, ExportError, Input, Job, clips, export, needed

RULE = "cascade.json"
AGREE = 1e-3
"""Largest accepted difference of scores for clips that take the same way."""
HOW = (
    "Run every clip through the first member. Divide its logits by the first temperature, and take softmax (ce) or"
    " sigmoid (bce). Confidence: the largest score less the second largest (ce), or 1 less the largest entropy of a"
    " class in bits (bce). A clip whose confidence is below the first threshold goes on to the second member, and so"
    " on. With average, a clip's scores are the mean over the members that it went through, also for the confidence;"
    " without, those of the last one."
)


def member(number: int, rule: Rule) -> str:
    """File name of one of the rule's sizes."""
    return f"{number + 1}_patch_{rule.sizes[number]}.onnx"


def export_cascade(
    model: AudioClassifier, out: str | os.PathLike[str], rule: Rule, input: Input = "waveform", overwrite: bool = False
) -> Exported:
    """Write a new directory with an ONNX file for each size of the rule, and `cascade.json`, once a run of it agrees.

    Raises ConfigError for what cannot be written, ExportError if scores or ways differ from the model's.
    """
    out, names = Path(out), [member(number, rule) for number in range(len(rule.sizes))]
    require_new(out, overwrite, (*names, RULE))
    with file_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f"{out.name}.part-", dir=out.parent))
    part = beside / out.name
    try:
        with told_as(out, part):
            for name, size in zip(names, rule.sizes, strict=True):
                export(model, part / name, "onnx", size, input)
            write_atomically(part / RULE, (to_json_text(_content(model, rule, names, input), 1) + "\n").encode())
        difference = _difference(model, rule, input, open_cascade(part))
        if not difference <= AGREE:
            raise ExportError(f"{out}: its scores differ from the model's by {difference:.2e}, expected {AGREE:.0e}")
        put_in_place(part, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Exported(out, difference, f"ONNX Runtime {needed('onnxruntime').__version__}")


def _content(model: AudioClassifier, rule: Rule, names: list[str], input: Input) -> dict[str, Any]:
    """What `cascade.json` says."""
    return {
        "rule": rule.to_json(),
        "members": names,
        "loss": model.loss,
        "input": input,
        "labels": list(model.labels.names),
        "features": dataclasses.asdict(model.feature_config),
        "how": HOW,
    }


def open_cascade(directory: str | os.PathLike[str]) -> Callable[..., Followed]:
    """The exported cascade as a function of its inputs, numpy arrays: waveform (B, S) and lengths (B,), or log_mel.

    Raises CheckpointError if the directory is no exported cascade, ExportError without ONNX Runtime.
    """
    runtime, path = needed("onnxruntime"), Path(directory) / RULE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rule, loss, names = Rule.from_json(content["rule"]), content["loss"], content["members"]
    except (OSError, KeyError, TypeError, ValueError, FlexiASTError) as error:
        raise CheckpointError(f"{path}: not the rule of an exported cascade ({error})") from None
    providers = ["CPUExecutionProvider"]
    sessions = [runtime.InferenceSession(Path(directory) / name, providers=providers) for name in names]

    def run(*inputs: np.ndarray) -> Followed:
        def hear(step: int, going: np.ndarray) -> np.ndarray:
            session = sessions[step]
            given = {i.name: x[going] for i, x in zip(session.get_inputs(), inputs, strict=True)}
            return session.run(["scores"], given)[0]

        return follow(rule, loss, len(inputs[0]), hear)

    return run


@torch.no_grad()
def _difference(model: AudioClassifier, rule: Rule, input: Input, run: Callable[..., Followed]) -> float:
    """Largest difference of the scores from the model's own; infinite if no clip of a batch went the same way."""
    worst, loss = 0.0, model.loss
    for waveform in clips(Job(model, rule.sizes[0], input)):
        lengths = torch.full((len(waveform),), waveform.shape[1])
        log_mel = model.front_end(waveform, lengths)

        def hear(step: int, going: np.ndarray, log_mel: torch.Tensor = log_mel) -> np.ndarray:
            return model.probabilities(model(log_mel[torch.from_numpy(going)], rule.sizes[step])).numpy()

        expected = follow(rule, loss, len(waveform), hear)
        inputs = (waveform.numpy(), lengths.numpy()) if input == "waveform" else (log_mel.numpy(),)
        got = run(*inputs)
        same = got.looks == expected.looks  # a confidence next to a threshold may fall on either side
        if same.any():
            worst = max(worst, float(np.abs(got.scores - expected.scores)[same].max()))
        elif len(same) > 1:
            return float("inf")
    return worst
