"""Clips as padded waveforms in batches, decoded by DataLoader workers.

Dimensions: B clips, S samples, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError
from ..features import FeatureConfig, frame_count
from .audio import decode
from .manifest import Manifest
from .sampler import Draw


class Batch(NamedTuple):
    """What the loader yields; all on the CPU."""

    waveform: Tensor
    """(B, S) float32, zero beyond each clip's length."""
    lengths: Tensor
    """(B,) int64 samples of each clip."""
    targets: Tensor
    """(B, C) float32, 1 at each of the clip's classes."""
    epochs: Tensor
    """(B,) int64 epoch each clip was drawn in."""
    clips: Tensor
    """(B,) int64 index of each clip in the manifest."""


class ClipDataset(Dataset):
    """Decodes the clips of a manifest, cut or padded to the feature settings' length, a batch of draws at a time."""

    def __init__(self, manifest: Manifest, features: FeatureConfig) -> None:
        self.manifest, self.features = manifest, features

    def __len__(self) -> int:
        return len(self.manifest)

    def waveform(self, clip: int) -> Tensor:
        """One clip (S,), not padded. Raises DataError if it is unusable or shorter than one window."""
        path, features = self.manifest.clips[clip].path, self.features
        waveform = decode(path, features.sample_rate, features.downmix, features.samples)
        if frame_count(len(waveform), features.sample_rate) == 0:
            raise DataError(f"{path}: found {len(waveform)} samples, expected at least one 25 ms window")
        return waveform

    def __getitems__(self, draws: Sequence[Draw]) -> Batch | DataError:
        """The batch of these draws; an unusable clip comes back as its error, which workers could not raise whole."""
        waveform = torch.zeros(len(draws), self.features.samples)
        lengths = torch.zeros(len(draws), dtype=torch.int64)
        targets = torch.zeros(len(draws), len(self.manifest.labels))
        for row, draw in enumerate(draws):
            try:
                clip = self.waveform(draw.clip)
            except DataError as error:
                return error
            waveform[row, : len(clip)] = clip
            lengths[row] = len(clip)
            targets[row, list(self.manifest.clips[draw.clip].classes)] = 1.0
        return Batch(waveform, lengths, targets, *torch.tensor(draws).unbind(1))


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)


def _as_is(batch: Any) -> Any:
    return batch


def load_batches(dataset: ClipDataset, batches: Iterable[list[Draw]], workers: int) -> Iterator[Batch]:
    """Decode the batches in order, in `workers` processes (0: in this one). Raises DataError at an unusable clip."""
    loader: DataLoader = DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_as_is,
        worker_init_fn=_one_thread,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield Batch(*batch)


def sequential_batches(clips: int, batch_size: int) -> list[list[Draw]]:
    """Every clip once, in order; the last batch may be short."""
    return [
        [Draw(0, clip) for clip in range(start, min(start + batch_size, clips))]
        for start in range(0, clips, batch_size)
    ]
