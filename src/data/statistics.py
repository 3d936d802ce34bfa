"""Mean and standard deviation of the log-mel over a data set, for normalisation: real frames only, in one pass.

Clips are taken whole, without augmentation and without padding: padded frames hold no sound and would pull both numbers
towards the padding value. Clips are decoded a minute at a time, so memory does not grow with their length.

Dimensions: T frames, F mel bins.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError
from ..features import FeatureConfig, LogMel
from ..runtime.bars import tqdm
from .audio import decode_pieces
from .bad_clips import BadClips
from .manifest import Manifest
from .shards import ShardMember
from .suspicion import describe_suspicious
from .workers import OfManifest, items, note

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of numbers; the moments of two sets can be added, exactly."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets of numbers together (Chan, Golub, LeVeque, 1979)."""
        count = self.count + other.count
        if count == 0:
            return self
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * self.count * other.count / count
        return Moments(count, self.mean + apart * other.count / count, squares)

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """Moments of all elements of a tensor, computed in float64."""
        if values.numel() == 0:
            return cls()
        values = values.double()
        mean = values.mean()
        return cls(values.numel(), mean.item(), (values - mean).square().sum().item())


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Statistics of the log-mel over the real frames of a data set."""

    mean: float
    """Mean over all frames and mel bins."""
    std: float
    """Standard deviation over all frames and mel bins (of the population: divided by n)."""
    frames: int
    """Number of frames."""
    clips: int
    """Number of clips that they come from."""


class _ClipMoments(OfManifest):
    """The moments of each clip's log-mel, and what looks wrong about the clip.

    For an unusable clip the error is returned, since a worker cannot raise it intact.
    """

    def __init__(self, manifest: Manifest, features: FeatureConfig) -> None:
        super().__init__(manifest)
        self.features = features
        self.log_mel = features.log_mel()

    def __len__(self) -> int:
        return len(self.manifest)

    @torch.inference_mode()
    def __getitem__(self, clip: int) -> tuple[Moments | DataError, list[str]]:
        path, reasons = self.path(clip), list[str]()
        note(self.current, clip)
        try:
            pieces = log_mel_pieces(path, self.features, self.log_mel, reasons)
            moments = sum((Moments.of(log_mel) for log_mel in pieces), Moments())
        except DataError as error:
            return error, []
        if moments.count == 0:
            short = f"{path}: found no whole window, expected at least {self.features.window_ms:g} ms"
            return DataError(short), []
        return moments, reasons


def log_mel_pieces(
    path: Path | ShardMember, features: FeatureConfig, log_mel: LogMel, suspicions: list[str] | None = None
) -> Iterator[Tensor]:
    """Log-mel (1, T, F) of a whole file, piece by piece; windows that straddle two pieces belong to the later one."""
    rest = torch.zeros(0)
    pieces = decode_pieces(
        path, features.sample_rate, features.downmix, resampler=features.resampler, suspicions=suspicions
    )
    for piece in pieces:
        waveform = torch.cat([rest, piece])
        frames = log_mel(waveform[None])
        rest = waveform[frames.shape[1] * log_mel.hop :]
        yield frames


def measure_statistics(
    manifest: Manifest,
    features: FeatureConfig,
    workers: int = 2,
    progress: bool = True,
    max_bad: float = 0.0,
    timeout: float = 0,
) -> Statistics:
    """Mean and standard deviation of the log-mel over every real frame of every clip, as `features` computes it.

    features: frames, mean and std do not matter. workers: decoding processes, 0 for this one; their number does not
    change the result. max_bad: share of the clips that may be unusable, with a floor; these are logged and left out.
    timeout: seconds that decoding a clip may take, 0 for no limit. Raises ConfigError if too few open files are allowed
    for the workers, DataError if more clips are unusable (naming some), a decoding process dies or takes too long, or
    all frames are alike.
    """
    total, bad, suspicious = Moments(), BadClips(manifest.source, len(manifest), max_bad), list[str]()
    with closing(items(_ClipMoments(manifest, features), workers, timeout, "workers")) as handed:
        results = tqdm(handed, "statistics", total=len(manifest), unit="clip", disable=not progress)
        for clip, (moments, reasons) in zip(manifest.clips, results, strict=True):
            if isinstance(moments, DataError):
                bad.add(clip, moments)
            else:
                total += moments
            if reasons:
                suspicious.append(f"{clip.path}: {'; '.join(reasons)}")
    if suspicious:
        logger.warning(describe_suspicious(suspicious))
    if total.squares == 0:
        raise DataError(f"{manifest.source}: every frame of its {len(manifest)} clips is alike, expected sound")
    frames = total.count // features.bins
    return Statistics(total.mean, math.sqrt(total.squares / total.count), frames, len(manifest) - len(bad))
