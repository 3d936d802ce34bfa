#!/usr/bin/env python3
"""How a command degrades on a machine with other work: `measure`, idle and beside as many busy processes as cores.

The busy processes leave the command half of the machine, so twice the idle time would be fair; the ratio printed is
that to the idle time per core that is left. *Threads inside* shares every operation among the cores, as PyTorch does by
default, instead of a batch for each thread. This script starts the busy processes, and stops them.

python benchmarks/shared.py        writes benchmarks/results/shared.json and prints the ratios
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from harness import Report, arguments, run
from sounds import write_sounds

import flexiast
from flexiast.data.manifest import Manifest, read_manifest
from flexiast.runtime import side_by_side
from flexiast.runtime.device import available_cores
from flexiast.traintest.evaluate import sweep

MODEL = Path(__file__).resolve().parents[1] / "pretrained_models" / "demo_flexible"
SIZES = tuple(flexiast.PatchSize(size, size) for size in (12, 16, 24, 32))


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that compute without end, until the block is left."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measured(model: flexiast.AudioClassifier, data: Manifest) -> np.ndarray:
    """Scores (sizes, n, C) of the clips."""
    results = sweep({"": model}, data, SIZES, workers=2, precision="fp32", progress=False)
    return np.stack([result.scores for result in results])


@contextmanager
def threads_inside() -> Iterator[None]:
    """Operations are shared among threads, however small the model."""
    least, side_by_side.LEAST_SHARED = side_by_side.LEAST_SHARED, 0.0
    try:
        yield
    finally:
        side_by_side.LEAST_SHARED = least


def inside(work: Callable[[], np.ndarray]) -> np.ndarray:
    """The work with threads inside operations."""
    with threads_inside():
        return work()


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    options = arguments(__doc__, argv, clips=(int, 512, "clips of a second"))
    report = Report("shared", options, rounds=5)
    model, cores = flexiast.load(MODEL), available_cores()
    with tempfile.TemporaryDirectory() as folder:
        names = model.labels.names
        sounds = write_sounds(Path(folder) / "sounds", 16 if options.quick else options.clips, 1.0, 16_000, 1, ".wav")
        files = sorted(sounds.rglob("*.wav"))
        table = Path(folder) / "clips.csv"
        rows = [f"{file},{names[number % len(names)]}" for number, file in enumerate(files)]
        table.write_text("\n".join(["path,label", *rows]) + "\n")
        work = partial(measured, model, read_manifest(table, model.labels))
        report.agree("scores", work(), inside(work), within=1e-5)
        contenders = {"a batch for each thread": work, "threads inside operations": partial(inside, work)}
        group = f"measure {len(files)} clips at {len(SIZES)} sizes, {cores} cores"
        report.race(f"{group}, idle", contenders, against="threads inside operations")
        with busy(cores):
            report.race(f"{group}, {cores} busy processes", contenders, against="threads inside operations")
    half = len(contenders)
    for name, idle, shared in zip(contenders, report.rows[:half], report.rows[half:], strict=True):
        ratio = shared["median_ms"] / idle["median_ms"] / 2
        report.facts[f"{name}: busy time to idle time per core that is left"] = round(ratio, 2)
    report.finish()


if __name__ == "__main__":
    run(main)
