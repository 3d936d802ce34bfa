"""Sounds to read: files of noise and tones in folders of classes, made anew for each benchmark."""

from pathlib import Path

import numpy as np
import soundfile


def write_sounds(folder: Path, clips: int, seconds: float, rate: int, channels: int, suffix: str) -> Path:
    """`clips` files in four classes; noise under a tone, so that compressed formats have something to do."""
    rng = np.random.default_rng(0)
    time = np.arange(int(seconds * rate)) / rate
    for number in range(clips):
        tone = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 4000) * time)
        samples = tone[:, None] + 0.02 * rng.standard_normal((len(time), channels))
        path = folder / f"class{number % 4}" / f"{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate)
    return folder
