"""How fast ONNX Runtime is with our exports of a model, float32 and int8: what deployment gains over torch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..classifier.audio_classifier import AudioClassifier
from ..export.export import export
from ..export.int8 import quantise
from ..export.job import Job, needed
from ..models.geometry import PatchSize
from .bench import OnnxCost, times_of


def onnx_costs(
    model: AudioClassifier, patch_sizes: Sequence[PatchSize], batch_size: int, seconds: float
) -> tuple[OnnxCost, ...]:
    """Time one export of all these sizes on the CPU, float32 and int8, with as many threads as torch has.

    Raises ConfigError or ExportError where the packages are missing or the model cannot be exported so.
    """
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.onnx"
        export(model, exported, "onnx", input="spectrogram", patch_sizes=patch_sizes)
        job = Job(model, tuple(patch_sizes), "spectrogram")
        return tuple(
            _cost(session, job, weights, number, batch_size, seconds)
            for weights, session in sessions(exported).items()
            for number in range(len(patch_sizes))
        )


def sessions(exported: Path) -> dict[str, Any]:
    """ONNX Runtime on the CPU with an exported file, float32, and with its int8, which is written beside it; as many
    threads as torch has."""
    runtime, int8 = needed("onnxruntime"), exported.with_name("int8.onnx")
    quantise(exported, int8)
    how = runtime.SessionOptions()
    how.intra_op_num_threads = torch.get_num_threads()
    return {
        weights: runtime.InferenceSession(path, how, providers=["CPUExecutionProvider"])
        for weights, path in (("float32", exported), ("int8", int8))
    }


def _cost(session: Any, job: Job, weights: str, number: int, batch_size: int, seconds: float) -> OnnxCost:
    """Time the patch size of this number."""
    features, patch = job.model.feature_config, job.patches[number]

    def times(clips: int) -> np.ndarray:
        waveform, lengths = torch.randn(clips, features.samples), torch.full((clips,), features.samples)
        given = {name: x.numpy() for name, x in job.given(waveform, lengths, number).items()}
        return times_of(lambda: session.run(["logits"], given), seconds, torch.device("cpu"))

    return OnnxCost(
        weights=weights,
        patch_size=str(patch),
        tokens=job.model.config.grid(patch, features.frames).tokens,
        clips_per_second=batch_size / float(np.median(times(batch_size))),
        latency_p50_ms=1e3 * float(np.median(times(1))),
    )
