"""Split recordings of any length into windows for a model, in worker processes and in bounded memory.

Evaluation and `predict` share this code, so that both use the same windows.

Dimensions: B windows, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import ConfigError, DataError, is_finite_number
from ..features import FeatureConfig
from ..runtime.interruption import never
from .audio import as_float
from .dataset import LEAST_NEW, Failure, load
from .workers import MAX_WORKERS, at_nothing, note, require_room


class Excerpt(NamedTuple):
    """Samples (S,) of one window, from `start` to `end` seconds of its recording."""

    start: float
    end: float
    waveform: Tensor


def excerpts(
    pieces: Iterable[Tensor], features: FeatureConfig, hop: float | None = None, name: object = "audio"
) -> Iterator[Excerpt]:
    """The windows of a recording, one every `hop` seconds (default: side by side).

    pieces: its consecutive parts (S,), mono, at the model's rate. The last window may be shorter than the others.
    Raises DataError, with `name`, if there is no whole frame of sound, ConfigError as `hop_in_frames` does.
    """
    window, step = features.frames, features.hop
    hop_frames, frame = hop_in_frames(hop, features), step / features.sample_rate
    start, held = 0, None
    for piece in pieces:
        held = piece if held is None else torch.cat([held, piece])
        while len(held) >= features.samples:
            yield Excerpt(start * frame, (start + window) * frame, held[: features.samples])
            start, held = start + hop_frames, held[hop_frames * step :]
    rest = 0 if held is None else len(held)
    frames = features.frame_count(rest)
    if start == 0 and frames == 0:
        raise DataError(
            f"{name}: found {rest} samples, expected at least one {features.window_ms:g} ms window, {features.window}"
        )
    new = frames if start == 0 else frames - (window - hop_frames)
    if held is not None and (start == 0 or new >= min(hop_frames, LEAST_NEW * window)):
        yield Excerpt(start * frame, start * frame + rest / features.sample_rate, held)


def hop_in_frames(hop: float | None, features: FeatureConfig) -> int:
    """Frames between the starts of windows; None: side by side. Raises ConfigError unless 0 < hop <= the window."""
    if hop is None:
        return features.frames
    longest = features.seconds
    if not is_finite_number(hop) or not 0 < hop <= longest + 1e-9:
        raise ConfigError(f"hop: found {hop!r}, expected seconds above 0, at most the window of {longest:g} s")
    return max(1, round(hop / features.frame_seconds))


class Ended(NamedTuple):
    """A clip whose windows have all been yielded."""

    clip: int
    windows: int
    """Number of windows."""
    frames: int
    """Whole frames in the last window, fewer than the model's if it is padded."""


class WindowBatch(NamedTuple):
    """Windows of one or more clips, in order; all on the CPU."""

    waveform: Tensor
    """(B, S) float32, or int16 where all are 16-bit PCM, mono, at the model's rate. Zero beyond each length."""
    lengths: Tensor
    """(B,) int64 samples of each window."""
    clips: list[int]
    """Index of the clip of each window."""
    times: list[tuple[float, float]]
    """Start and end of each window in its clip, in seconds."""
    ended: list[Ended]
    """Clips that are complete with this batch."""
    failures: list[Failure]
    """Clips that cannot be used, or not to their end; earlier windows of them may have been yielded before."""
    suspicions: list[Failure]
    """Clips that are used and look wrong, with what looks wrong."""

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Waveform (B, S) as float32 in [-1, 1] and lengths (B,), on that device."""
        return as_float(self.waveform.to(device, non_blocking=True)), self.lengths.to(device, non_blocking=True)


class WindowDataset(IterableDataset):
    """Reads whole clips, group by group, as batches of windows; no batch spans two groups."""

    def __init__(
        self,
        sources: Sequence[Any],
        read: Callable[..., Iterable[Tensor]],
        features: FeatureConfig,
        batch_size: int,
        hop: float | None = None,
        source: object = "audio",
        name: Callable[[Any], str] = str,
    ) -> None:
        """read(source, suspicions=list): yields the consecutive parts (S,) of a clip, mono, at the model's rate, adds
        what looks wrong about it to the list, and may raise DataError.

        name: what a clip is called in messages. source: where the clips are listed. Raises ConfigError for a hop that
        does not fit.
        """
        self.sources, self.read, self.features, self.batch_size, self.hop = sources, read, features, batch_size, hop
        self.source, self.name = source, name
        self.groups = clip_groups(len(sources), batch_size)
        """Groups of clips; one process reads all clips of a group, one after the other."""
        hop_in_frames(hop, features)
        self.current = at_nothing()

    def require_room(self, workers: int) -> None:
        """Raise ConfigError if the workers' batches do not fit into shared memory, or need too many open files."""
        needed = self.batch_size * self.features.samples * torch.int16.itemsize
        require_room(min(workers, MAX_WORKERS, len(self.groups)), needed, "workers")

    def path(self, clip: int) -> str:
        """What a clip is read from, for messages."""
        return self.name(self.sources[clip])

    def __iter__(self) -> Iterator[WindowBatch]:
        worker = get_worker_info()
        for group in self.groups[worker.id :: worker.num_workers] if worker else self.groups:
            yield from self._batches(group)

    def _batches(self, group: Sequence[int]) -> Iterator[WindowBatch]:
        part = _Part(self.features)
        for clip in group:
            note(self.current, clip)
            windows, frames = 0, 0
            reasons = list[str]()
            try:
                pieces = self.read(self.sources[clip], suspicions=reasons)
                for excerpt in excerpts(pieces, self.features, self.hop, self.path(clip)):
                    if len(part.clips) == self.batch_size:
                        yield part.batch()
                        part = _Part(self.features)
                    part.add(clip, excerpt)
                    windows, frames = windows + 1, self.features.frame_count(len(excerpt.waveform))
                part.ended.append(Ended(clip, windows, frames))
                if reasons:
                    part.suspicions.append(Failure(clip, f"{self.path(clip)}: {'; '.join(reasons)}"))
            except DataError as error:
                part.failures.append(Failure(clip, str(error)))
        yield part.batch()


class _Part:
    """A batch under construction."""

    def __init__(self, features: FeatureConfig) -> None:
        self.features = features
        self.excerpts: list[Excerpt] = []
        self.clips: list[int] = []
        self.ended: list[Ended] = []
        self.failures: list[Failure] = []
        self.suspicions: list[Failure] = []

    def add(self, clip: int, excerpt: Excerpt) -> None:
        self.clips.append(clip)
        self.excerpts.append(excerpt)

    def batch(self) -> WindowBatch:
        integer = all(excerpt.waveform.dtype == torch.int16 for excerpt in self.excerpts)
        samples = self.features.samples
        if self.features.length == "native":  # nothing is padded to the window
            samples = max((len(excerpt.waveform) for excerpt in self.excerpts), default=0)
        waveform = torch.empty(len(self.clips), samples, dtype=torch.int16 if integer else torch.float32)
        for row, (_, _, heard) in zip(waveform, self.excerpts, strict=True):
            row[: len(heard)] = heard if integer else as_float(heard)
            row[len(heard) :] = 0
        return WindowBatch(
            waveform,
            torch.tensor([len(excerpt.waveform) for excerpt in self.excerpts], dtype=torch.int64),
            self.clips,
            [(excerpt.start, excerpt.end) for excerpt in self.excerpts],
            self.ended,
            self.failures,
            self.suspicions,
        )


def clip_groups(clips: int, size: int) -> list[range]:
    """Every clip once, in order, in groups of `size`; the last one may be smaller."""
    return [range(start, min(start + size, clips)) for start in range(0, clips, size)]


def load_windows(
    dataset: WindowDataset, workers: int, timeout: float = 0, stopped: Callable[[], bool] = never
) -> Generator[WindowBatch, None, None]:
    """Read the windows in `workers` processes (0: in this one); those of one clip come in order.

    With several workers the batches of different groups are interleaved. Raises DataError and Interrupted as
    `load_batches` does.
    """
    if workers == 0:
        yield from dataset
        return
    workers = min(workers, max(1, len(dataset.groups)))
    with closing(load(dataset, workers, timeout, stopped, "workers", batch_size=None)) as handed:
        for waveform, lengths, *rest in handed:
            yield WindowBatch(waveform, torch.as_tensor(lengths), *rest)
