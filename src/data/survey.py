"""Survey the clips before training: how long and how loud they are, and simple statistics to tell them apart.

Dimensions: n clips, F mel bins, T frames.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch

from ..errors import DataError
from ..features import FeatureConfig
from ..runtime.bars import tqdm
from .manifest import Manifest
from .statistics import Moments, log_mel_pieces
from .workers import OfManifest, items, note

MOST_SURVEYED = 2_000
"""Most clips to survey; if there are more, an evenly spread selection."""
MOST_PIECES = 8
"""Most pieces of a stream to survey, each of which is fetched."""


@dataclasses.dataclass(frozen=True)
class Survey:
    """The results for the surveyed clips."""

    clips: np.ndarray
    """(n,) indices of the clips in the manifest; unusable ones are left out."""
    frames: np.ndarray
    """(n,) frames in each."""
    mean: float
    """Mean of the log-mel over all frames and bins."""
    std: float
    """Standard deviation of the log-mel over all frames and bins."""
    summary: np.ndarray
    """(n, 2 F) float32: mean and standard deviation over time of each mel bin."""
    unusable: tuple[str, ...] = ()
    """Errors of the unusable clips."""

    def length(self, share: float) -> int:
        """The length in frames that this share of the clips does not exceed."""
        return int(np.quantile(self.frames, share, method="higher"))


class _SurveyedClips(OfManifest):
    """Frames, moments and summary of each chosen clip; for an unusable clip its error."""

    def __init__(self, manifest: Manifest, chosen: Sequence[int], features: FeatureConfig) -> None:
        super().__init__(manifest)
        self.chosen, self.features = chosen, features
        self.log_mel = features.log_mel()

    def __len__(self) -> int:
        return len(self.chosen)

    @torch.inference_mode()
    def __getitem__(self, place: int) -> tuple[int, Moments, np.ndarray] | DataError:
        path = self.path(self.chosen[place])
        note(self.current, self.chosen[place])
        total, frames = Moments(), 0
        sums, squares = (torch.zeros(self.features.bins, dtype=torch.float64) for _ in range(2))
        try:
            for log_mel in log_mel_pieces(path, self.features, self.log_mel):
                total += Moments.of(log_mel)
                frames += log_mel.shape[1]
                sums += log_mel[0].double().sum(dim=0)
                squares += log_mel[0].double().square().sum(dim=0)
        except DataError as error:
            return error
        if not frames:
            return DataError(f"{path}: found no whole window, expected at least {self.features.window_ms:g} ms")
        mean = sums / frames
        deviation = (squares / frames - mean.square()).clamp(min=0).sqrt()
        return frames, total, torch.cat([mean, deviation]).float().numpy()


def _chosen(manifest: Manifest) -> np.ndarray:
    """Indices of the clips to survey."""
    clips, pieces = np.arange(len(manifest)), manifest.clips.paths.pieces
    if pieces is not None:
        clips = clips[np.isin(pieces, _spread(np.unique(pieces), MOST_PIECES))]
    return _spread(clips, MOST_SURVEYED)


def _spread(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the values, evenly spread."""
    return values[np.unique(np.linspace(0, len(values) - 1, min(len(values), most)).round().astype(int))]


def survey(
    manifest: Manifest, features: FeatureConfig, workers: int = 0, progress: bool = True, timeout: float = 0
) -> Survey:
    """Survey the clips of a manifest, at most MOST_SURVEYED of them, evenly spread; of a stream over a few pieces.

    features: frames, mean and std do not matter. timeout: seconds that decoding a clip may take, 0 for no limit.
    Raises ConfigError if too few open files are allowed for the workers, DataError if no clip is usable, all frames
    are alike, or a decoding process dies or takes too long.
    """
    chosen = _chosen(manifest)
    clips = _SurveyedClips(manifest, chosen.tolist(), features)
    frames, kept, summaries, total, unusable = [], [], [], Moments(), []
    with closing(items(clips, workers, timeout)) as handed:
        bar = tqdm(handed, "survey", total=len(chosen), unit="clip", disable=not progress, leave=False, delay=1)
        for clip, item in zip(chosen, bar, strict=True):
            if isinstance(item, DataError):
                unusable.append(str(item))
                continue
            kept.append(clip)
            frames.append(item[0])
            total += item[1]
            summaries.append(item[2])
    if not kept:
        raise DataError(f"{manifest.source}: found no usable clip; the first: {unusable[0]}")
    if total.squares == 0:
        raise DataError(f"{manifest.source}: every frame of its {len(kept)} clips is alike, expected sound")
    std = math.sqrt(total.squares / total.count)
    return Survey(np.array(kept), np.array(frames), total.mean, std, np.stack(summaries), tuple(unusable))
