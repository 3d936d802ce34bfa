"""An ONNX file with 8-bit weights, by ONNX Runtime's own tools, and the scores of ONNX files on real sounds.

Dimensions: B windows, n clips, K patch sizes, C classes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.listening import Hearing, windows_of
from ..classifier.tally import Tally
from ..errors import DataError
from ..models.geometry import PatchLike, PatchSize
from ..runtime.files import file_errors, told_as
from .export import export
from .job import Exported, Input, Job, needed, placed

SOURCE = "float32.onnx"
"""The file that is quantised; it is gone afterwards."""


def export_int8(
    model: AudioClassifier,
    out: str | os.PathLike[str],
    patch_sizes: Sequence[PatchLike] = (),
    input: Input = "waveform",
    overwrite: bool = False,
    sounds: Sequence[Any] = (),
) -> tuple[Exported, list[np.ndarray]]:
    """Write an ONNX file whose linear layers have 8-bit weights, once its float32 source agrees with the model.

    patch_sizes: one or several, as in `export` (default: the model's base). Activations are quantised as they come
    (dynamic quantisation); the log-mel stays float32, and the patch embedding where there are several sizes. Returns
    that agreement, and the scores (K, n, C) of `sounds` before and after, if there are any.
    Raises ConfigError and ExportError as `export`, DataError for an unusable sound.
    """
    patches = tuple(map(PatchSize.parse, patch_sizes or (model.config.patch_size,)))
    with placed(Path(out), overwrite) as part, told_as(Path(out), part.with_name(SOURCE)):
        whole = export(model, part.with_name(SOURCE), "onnx", None, input, patch_sizes=patches)
        quantise(whole.path, part)
        job = Job(model, patches, input)
        scores = [onnx_scores(path, job, sounds) for path in (whole.path, part) if sounds]
    return Exported(Path(out), whole.difference, whole.runtime), scores


def quantise(path: Path, out: Path) -> None:
    """Write the ONNX file `path` with the weights of its linear layers as int8, a scale for each output of a layer."""
    onnx, quantization = needed("onnx"), needed("onnxruntime.quantization")
    # The log-mel needs its precision.
    log_mel = [node.name for node in onnx.load(path).graph.node if any(x.startswith("front_end.") for x in node.input)]
    with file_errors(out), _silent_root_logger():
        quantization.quantize_dynamic(
            path,
            out,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=log_mel,
            extra_options={"MatMulConstBOnly": True},  # attention multiplies activations with each other
        )


@contextmanager
def _silent_root_logger() -> Iterator[None]:
    """ONNX Runtime's tools log advice, which nobody here can follow, to the root logger, and set it up for that."""
    root, silence, nothing = logging.getLogger(), logging.NullHandler(), lambda record: False
    root.addHandler(silence)  # or logging adds a handler of its own, for good
    root.addFilter(nothing)
    try:
        yield
    finally:
        root.removeFilter(nothing)
        root.removeHandler(silence)


def onnx_scores(path: Path, job: Job, sounds: Sequence[Any]) -> np.ndarray:
    """Scores (K, n, C) that ONNX Runtime gives for sounds, the mean over a sound's windows, as `predict` reads them.

    job: what the file was made of. Raises DataError for the first unusable sound.
    """
    session = needed("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    tallies, scores = [Tally("mean") for _ in job.patches], [dict[int, np.ndarray]() for _ in job.patches]
    for batch in windows_of(job.model, sounds, Hearing()):
        if batch.failures:
            raise DataError(batch.failures[0].reason)
        waveform, lengths = batch.on(torch.device("cpu"))
        for number, (tally, done) in enumerate(zip(tallies, scores, strict=True)):
            given = {name: x.numpy() for name, x in job.given(waveform, lengths, number).items()}
            tally.add(batch.clips, torch.from_numpy(session.run(["scores"], given)[0]))
            done |= {clip: tally.take(clip).numpy() for clip, _, _ in batch.ended}
    return np.stack([np.stack([done[clip] for clip in range(len(sounds))]) for done in scores])
