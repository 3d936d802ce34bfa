"""Scores and embeddings over time, finer than a window: one for each time column of patches.

Dimensions: W columns, C classes, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import DataError
from ..features import FeatureConfig
from ..models.geometry import Layout
from .inputs import Audio
from .listening import Hearing, Listener, in_precision, stacks, windows_of


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
    batches = windows_of(model, [audio], how)
    features, device = model.feature_config, model.kernel.device
    patch = how.rule_for(model).sizes[0]
    parts: list[tuple[Tensor, ...]] = []
    for batch in batches:
        if batch.failures:
            raise DataError(batch.failures[0].reason)
        if not batch.clips:
            continue
        windows = zip(batch.times, batch.lengths.tolist(), strict=True)
        for log_mel in stacks(model, model.front_end.as_trained(*batch.on(device)), patch):
            with in_precision(model, how.precision):
                embeddings = model.columns(log_mel, patch)
                scores = model.probabilities(model.head(model.head_norm(embeddings)).float().flatten(0, 1))
            scores, layout = scores.unflatten(0, embeddings.shape[:2]).cpu(), model.layout(log_mel, patch)
            for one_scores, one in zip(scores, embeddings.float().cpu(), strict=True):
                start, end = column_times(layout, features, *next(windows))
                parts.append((start, end, one_scores[: len(start)], one[: len(start)]))
    return Frames(*(torch.cat(part) for part in zip(*parts, strict=True)))


def column_times(
    layout: Layout, features: FeatureConfig, time: tuple[float, float], samples: int
) -> tuple[Tensor, Tensor]:
    """Start and end (W,) in seconds of the columns of a window that are not all padding.

    time: of the window. samples: of sound in it.
    """
    first = torch.arange(layout.grid.time) * layout.stride.time  # frame in which each column starts
    covered = max(1, int((first < features.frame_count(samples)).sum()))
    starts = time[0] + first[:covered] * features.frame_seconds
    return starts, (starts + layout.patch.time * features.frame_seconds).clamp(max=time[1])
