"""Load any readable checkpoint as an `AudioClassifier`."""

from __future__ import annotations

import os

import torch

from ..checkpoints.hub import read_located
from ..runtime.device import pick_device
from .audio_classifier import AudioClassifier


def load(
    source: str | os.PathLike[str],
    device: str | torch.device | None = None,
    heads: int | None = None,
    frames: int | None = None,
) -> AudioClassifier:
    """Load a trained model, in eval mode, with its feature settings and class names.

    source: a file or directory in any format of `flexiast.checkpoints.formats`; if no such path exists, a release by
    name, such as `ast_audioset_16_16`, once `pretrained_models/fetch.py` has fetched it, or a Hub id, `owner/name`; or
    `timm:NAME`, an image model (ViT, DeiT, FlexiViT) fitted to spectrograms as a start for training: its embeddings are
    ready, its one class is called `untrained`. device: a torch device, or `auto` (default: the CPU). heads, frames:
    for sources that do not state them, see `read_checkpoint`. `print(model.load_report)` shows what happened to every
    tensor. No code from the source is run.
    Raises CheckpointError that names the source and what is wrong, ConfigError for a device that is not available.
    """
    place = pick_device(str(device or "cpu"))
    checkpoint = read_located(source, heads, frames)
    return AudioClassifier.from_checkpoint(checkpoint, os.fspath(source)).to(place)
