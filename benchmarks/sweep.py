#!/usr/bin/env python3
"""Evaluating ten patch sizes in one pass over the data, against a pass for each size.

Clips are 44.1 kHz stereo, as they come from the web; all contenders decode, resample and compute in the same precision.
`one pass` does everything of a clip but the network once. `a pass per size` is the same code, called for each size.
`as published` also is a pass per size, of the parts that the published evaluation has: torchaudio's Kaldi features,
kernel and positions resized in every batch, scikit-learn's AP and AUC class by class, predictions saved as text (ours
as npy). What that saves depends on what the network costs beside the data; `facts` has both costs per clip.

python benchmarks/sweep.py        writes benchmarks/results/sweep.json and prints the ratios
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from frontend import torchaudio_fbank
from harness import Report, arguments, run
from metrics import scikit_learn
from networks import shake
from sounds import write_sounds

from flexiast import AudioClassifier, FeatureConfig, FlexiASTConfig, PatchSize
from flexiast.data.audio import decode
from flexiast.data.dataset import ClipDataset, load_batches, sequential_batches
from flexiast.data.manifest import Manifest, read_manifest
from flexiast.features import fit_frames
from flexiast.models.config import SIZES
from flexiast.runtime.arguments import Precision
from flexiast.runtime.device import autocast
from flexiast.traintest.evaluate import sweep

PATCHES = [PatchSize(size, size) for size in (8, 10, 12, 16, 20, 24, 30, 32, 40, 48)]
SETTINGS = {"micro 128": 256, "tiny 128": 64, "micro 1024": 32, "tiny 1024": 16, "base 1024": 4}
"""Model and frames, and how many clips: fewer where the network costs more."""


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(
        __doc__,
        argv,
        settings=(str, ",".join(SETTINGS), "models and frames of a clip (128: a spoken word, 1024: ten seconds)"),
        precision=(str, "auto", "fp32, bf16, or auto: bf16 where it is fast"),
        batch=(int, 32, "clips"),
    )
    if options.quick:
        options.settings = "micro 96"
    report = Report("sweep", options, rounds=3)
    for setting in options.settings.split(","):
        size, frames = setting.split()
        with tempfile.TemporaryDirectory() as folder:
            clips = SETTINGS.get(setting, 8)
            write_sounds(Path(folder) / "sounds", clips, int(frames) / 100, 44_100, 2, ".wav")
            race(report, size, int(frames), read_manifest(Path(folder) / "sounds"), Path(folder))
    report.finish()


def race(report: Report, size: str, frames: int, data: Manifest, folder: Path) -> None:
    torch.manual_seed(0)
    network = FlexiASTConfig(classes=len(data.labels), frames=frames, **SIZES[size])
    model = shake(AudioClassifier(network, FeatureConfig(frames=frames), data.labels)).to(report.device)
    options = report.options

    def evaluate(patches: list[PatchSize], precision: Precision) -> np.ndarray:
        results = sweep(
            {"": model}, data, patches, batch_size=options.batch, workers=0, precision=precision, progress=False
        )
        for result in results:
            np.save(folder / f"{result.patch_size}.npy", result.scores)
        return np.stack([result.scores for result in results])

    def one_pass(precision: Precision = options.precision) -> np.ndarray:
        return evaluate(PATCHES, precision)

    def pass_per_size(precision: Precision = options.precision) -> np.ndarray:
        return np.concatenate([evaluate([patch], precision) for patch in PATCHES])

    def as_published(precision: Precision = options.precision) -> np.ndarray:
        return np.stack([published_pass(model, data, patch, options.batch, precision, folder) for patch in PATCHES])

    group = f"{size}, {len(data)} clips of {frames} frames, {len(PATCHES)} sizes"
    contenders = {"as published": as_published, "a pass per size": pass_per_size, "one pass": one_pass}
    expected = one_pass("fp32")
    for name, scores in contenders.items():
        report.agree(f"{group}: {name}, fp32", scores("fp32"), expected, within=1e-3)
    report.race(group, contenders, against="a pass per size")
    report.facts[group] = shares(report, data_seconds(model, data, options.batch), len(data))


def shares(report: Report, data_seconds: float, clips: int) -> dict[str, float]:
    """Costs per clip, and what of a pass the data is."""
    published, _, one = (row["median_ms"] for row in report.rows[-3:])
    data_ms = 1e3 * data_seconds / clips
    network_ms = one / clips - data_ms
    tenfold = len(PATCHES) * data_ms
    return {
        "decoding and features, ms per clip": round(data_ms, 2),
        "network at all sizes, ms per clip": round(network_ms, 2),
        "data share of a pass per size, %": round(100 * tenfold / (tenfold + network_ms), 1),
        "data share of one pass, %": round(100 * data_ms / (data_ms + network_ms), 1),
        "one pass, times faster than as published": round(published / one, 2),
    }


@torch.no_grad()
def published_pass(
    model: AudioClassifier, data: Manifest, patch: PatchSize, batch_size: int, precision: Precision, folder: Path
) -> np.ndarray:
    """Scores (n, C) of one patch size; metrics computed and predictions saved, as the published evaluation does."""
    features, scores, device = model.feature_config, [], model.kernel.device
    for start in range(0, len(data), batch_size):
        batch = []
        for clip in data.clips[start : start + batch_size]:
            log_mel = torchaudio_fbank(decode(clip.path, max_samples=features.samples)[None])
            batch.append(fit_frames(log_mel, features.frames))
        log_mel = features.normalise(torch.cat(batch)).to(device)
        with autocast(device, precision):
            logits = model(log_mel, patch).float()
        scores.append(model.probabilities(logits).cpu().numpy())
    predictions = np.concatenate(scores)
    targets = np.zeros(predictions.shape, dtype=bool)
    for row, clip in zip(targets, data.clips, strict=True):
        row[list(clip.classes)] = True
    scikit_learn(predictions, targets)
    np.savetxt(folder / f"{patch}.csv", predictions, delimiter=",")
    return predictions


@torch.no_grad()
def data_seconds(model: AudioClassifier, data: Manifest, batch_size: int) -> float:
    """Decoding and log-mel of all clips, without the network."""
    start, device = time.perf_counter(), model.kernel.device
    batches = sequential_batches(len(data), batch_size)
    for batch in load_batches(ClipDataset(data, model.feature_config), batches, workers=0):
        waveform, lengths, _ = batch.on(device)
        model.front_end(waveform, lengths).sum().item()
    return time.perf_counter() - start


if __name__ == "__main__":
    run(main)
