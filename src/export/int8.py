"""An ONNX file with 8-bit weights, by ONNX Runtime's own tools, and the scores of ONNX files on real sounds.

Dimensions: B windows, n clips, C classes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.listening import Hearing, windows_of
from ..classifier.tally import Tally
from ..errors import DataError
from ..models.geometry import PatchLike
from ..runtime.files import file_errors, put_in_place, require_new
from .export import INPUTS, Exported, Input, export, needed


def export_int8(
    model: AudioClassifier,
    out: str | os.PathLike[str],
    patch_size: PatchLike | None = None,
    input: Input = "waveform",
    overwrite: bool = False,
    sounds: Sequence[Any] = (),
) -> tuple[Exported, list[np.ndarray]]:
    """Write an ONNX file whose linear layers have 8-bit weights, once its float32 source agrees with the model.

    Activations are quantised as they come (dynamic quantisation); the log-mel stays float32. Returns that agreement,
    and the scores (n, C) of `sounds` before and after, if there are any.
    Raises ConfigError and ExportError as `export`, DataError for an unusable sound.
    """
    out = Path(out)
    require_new(out, overwrite)
    with file_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f"{out.name}.part-", dir=out.parent))
    try:
        whole = export(model, beside / "float32.onnx", "onnx", patch_size, input)
        part = beside / "int8.onnx"
        quantise(whole.path, part)
        scores = [onnx_scores(path, model, sounds, input) for path in (whole.path, part) if sounds]
        put_in_place(part, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Exported(out, whole.difference, whole.runtime), scores


def quantise(path: Path, out: Path) -> None:
    """Write the ONNX file `path` with the weights of its linear layers as int8, a scale for each output of a layer."""
    onnx, quantization = needed("onnx"), needed("onnxruntime.quantization")
    # The log-mel needs its precision.
    log_mel = [node.name for node in onnx.load(path).graph.node if any(x.startswith("front_end.") for x in node.input)]
    with file_errors(out):
        quantization.quantize_dynamic(
            path,
            out,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=log_mel,
            extra_options={"MatMulConstBOnly": True},  # attention multiplies activations with each other
        )


def onnx_scores(path: Path, model: AudioClassifier, sounds: Sequence[Any], input: Input) -> np.ndarray:
    """Scores (n, C) that ONNX Runtime gives for sounds, the mean over a sound's windows, as `model.predict` reads them.

    Raises DataError for the first unusable one.
    """
    session = needed("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    tally, scores = Tally("mean"), dict[int, np.ndarray]()
    for batch in windows_of(model, sounds, Hearing()):
        if batch.failures:
            raise DataError(batch.failures[0].reason)
        waveform, lengths = batch.on(torch.device("cpu"))
        inputs = (waveform, lengths) if input == "waveform" else (model.front_end(waveform, lengths),)
        given = {name: x.numpy() for name, x in zip(INPUTS[input], inputs, strict=True)}
        tally.add(batch.clips, torch.from_numpy(session.run(["scores"], given)[0]))
        scores |= {clip: tally.take(clip).numpy() for clip, _, _ in batch.ended}
    return np.stack([scores[clip] for clip in range(len(sounds))])
