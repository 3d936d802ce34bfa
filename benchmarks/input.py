#!/usr/bin/env python3
"""Clips per second into batches, from files and from shards, against decoding alone.

The clips are 10 s of 16 kHz mono, as recipes prepare them, wav or flac, and read before (from the page cache): what is
measured is what the loader adds to decoding, in this process and with decoding processes.

python benchmarks/input.py        writes benchmarks/results/input.json and prints the ratios
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness import Report, arguments, run
from sounds import write_sounds

from flexiast import FeatureConfig
from flexiast.data.dataset import Batch, ClipDataset, load_batches
from flexiast.data.manifest import Manifest, read_manifest
from flexiast.data.pack import pack
from flexiast.data.sampler import BatchSchedule


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(__doc__, argv, clips=(int, 512, "clips"), workers=(int, 2, "decoding processes"))
    clips, seconds = (16, 1) if options.quick else (options.clips, 10)
    report = Report("input", options, rounds=5, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".wav", ".flac"):
            sounds = write_sounds(Path(folder) / f"files{suffix}", clips, seconds, 16_000, 1, suffix)
            shards = pack(read_manifest(sounds), Path(folder) / f"shards{suffix}", shard_size=50, progress=False)
            race(report, suffix, read_manifest(sounds), shards)
    report.finish()


def race(report: Report, suffix: str, files: Manifest, shards: Manifest) -> None:
    """An epoch in random order, as in training."""
    features = FeatureConfig()
    schedule = BatchSchedule(len(files), 16, seed=0)
    steps = schedule.steps(1)

    def decode_only() -> None:
        dataset = ClipDataset(files, features)
        for step in range(steps):
            for draw in schedule[step]:
                dataset.waveform(draw.clip)

    def batches(data: Manifest, workers: int) -> Iterator[Batch]:
        return load_batches(ClipDataset(data, features), schedule.batches(0, steps), workers)

    def epoch(data: Manifest, workers: int) -> Callable[[], None]:
        def read() -> None:
            for _ in batches(data, workers):
                pass

        return read

    group = f"{len(files)} clips{suffix}"
    for ours, theirs in zip(batches(files, 0), batches(shards, 0), strict=True):
        report.agree(f"{group}: waveforms", ours.waveform, theirs.waveform, within=0)
        report.agree(f"{group}: targets", ours.targets, theirs.targets, within=0)
        report.facts[f"{group}: bytes of waveform per clip"] = ours.waveform.nbytes // len(ours.waveform)
    contenders = {"decode only": decode_only}
    for workers in (0, report.options.workers):
        contenders |= {
            f"files, {workers} workers": epoch(files, workers),
            f"shards, {workers} workers": epoch(shards, workers),
        }
    report.race(group, contenders, against="decode only")
    for row in report.rows[-len(contenders) :]:
        report.facts[f"{group}, {row['contender']}: clips/s"] = round(1e3 * len(files) / row["median_ms"])


if __name__ == "__main__":
    run(main)
