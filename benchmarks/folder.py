#!/usr/bin/env python3
"""From files to answers: `predict`, `embed` and `measure` on a folder of clips, against what one would use instead.

The same weights and files for all: the shipped demo model at patch 16, float32. *transformers* is its
audio-classification pipeline on our export, clip by clip as by default and in batches, given arrays that were read for
it. *A loop* is plain PyTorch, reading and torchaudio's log-mel in DataLoader's workers. Imports are not timed.

python benchmarks/folder.py        writes benchmarks/results/folder.json and prints the ratios
"""

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
from harness import Report, arguments, run
from sounds import write_sounds
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import flexiast
from flexiast import AudioClassifier
from flexiast.cli import main as flexiast_command
from flexiast.data.manifest import read_manifest
from flexiast.export.export import export

MODEL = Path(__file__).resolve().parents[1] / "pretrained_models" / "demo_flexible"
SIZES = (16, 24, 32)


class Waveforms(Dataset):
    """What one would write: a file's log-mel (T, F), by torchaudio."""

    def __init__(self, files: Sequence[Path], model: AudioClassifier) -> None:
        self.files, self.features = files, model.feature_config

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Tensor:
        samples, rate = soundfile.read(self.files[number], dtype="float32")
        features = self.features
        waveform = torch.from_numpy(samples)[None]
        log_mel = torchaudio.compliance.kaldi.fbank(
            waveform - waveform.mean(), htk_compat=True, sample_frequency=rate, use_energy=False, window_type="hanning",
            num_mel_bins=128, dither=0.0, frame_shift=10,
        )[: features.frames]  # fmt: skip
        padded = torch.nn.functional.pad(log_mel, (0, 0, 0, features.frames - len(log_mel)))
        return (padded - features.mean) / (2 * features.std)


def loop(model: AudioClassifier, files: Sequence[Path], workers: int, size: int = 16, embed: bool = False) -> Tensor:
    """Scores (n, C), or embeddings (n, D), of the files."""
    network = partial(model.features, patch_size=size) if embed else model.freeze(size)
    with torch.inference_mode():
        batches = DataLoader(Waveforms(files, model), batch_size=32, num_workers=workers)
        results = torch.cat([network(batch) for batch in batches])
    return results if embed else results.softmax(-1)


def arrays(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The files as a pipeline takes them."""
    for file in files:
        samples, rate = soundfile.read(file, dtype="float32")
        yield {"raw": samples, "sampling_rate": rate}


def piped(pipeline: Any, labels: Sequence[str], files: Sequence[Path], batch_size: int) -> np.ndarray:
    """Scores (n, C) of a transformers pipeline."""
    answers = pipeline(arrays(files), top_k=len(labels), batch_size=batch_size)
    index = {label: number for number, label in enumerate(labels)}
    scores = np.zeros((len(files), len(labels)), dtype=np.float32)
    for row, answer in zip(scores, answers, strict=True):
        for one in answer:
            row[index[one["label"]]] = one["score"]
    return scores


def command(name: str, folder: Path, out: Path) -> None:
    """One of our commands, as from the command line."""
    words = [name, str(MODEL), str(folder), "--out", str(out), "--overwrite", "--quiet", "--precision", "fp32"]
    if flexiast_command([*words, "--patch-size", "16"]):
        raise SystemExit(f"flexiast {name} failed")


def table_of(table: Path, files: Sequence[Path], model: AudioClassifier) -> Path:
    """A table of the files with classes of the model's, in turn."""
    names = model.labels.names
    rows = [f"{file},{names[number % len(names)]}" for number, file in enumerate(files)]
    table.write_text("\n".join(["path,label", *rows]) + "\n")
    return table


def measure(table: Path, out: Path) -> None:
    """`flexiast measure` at several sizes."""
    words = ["measure", str(MODEL), "--data", str(table), "--out", str(out), "--overwrite", "--quiet"]
    if flexiast_command([*words, "--precision", "fp32", "--patch-sizes", *map(str, SIZES)]):
        raise SystemExit("flexiast measure failed")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    options = arguments(__doc__, argv, clips=(int, 2_000, "clips of a second"), workers=(int, 2, "DataLoader's"))
    report = Report("folder", options, rounds=3)
    model = flexiast.load(MODEL)
    from transformers import pipeline

    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        folder = write_sounds(place / "sounds", 16 if options.quick else options.clips, 1.0, 16_000, 1, ".wav")
        data = read_manifest(folder)
        files = [Path(str(clip.path)) for clip in data.clips]
        export(model, place / "hf", "hf", 16)
        pipe = pipeline("audio-classification", model=str(place / "hf"), device="cpu")
        score = partial(piped, pipe, model.labels.names)
        few = files[:64]
        ours = torch.stack([torch.tensor([dict(answer)[label] for label in model.labels.names])
                            for answer in model.predict(few, 16, top_k=len(model.labels))])  # fmt: skip
        report.agree("predict and the pipeline", ours, score(few, 1), within=1e-3)
        report.agree("predict and the loop", ours, loop(model, few, 0), within=1e-3)
        report.agree("embed and the loop", torch.stack(model.embed(few, 16)), loop(model, few, 0, embed=True), 1e-2)
        report.race(
            f"predict {len(files):,} files of a second",
            {
                "flexiast predict": partial(command, "predict", folder, place / "answers.csv"),
                "transformers' pipeline": partial(score, files, 1),
                "the same in batches of 32": partial(score, files, 32),
                "a loop": partial(loop, model, files, options.workers),
            },
            against="a loop",
        )
        report.race(
            f"embed {len(files):,} files of a second",
            {
                "flexiast embed": partial(command, "embed", folder, place / "vectors.npz"),
                "a loop": partial(loop, model, files, options.workers, embed=True),
            },
            against="a loop",
        )
        report.race(
            f"measure {len(files):,} files of a second at {', '.join(map(str, SIZES))}",
            {
                "flexiast measure": partial(measure, table_of(place / "clips.csv", files, model), place / "measured"),
                "a loop, for each size": lambda: [loop(model, files, options.workers, size) for size in SIZES],
            },
            against="a loop, for each size",
        )
    report.finish()


if __name__ == "__main__":
    run(main)
