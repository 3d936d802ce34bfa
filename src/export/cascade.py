"""Export a cascade: all its sizes in one ONNX file, and the rule that leads from one to the next as JSON.

Dimensions: B clips, S samples, C classes.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.cascade import Followed, Rule, follow
from ..errors import CheckpointError, FlexiASTError
from ..runtime.files import to_json_text, write_atomically
from .export import export
from .job import Exported, ExportError, Input, Job, clips, needed, placed

RULE, MODEL = "cascade.json", "model.onnx"
AGREE = 1e-3
"""Largest accepted difference of scores for clips that take the same way."""
HOW = (
    "Run every clip through the model with patch 0, the first of rule.sizes. Divide its logits by the first"
    " temperature, and take softmax (ce) or sigmoid (bce). Confidence: the largest score less the second largest (ce),"
    " or 1 less the largest entropy of a class in bits (bce). A clip whose confidence is below the first threshold goes"
    " on to patch 1, and so on. With average, a clip's scores are the mean over the sizes that it went through, also"
    " for the confidence; without, those of the last one."
)


def export_cascade(
    model: AudioClassifier, out: str | os.PathLike[str], rule: Rule, input: Input = "waveform", overwrite: bool = False
) -> Exported:
    """Write a new directory with `model.onnx`, which has the rule's sizes, and `cascade.json`, once a run of it agrees.

    Raises ConfigError for what cannot be written, ExportError if scores or ways differ from the model's.
    """
    out = Path(out)
    with placed(out, overwrite, (MODEL, RULE)) as part:
        export(model, part / MODEL, "onnx", None, input, patch_sizes=rule.sizes)
        write_atomically(part / RULE, (to_json_text(_content(model, rule, input), 1) + "\n").encode())
        difference = _difference(model, rule, input, open_cascade(part))
        if not difference <= AGREE:
            raise ExportError(f"{out}: its scores differ from the model's by {difference:.2e}, expected {AGREE:.0e}")
    return Exported(out, difference, f"ONNX Runtime {needed('onnxruntime').__version__}")


def _content(model: AudioClassifier, rule: Rule, input: Input) -> dict[str, Any]:
    """What `cascade.json` says."""
    return {
        "rule": rule.to_json(),
        "model": MODEL,
        "loss": model.loss,
        "input": input,
        "labels": list(model.labels.names),
        "features": dataclasses.asdict(model.feature_config),
        "how": HOW,
    }


def open_cascade(directory: str | os.PathLike[str]) -> Callable[..., Followed]:
    """The exported cascade as a function of its inputs, numpy arrays in the order of the file's, without `patch`.

    Raises CheckpointError if the directory is no exported cascade, ExportError without ONNX Runtime.
    """
    runtime, path = needed("onnxruntime"), Path(directory) / RULE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rule, loss, name = Rule.from_json(content["rule"]), content["loss"], content["model"]
    except (OSError, KeyError, TypeError, ValueError, FlexiASTError) as error:
        raise CheckpointError(f"{path}: not the rule of an exported cascade ({error})") from None
    session = runtime.InferenceSession(path.parent / name, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*inputs: np.ndarray) -> Followed:
        def hear(step: int, going: np.ndarray) -> np.ndarray:
            given = [*(x[going] for x in inputs), *([np.array(step)] if "patch" in names else [])]
            return session.run(["scores"], dict(zip(names, given, strict=True)))[0]

        return follow(rule, loss, len(inputs[0]), hear)

    return run


@torch.no_grad()
def _difference(model: AudioClassifier, rule: Rule, input: Input, run: Callable[..., Followed]) -> float:
    """Largest difference of the scores from the model's own; infinite if no clip of a batch went the same way."""
    worst, loss = 0.0, model.loss
    for waveform in clips(model):
        lengths = torch.full((len(waveform),), waveform.shape[1])
        heard = model.front_end.as_trained(waveform, lengths)

        def hear(step: int, going: np.ndarray, heard: Any = heard) -> np.ndarray:
            chosen = heard[torch.from_numpy(going)] if isinstance(heard, torch.Tensor) else [heard[i] for i in going]
            return model.probabilities(model(chosen, rule.sizes[step])).numpy()

        expected = follow(rule, loss, len(waveform), hear)
        got = run(*(x.numpy() for x in Job(model, rule.sizes[:1], input).given(waveform, lengths).values()))
        same = got.looks == expected.looks  # a confidence next to a threshold may fall on either side
        if same.any():
            worst = max(worst, float(np.abs(got.scores - expected.scores)[same].max()))
        elif len(same) > 1:
            return float("inf")
    return worst
