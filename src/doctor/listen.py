"""A look at each clip of a data set: its format, its length, its level, and what is suspicious about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ..data.audio import decode
from ..data.opening import opened
from ..data.shards import ShardMember
from ..data.statistics import Moments
from ..data.workers import at_nothing, items, note
from ..errors import DataError
from ..features import FeatureConfig
from ..runtime.bars import tqdm

MOST_SECONDS = 600
"""Seconds of a clip that are listened to."""
FLAT_SHARE = 1e-3
"""Share of samples in flat tops from which a clip counts as clipped."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a clip is like."""

    sample_rate: int = 0
    seconds: float = 0.0
    clipped: float = 0.0
    """Share of its samples that lie in flat tops."""
    suspicions: tuple[str, ...] = ()
    moments: Moments = Moments()
    """Of its log-mel."""
    error: str | None = None
    """Why it cannot be used."""


class _Listened(Dataset):
    def __init__(self, paths: Sequence[Path | ShardMember], features: FeatureConfig, source: str) -> None:
        self.paths, self.features, self.source = paths, features, source
        self.log_mel = features.log_mel()
        self.current = at_nothing()

    def path(self, place: int) -> Path | ShardMember:
        return self.paths[place]

    def __len__(self) -> int:
        return len(self.paths)

    @torch.inference_mode()
    def __getitem__(self, place: int) -> Seen:
        path, features = self.paths[place], self.features
        note(self.current, place)
        suspicions: list[str] = []
        try:
            most = MOST_SECONDS * features.sample_rate
            sound = decode(
                path, features.sample_rate, features.downmix, most, resampler=features.resampler, suspicions=suspicions
            )
            log_mel = self.log_mel(sound[None])
            if not log_mel.shape[1]:
                raise DataError(
                    f"{path}: found {len(sound)} samples, expected at least one {features.window_ms:g} ms window"
                )
            rate, clipped = _as_stored(path)
        except DataError as error:
            return Seen(error=str(error))
        return Seen(rate, len(sound) / features.sample_rate, clipped, tuple(suspicions), Moments.of(log_mel))


def _as_stored(path: Path | ShardMember) -> tuple[int, float]:
    """The file's own sample rate, and the share of samples in flat tops in its first minute."""
    with opened(path) as file:
        samples = file.read(60 * file.samplerate, "float32")
        return file.samplerate, flat_tops(samples)


def flat_tops(samples: np.ndarray) -> float:
    """Share of samples (S, channels) in runs of three or more at the channel's own highest or lowest value.

    Only values from half of full scale on count: a recording that was too loud is cut off there, quiet ones are not.
    """
    if len(samples) < 3:
        return 0.0
    flat = np.zeros(samples.shape, dtype=bool)
    for extreme in (samples.max(axis=0), samples.min(axis=0)):
        at = (samples == extreme) & (np.abs(extreme) >= 0.5)
        runs = at[:-2] & at[1:-1] & at[2:]
        for shift in range(3):
            flat[shift : len(flat) - 2 + shift] |= runs
    constant = samples.max(axis=0) == samples.min(axis=0)
    return float(np.max(np.where(constant, 0.0, flat.mean(axis=0))))


def listen(
    paths: Sequence[Path | ShardMember],
    features: FeatureConfig,
    workers: int = 0,
    progress: bool = True,
    source: str = "audio",
) -> list[Seen]:
    """Look at each clip, in order. features: frames, mean and std do not matter. source: where they are listed.

    Raises ConfigError if too few open files are allowed for the workers, DataError if one of them dies or fails.
    """
    with closing(items(_Listened(paths, features, source), workers, name="workers")) as seen:
        return list(tqdm(seen, "listen", total=len(paths), unit="clip", disable=not progress, leave=False))
