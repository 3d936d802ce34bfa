"""Scores and embeddings over time, finer than a window: one for each time column of patches.

Dimensions: W columns, C classes, D width.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.windows import WindowDataset, load_windows
from ..errors import DataError
from ..models.geometry import PatchSize
from ..runtime.device import autocast
from .inputs import Audio, name_of, pieces_of
from .listening import Hearing, Listener


class Frames(NamedTuple):
    """A sound over time; all on the CPU, float32."""

    start: Tensor
    """(W,) seconds."""
    end: Tensor
    """(W,) seconds."""
    scores: Tensor
    """(W, C) probabilities."""
    embeddings: Tensor
    """(W, D) what the classifier sees of a column, see `FlexiAST.columns`."""

    def __repr__(self) -> str:
        columns, classes = self.scores.shape
        return f"Frames({columns} columns of {classes} classes, 0 to {float(self.end[-1]):.2f} s)"


@torch.no_grad()
def frames(model: Listener, audio: Audio, how: Hearing) -> Frames:
    """See `AudioClassifier.frames`."""
    how.check(model)
    features, device = model.feature_config, model.kernel.device
    patch = PatchSize.parse(model.config.patch_size if how.patch_size is None else how.patch_size)
    layout = model.config.layout(patch, features.frames)
    read = partial(pieces_of, features=features, sample_rate=how.sample_rate)
    dataset = WindowDataset([audio], read, features, how.batch_size, name=name_of)
    parts: list[tuple[Tensor, ...]] = []
    columns = torch.arange(layout.grid.time) / 100  # frames of 10 ms
    for batch in load_windows(dataset, 0):
        if batch.failures:
            raise DataError(batch.failures[0].reason)
        if not batch.clips:
            continue
        with autocast(device, how.precision):
            embeddings = model.columns(model.front_end(*batch.on(device)), patch)
            scores = model.probabilities(model.head(model.head_norm(embeddings)).float().flatten(0, 1))
        scores = scores.unflatten(0, embeddings.shape[:2]).cpu()
        for (begin, finish), one_scores, one in zip(batch.times, scores, embeddings.float().cpu(), strict=True):
            start = begin + columns * layout.stride.time
            heard = start < finish
            end = (start + patch.time / 100).clamp(max=finish)
            parts.append((start[heard], end[heard], one_scores[heard], one[heard]))
    return Frames(*(torch.cat(part) for part in zip(*parts, strict=True)))
