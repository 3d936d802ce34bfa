"""`flexiast predict`: name the sounds in audio files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from ..classifier.load import load
from ..classifier.windows import Aggregate
from ..runtime.arguments import PatchArg


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Name the sounds in audio files."""

    checkpoint: tyro.conf.Positional[Path]
    """Checkpoint of any readable format."""
    audio: tyro.conf.Positional[tuple[Path, ...]]
    """Audio files (wav, flac, ogg, mp3)."""
    patch_size: PatchArg | None = None
    """Patch size to use (default: the model's base patch)."""
    top_k: int = 5
    """Classes named for each file."""
    hop: float | None = None
    """Seconds between the windows in which a file longer than the model's window is heard (default: side by side)."""
    aggregate: Aggregate = "mean"
    """Scores of such a file from those of its windows."""
    windows: bool = False
    """Name the classes of every window, with start and end in seconds, instead of those of the file."""


def run(config: PredictConfig) -> None:
    """Print the best classes of each file."""
    model = load(config.checkpoint)
    for path in config.audio:
        if config.windows:
            for window in model.predict_windows(path, config.patch_size, hop=config.hop):
                for label, score in model.best(window.scores, config.top_k):
                    print(f"{path}\t{window.start:.2f}\t{window.end:.2f}\t{label}\t{score:.4f}")
            continue
        best = model.predict(path, config.patch_size, config.top_k, hop=config.hop, aggregate=config.aggregate)
        for prediction in best:
            print(f"{path}\t{prediction[0]}\t{prediction[1]:.4f}")


CONFIG = PredictConfig
