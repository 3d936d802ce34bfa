"""Embeddings of any number of sounds: of whole clips or over time, from any layer, at any patch size.

Dimensions: B windows, N tokens, H x W token grid, D width, R vectors of a clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..data.windows import WindowBatch
from ..errors import ConfigError, DataError, is_whole_number
from ..models.geometry import PatchSize
from .frames import column_times
from .listening import Hearing, heard_windows, in_precision, stacks

Layer = int | Literal["mean"]
"""Number of a block, counted from 0 or, below 0, from the end; or the mean of all blocks."""


class Embedding(NamedTuple):
    """Vectors (R, D), float32, and the start and end (R,) of each in seconds."""

    starts: Tensor
    ends: Tensor
    vectors: Tensor


class Embedded(NamedTuple):
    """The embedding of one clip, or what is wrong with the clip."""

    clip: int
    """Position in the list of clips."""
    embedding: Embedding
    """Over time, R vectors; of a whole clip, `vectors` is (D,); empty if the clip is unusable."""
    error: DataError | None


NOTHING = Embedding(torch.zeros(0), torch.zeros(0), torch.zeros(0))


def embeddings(
    model: Any, clips: Sequence[Any], how: Hearing, layer: Layer | None = None, time: bool = False
) -> Iterator[Embedded]:
    """The embedding of each clip, in order, as soon as it is known; see `AudioClassifier.embed`.

    Raises ConfigError for a setting that does not fit, DataError when a decoding process dies.
    """
    depth = model.config.depth
    if layer is not None and layer != "mean" and not (is_whole_number(layer) and -depth <= layer < depth):
        raise ConfigError(f"layer: found {layer!r}, expected mean, or {-depth} to {depth - 1}")
    heard = heard_windows(model, clips, how, partial(_of_windows, model, how=how, layer=layer, time=time))
    parts, done, next_one = dict[int, list[Embedding]](), dict[int, Embedded](), 0
    for batch, vectors in heard:
        for clip, part in zip(batch.clips, vectors, strict=True):
            parts.setdefault(clip, []).append(part)
        for clip, _, _ in batch.ended:
            whole = Embedding(*map(torch.cat, zip(*parts.pop(clip), strict=True)))
            if not time:
                whole = Embedding(whole.starts[:1], whole.ends[-1:], whole.vectors.mean(dim=0))
            done[clip] = Embedded(clip, whole, None)
        for failure in batch.failures:
            parts.pop(failure.clip, None)
            done[failure.clip] = Embedded(failure.clip, NOTHING, DataError(failure.reason))
        while next_one in done:
            yield done.pop(next_one)
            next_one += 1


@torch.no_grad()
def _of_windows(model: Any, batch: WindowBatch, how: Hearing, layer: Layer | None, time: bool) -> list[Embedding]:
    """The vectors of each window, those of columns that hold nothing but padding left out."""
    if not batch.clips:
        return []
    device, features = model.kernel.device, model.feature_config
    with in_precision(model, how.precision):
        log_mel = model.front_end.as_trained(*batch.on(device))
        if layer is None and not time:
            pooled = model.features(log_mel, how.patch_size).float().cpu()
            return [
                Embedding(torch.tensor([start]), torch.tensor([end]), vector[None])
                for vector, (start, end) in zip(pooled, batch.times, strict=True)
            ]
        patch = how.rule_for(model).sizes[0]
        heard = [
            (model.layout(stack, patch), vectors)
            for stack in stacks(model, log_mel, patch)
            for vectors in _columns(model, stack, patch, layer).cpu()  # (n, W, D)
        ]
    found = []
    for (layout, vectors), span, samples in zip(heard, batch.times, batch.lengths.tolist(), strict=True):
        starts, ends = column_times(layout, features, span, samples)
        found.append(Embedding(starts, ends, vectors[: len(starts)]))
    return found


def _columns(model: Any, log_mel: Tensor, patch: PatchSize, layer: Layer | None) -> Tensor:
    """The mean over frequency of the patch tokens of each column, (B, W, D) float32."""
    prefix, depth = model.config.prefix_tokens, model.config.depth
    grid = model.layout(log_mel, patch).grid
    wanted = range(depth) if layer == "mean" else [depth - 1 if layer is None else int(layer) % depth]
    total = torch.zeros((), device=log_mel.device)
    for number, tokens in enumerate(model.layers(log_mel, patch)):
        if number in wanted:
            total = total + tokens[:, prefix:].unflatten(1, grid).float().mean(dim=1)  # (B, H, W, D) -> (B, W, D)
        if number == wanted[-1]:
            break
    return total / len(wanted)
