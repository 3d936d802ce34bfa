#!/usr/bin/env python3
"""Evaluating ten patch sizes in one pass over the data, against one pass for each size.

Clips are 10 s of 44.1 kHz stereo, as they come from the web: decoding, resampling and log-mel are done once, or ten
times. What that saves depends on what the network costs beside it; `facts` has both costs per clip.

python benchmarks/sweep.py        writes benchmarks/results/sweep.json and prints the ratios
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from harness import Report, arguments, run
from networks import shake
from sounds import write_sounds

from flexiast import AudioClassifier, FeatureConfig, FlexiASTConfig, PatchSize
from flexiast.data.dataset import ClipDataset, load_batches, sequential_batches
from flexiast.data.manifest import Manifest, read_manifest
from flexiast.models.flexiast import SIZES
from flexiast.traintest.evaluate import Result, sweep

PATCHES = [PatchSize(size, size) for size in (8, 10, 12, 16, 20, 24, 30, 32, 40, 48)]
CLIPS = {"micro": 16, "tiny": 8, "small": 4, "base": 2}
"""Clips evaluated, fewer for the larger models."""


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(
        __doc__,
        argv,
        models=(str, "micro,tiny,base", "sizes of the model"),
        frames=(int, 1024, "frames of a clip; with fewer, the network costs less beside the data"),
    )
    if options.quick:
        options.models, options.frames = "micro", 96
    report = Report("sweep", options, rounds=1)
    with tempfile.TemporaryDirectory() as folder:
        sounds = write_sounds(Path(folder), max(CLIPS.values()), 1 if options.quick else 10, 44_100, 2, ".wav")
        data = read_manifest(sounds)
        for size in options.models.split(","):
            race(report, size, Manifest(data.source, data.clips[: CLIPS[size]], data.labels))
    report.finish()


def race(report: Report, size: str, data: Manifest) -> None:
    frames = report.options.frames
    torch.manual_seed(0)
    network = FlexiASTConfig(classes=len(data.labels), frames=frames, **SIZES[size])
    model = shake(AudioClassifier(network, FeatureConfig(frames=frames), data.labels)).to(report.device)

    def evaluate(patches: list[PatchSize]) -> list[Result]:
        return sweep({"model": model}, data, patches, batch_size=4, workers=0, progress=False)

    def one_pass() -> list[Result]:
        return evaluate(PATCHES)

    def pass_per_size() -> list[Result]:
        return [result for patch in PATCHES for result in evaluate([patch])]

    group = f"{size}, {len(data)} clips of {frames} frames, {len(PATCHES)} sizes"
    together, apart = (np.stack([result.scores for result in results()]) for results in (one_pass, pass_per_size))
    report.agree(group, together, apart, within=1e-6)
    report.race(group, {"a pass per size": pass_per_size, "one pass": one_pass}, against="a pass per size")
    data_ms = 1e3 * data_seconds(model, data) / len(data)
    network_ms = report.rows[-1]["median_ms"] / len(data) - data_ms
    tenfold = len(PATCHES) * data_ms
    report.facts[group] = {
        "decoding and features, ms per clip": round(data_ms, 2),
        "network at all sizes, ms per clip": round(network_ms, 2),
        "data share of a pass per size, %": round(100 * tenfold / (tenfold + network_ms), 1),
        "data share of one pass, %": round(100 * data_ms / (data_ms + network_ms), 1),
    }


@torch.inference_mode()
def data_seconds(model: AudioClassifier, data: Manifest) -> float:
    """Decoding and log-mel of all clips, without the network."""
    start = time.perf_counter()
    for batch in load_batches(ClipDataset(data, model.feature_config), sequential_batches(len(data), 4), workers=0):
        model.front_end(batch.waveform.to(model.kernel.device), batch.lengths.to(model.kernel.device)).sum().item()
    return time.perf_counter() - start


if __name__ == "__main__":
    run(main)
