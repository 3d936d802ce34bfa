"""Batches of clips as padded waveforms, decoded by DataLoader workers.

Dimensions: B clips, S samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from ..errors import DataError
from ..features import FeatureConfig
from ..runtime.interruption import never
from .audio import as_float, decode
from .crop import Crop
from .manifest import Manifest
from .sampler import Draw
from .workers import (
    MAX_WORKERS,
    PREFETCHED,
    OfManifest,
    Source,
    note,
    require_room,
    start_worker,
    watched,
)

REPLACEMENTS = 20
"""How many other clips to try in place of an unusable one."""
LEAST_NEW = 0.1
"""A clip counts as longer than a window if it exceeds it by this share; a shorter rest is left out."""
CROP_STREAM = 1
"""Last part of a crop's seed (seed, epoch, clip), so that other draws with the same numbers are independent of it."""


class Failure(NamedTuple):
    """A clip that could not be used or looks wrong, and why."""

    clip: int
    """Its index in the manifest."""
    reason: str
    """The DataError's text, which names the file."""


class Batch(NamedTuple):
    """What the loader yields; all on the CPU."""

    waveform: Tensor
    """(B, S) float32, or int16 where all clips are 16-bit PCM, mono, at the model's rate: half the bytes, the same
    values. Zero beyond each clip's length."""
    lengths: Tensor
    """(B,) int64 samples of each clip."""
    targets: Tensor
    """(B, C) float32, 1 at each of the clip's classes, or the numbers to predict."""
    epochs: Tensor
    """(B,) int64 epoch each clip was drawn in."""
    clips: Tensor
    """(B,) int64 index of each clip in the manifest."""
    failures: list[Failure]
    """Clips that were drawn but are unusable: replaced in training, left out in evaluation."""
    suspicions: list[Failure]
    """Clips in this batch that are used but probably not as intended, see `Tally`."""

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Waveform (B, S) as float32 in [-1, 1], lengths (B,) and targets (B, C), on that device."""
        waveform, lengths, targets = (t.to(device, non_blocking=True) for t in self[:3])
        return as_float(waveform), lengths, targets  # after the transfer, which takes half as long for int16


class ClipDataset(OfManifest):
    """Decodes the clips of a manifest, cut or padded to the features' length, one batch of draws at a time.

    replace: put another random clip, seeded by the draw, in place of an unusable one, so that batches keep their size
    (training); otherwise unusable clips are left out. crop: from a clip longer than the model's window take a random
    part, seeded by (seed, epoch, clip), instead of the start; a clip that is longer by less than a tenth of the window
    is cut at its end, as in evaluation.
    """

    def __init__(
        self, manifest: Manifest, features: FeatureConfig, replace: bool = False, crop: bool = False, seed: int = 0
    ) -> None:
        super().__init__(manifest)
        self.features, self.replace = features, replace
        self.crop, self.seed = crop, seed

    def __len__(self) -> int:
        return len(self.manifest)

    def require_room(self, batch_size: int, workers: int) -> None:
        """Raise ConfigError if the workers' batches do not fit into shared memory, or need too many open files."""
        require_room(min(workers, MAX_WORKERS), batch_size * self.features.samples * torch.int16.itemsize)

    def waveform(self, clip: int, epoch: int = 0, suspicions: list[Failure] | None = None) -> Tensor:
        """One clip (S,), not padded: int16 if it is 16-bit PCM, mono, at the model's rate, else float32.

        epoch: part of the seed of a crop. suspicions: a list that receives what looks wrong about the clip. Raises
        DataError if the clip is unusable or shorter than 25 ms.
        """
        path, features = self.path(clip), self.features
        reasons: list[str] = []
        waveform = decode(
            path,
            features.sample_rate,
            features.downmix,
            features.samples,
            integer=True,
            crop=self._crop(clip, epoch) if self.crop else None,
            resampler=features.resampler,
            suspicions=None if suspicions is None else reasons,
        )
        if features.frame_count(len(waveform)) == 0:
            raise DataError(
                f"{path}: found {len(waveform)} samples, expected at least one {features.window_ms:g} ms window"
            )
        if suspicions is not None and reasons:
            suspicions.append(Failure(clip, f"{path}: {'; '.join(reasons)}"))
        return waveform

    def _crop(self, clip: int, epoch: int) -> Crop:
        """Where in the clip to listen."""
        place = np.random.default_rng([self.seed, epoch, clip, CROP_STREAM]).random()
        return Crop(place, int(LEAST_NEW * self.features.samples))

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        """The batch of these draws."""
        failures: list[Failure] = []
        suspicions: list[Failure] = []
        usable = [(draw, *decoded) for draw in draws if (decoded := self._usable(draw, failures, suspicions))]
        integer = all(samples.dtype == torch.int16 for _, _, samples in usable)
        dtype = torch.int16 if integer else torch.float32
        waveform = torch.empty(len(usable), self.features.samples, dtype=dtype)
        for row, (_, _, samples) in enumerate(usable):
            waveform[row, : len(samples)] = samples if integer else as_float(samples)
            waveform[row, len(samples) :] = 0
        return Batch(
            waveform,
            torch.tensor([len(samples) for _, _, samples in usable], dtype=torch.int64),
            torch.from_numpy(self.manifest.targets([clip for _, clip, _ in usable])),
            torch.tensor([draw.epoch for draw, _, _ in usable], dtype=torch.int64),
            torch.tensor([clip for _, clip, _ in usable], dtype=torch.int64),
            failures,
            suspicions,
        )

    def _usable(self, draw: Draw, failures: list[Failure], suspicions: list[Failure]) -> tuple[int, Tensor] | None:
        """The drawn clip, or its replacement, and its samples; None if there is none."""
        for clip in self._candidates(draw):
            note(self.current, clip)
            try:
                return clip, self.waveform(clip, draw.epoch, suspicions)
            except DataError as error:
                failures.append(Failure(clip, str(error)))
        return None

    def _candidates(self, draw: Draw) -> Iterator[int]:
        """The drawn clip, then those that may take its place."""
        yield draw.clip
        if self.replace:
            rng = np.random.default_rng([draw.epoch, draw.clip])
            others = self._others(draw.clip)
            for _ in range(REPLACEMENTS):
                yield others[int(rng.integers(len(others)))]

    def _others(self, clip: int) -> Sequence[int]:
        """Clips that may take a clip's place: any, of a stream those in its piece, which is there."""
        pieces = self.manifest.clips.paths.pieces
        beside = [] if pieces is None else np.flatnonzero(pieces == pieces[clip]).tolist()
        return beside if len(beside) > 1 else range(len(self.manifest))


def _hand_over(batch: Any) -> tuple[Any, ...]:
    """In a worker, put the waveforms into shared memory, so that running out of it raises here; the rest as NumPy."""
    if get_worker_info() is None:
        return batch
    waveform, *rest = batch
    if waveform.numel():
        waveform.share_memory_()
    return (waveform, *(value.numpy() if isinstance(value, Tensor) else value for value in rest))


def load_batches(
    dataset: ClipDataset,
    batches: Iterable[list[Draw]],
    workers: int,
    timeout: float = 0,
    stopped: Callable[[], bool] = never,
) -> Generator[Batch, None, None]:
    """Decode the batches in order, in `workers` processes (0: in this one), which end when the iterator is closed.

    Raises DataError, naming the files at hand, if a worker dies or takes more than `timeout` seconds (0: no limit) for
    a batch; Interrupted if `stopped` becomes true while waiting for a batch.
    """
    with closing(load(dataset, workers, timeout, stopped, batch_sampler=batches)) as handed:
        for waveform, lengths, targets, epochs, clips, failures, suspicions in handed:
            lengths, targets, epochs, clips = map(torch.as_tensor, (lengths, targets, epochs, clips))
            yield Batch(waveform, lengths, targets, epochs, clips, failures, suspicions)


def load(
    dataset: Source, workers: int, timeout: float, stopped: Callable[[], bool], name: str = "data.workers", **how: Any
) -> Generator[Any, None, None]:
    """The dataset's items, from `workers` processes; see `load_batches`, `watched`. how: options of the DataLoader."""
    loader: DataLoader = DataLoader(
        dataset,  # type: ignore[arg-type]
        **how,
        num_workers=min(workers, MAX_WORKERS),
        prefetch_factor=PREFETCHED if workers else None,
        collate_fn=_hand_over,
        worker_init_fn=start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # unused by the data set; the global one stays as it is
    )
    yield from watched(loader, timeout, stopped, name)


def sequential_batches(clips: int, batch_size: int) -> list[list[Draw]]:
    """Every clip once, in order; the last batch may be short."""
    return [
        [Draw(0, clip) for clip in range(start, min(start + batch_size, clips))]
        for start in range(0, clips, batch_size)
    ]
