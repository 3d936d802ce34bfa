"""Small data sets of generated sounds in the layouts that users have."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

import flexiast
from flexiast.data.manifest import Labels

SAMPLE_RATE = 16_000
CLASSES = {
    f"{band}_{direction}": (low, high) if direction == "up" else (high, low)
    for band, (low, high) in {"low": (250, 500), "mid": (700, 1400), "high": (2000, 4000)}.items()
    for direction in ("up", "down")
}
"""Class names and the frequencies (Hz) that their sweep starts and ends at."""


def sweep(start: float, end: float, rng: np.random.Generator, seconds: float = 1.0) -> np.ndarray:
    """A frequency sweep in the middle of noise, its onset, level and pitch drawn anew: samples in [-1, 1]."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    shift, pitch, onset = *rng.uniform(0.9, 1.1, 2), rng.uniform(0.1, 0.3) * seconds
    inside = np.clip((time - onset) / (0.6 * seconds), 0, 1)
    frequency = pitch * start * (end / start) ** inside
    envelope = np.sin(np.pi * inside) ** 0.5
    tone = envelope * np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE + rng.uniform(0, 6))
    return 0.2 * shift * tone + 0.01 * rng.standard_normal(len(time))


def write_folder(folder: Path, clips_per_class: int, seed: int) -> Path:
    """A folder with one sub-folder of wav files per class."""
    rng = np.random.default_rng(seed)
    for name, (start, end) in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for number in range(clips_per_class):
            soundfile.write(folder / name / f"{number}.wav", sweep(start, end, rng), SAMPLE_RATE)
    return folder


def tiny_model(names: Sequence[str], frames: int = 96) -> flexiast.AudioClassifier:
    """An untrained model of one block for these classes."""
    torch.manual_seed(0)
    network = flexiast.FlexiASTConfig(len(names), frames=frames, width=16, depth=1, heads=2)
    labels = Labels(tuple(names), tuple(names))
    return flexiast.AudioClassifier(network, flexiast.FeatureConfig(frames=frames), labels).eval()


def write_tones(folder: Path, clips: int, seed: int, name: str = "tones.csv") -> Path:
    """A table `file,loudness,pitch,fold` of wav files beside it: tones of half a second, in decibels and hertz."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    time, rows = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE, ["file,loudness,pitch,fold"]
    for number in range(clips):
        loudness, pitch = rng.uniform(-40, -5), rng.uniform(200, 3000)
        tone = 10 ** (loudness / 20) * np.sin(2 * np.pi * pitch * time) + 1e-4 * rng.standard_normal(len(time))
        soundfile.write(folder / f"{seed}-{number}.wav", tone, SAMPLE_RATE)
        rows.append(f"{seed}-{number}.wav,{loudness:.3f},{pitch:.2f},{1 + number % 5}")
    (folder / name).write_text("\n".join(rows) + "\n")
    return folder / name
