"""Find sounds in a recording of any length: scan coarsely, listen again where something may be, smooth, and cut.

A window's scores stand for the time around its centre, one hop long. Memory does not grow with the recording.

Dimensions: B windows, C classes.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.audio import as_float
from ..data.windows import Excerpt, excerpts, hop_in_frames
from ..errors import ConfigError, require
from ..features import FeatureConfig
from ..models.config import Loss
from ..models.geometry import PatchSize
from ..runtime.arguments import Precision
from .cascade import confidence, temper
from .listening import Listener, chosen, in_precision


class Event(NamedTuple):
    """A sound, from `start` to `end` in seconds, and the highest of its smoothed scores."""

    label: str
    start: float
    end: float
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventOptions:
    """What counts as an event."""

    hop: float | None = None
    """Seconds between windows, and so the resolution in time (default: a quarter of the window)."""
    threshold: float = 0.5
    """Score at which an event begins."""
    release: float = 0.3
    """Score below which it ends."""
    smooth: int = 3
    """Windows over which scores are averaged, an odd number."""
    shortest: float = 0.0
    """Seconds; shorter events are left out."""
    ignore: tuple[str, ...] = ()
    """Classes of no interest, such as silence or noise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scan(EventOptions):
    """How a recording is searched for events."""

    coarse: PatchSize
    """Hears every window."""
    fine: PatchSize | None = None
    """Hears again the windows in which a class of interest scores at least `refine`, or that the coarse size is unsure
    of; none: no second look."""
    refine: float = 0.1
    unsure: float = 0.0
    """Confidence (`cascade.confidence`), 0 to 1, below which a window is heard again."""
    temperature: float = 1.0
    """What the coarse size's logits are divided by for that confidence."""
    batch_size: int = 16
    precision: Precision = "fp32"

    def hop_frames(self, features: FeatureConfig) -> int:
        """Frames between windows. Raises ConfigError for a hop that is not above 0 and at most the window."""
        return max(1, features.frames // 4) if self.hop is None else hop_in_frames(self.hop, features)

    def check(self, model: Listener) -> None:
        """Raise ConfigError for a setting that is out of range or does not fit the model."""
        if model.loss == "mse":
            raise ConfigError(
                "checkpoint: found a model that predicts numbers, expected one of classes: events are when a class is"
                " heard; flexiast predict --windows gives the numbers over time"
            )
        for size in (self.coarse, self.fine or self.coarse):
            model.config.layout(size, model.feature_config.frames)
        self.hop_frames(model.feature_config)
        for name in ("refine", "unsure", "threshold", "release"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, value, "0 to 1")
        require(self.release <= self.threshold, "release", self.release, f"at most the threshold, {self.threshold}")
        require(self.smooth >= 1 and self.smooth % 2 == 1, "smooth", self.smooth, "an odd number of windows")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        require(self.shortest >= 0, "shortest", self.shortest, "at least 0 s")
        if unknown := set(self.ignore) - set(model.labels.names):
            raise ConfigError(f"ignore: found {', '.join(sorted(unknown))}, expected names of the model's classes")


@dataclasses.dataclass
class Progress:
    """What a scan has done so far."""

    seconds: float = 0.0
    """Of the recording."""
    windows: int = 0
    refined: int = 0


def scan(model: Listener, pieces: Iterable[Tensor], how: Scan, done: Progress, name: str = "audio") -> Iterator[Event]:
    """Events in the order in which they end, each as soon as it is known. `done` is kept up to date.

    pieces: consecutive parts (S,) of the recording, mono, at the model's rate. Raises ConfigError, before any work, for
    a setting that does not fit; DataError as reading the pieces does.
    """
    how.check(model)
    features = model.feature_config
    hop = how.hop_frames(features) * features.frame_seconds
    kept = np.array([label not in how.ignore for label in model.labels.names])
    tracker = _Tracker(model.labels.names, kept, hop, how)
    windows = excerpts(pieces, features, hop, name)
    while batch := tuple(islice(windows, how.batch_size)):
        scores, refined = _scores(model, batch, how, kept)
        done.windows += len(batch)
        done.refined += refined
        done.seconds = batch[-1].end
        for excerpt, row in zip(batch, scores, strict=True):
            yield from tracker.add(excerpt.start, excerpt.end, row)
    yield from tracker.close()


@torch.no_grad()
def _scores(model: Listener, batch: tuple[Excerpt, ...], how: Scan, kept: np.ndarray) -> tuple[np.ndarray, int]:
    """Scores (B, C), and how many of the windows were refined."""
    device = model.kernel.device
    waveform = torch.zeros(len(batch), model.feature_config.samples)
    for row, excerpt in zip(waveform, batch, strict=True):
        row[: len(excerpt.waveform)] = as_float(excerpt.waveform)
    lengths = torch.tensor([len(excerpt.waveform) for excerpt in batch], device=device)
    with in_precision(model, how.precision):
        log_mel = model.front_end.as_trained(waveform.to(device), lengths)
        scores = model.probabilities(model(log_mel, how.coarse).float()).cpu()
        if how.fine is None:
            return scores.numpy(), 0
        again = np.flatnonzero(_to_refine(scores.numpy(), how, kept, model.loss))
        if len(again):
            scores[again] = model.probabilities(model(chosen(log_mel, again), how.fine).float()).cpu()
    return scores.numpy(), len(again)


def _to_refine(scores: np.ndarray, how: Scan, kept: np.ndarray, loss: Loss) -> np.ndarray:
    """Whether windows (B,) with these scores (B, C) are heard again.

    Of a single-label model, the classes of no interest count as one: which of them it is does not matter.
    """
    tempered = temper(scores, how.temperature, loss)
    judged = tempered[:, kept]
    if loss == "ce" and not kept.all():
        judged = np.column_stack([judged, tempered[:, ~kept].sum(axis=1)])
    unsure = confidence(judged, loss) < how.unsure if judged.shape[1] else False
    heard: np.ndarray = (scores[:, kept].max(axis=1, initial=0) >= how.refine) | unsure
    return heard


class _Hop(NamedTuple):
    """What one window says of the time around its centre."""

    number: int
    start: float
    end: float
    """Of the window: the last one speaks for the time up to there."""
    scores: np.ndarray


class _Tracker:
    """Turns scores of consecutive windows into events."""

    def __init__(self, names: tuple[str, ...], kept: np.ndarray, hop: float, how: Scan) -> None:
        self.names, self.kept, self.hop, self.how = names, kept, hop, how
        self.reach = how.smooth // 2
        self.recent: deque[_Hop] = deque(maxlen=2 * self.reach + 1)
        """Those that scores are averaged over."""
        self.running: dict[int, tuple[float, float]] = {}
        """Start and highest score of the events that have begun."""
        self.added = self.judged = 0

    def add(self, start: float, end: float, scores: np.ndarray) -> Iterator[Event]:
        """Events that end with one more window."""
        begin = (start + end - self.hop) / 2 if self.added else 0.0
        self.recent.append(_Hop(self.added, begin, end, scores))
        self.added += 1
        if self.added > self.reach:
            yield from self._judge()

    def close(self) -> Iterator[Event]:
        """Events that end with the recording."""
        while self.judged < self.added:
            while self.recent[0].number < self.judged - self.reach:
                self.recent.popleft()
            yield from self._judge()
        for number in sorted(self.running):
            yield from self._ended(number, self.recent[-1].end)

    def _judge(self) -> Iterator[Event]:
        """Compare the smoothed scores of the next hop with the thresholds."""
        hop = next(hop for hop in self.recent if hop.number == self.judged)
        smoothed = np.mean([near.scores for near in self.recent], axis=0)
        self.judged += 1
        for number in sorted(number for number in self.running if smoothed[number] < self.how.release):
            yield from self._ended(number, hop.start)
        for number in np.flatnonzero(self.kept & (smoothed >= self.how.release)).tolist():
            score = float(smoothed[number])
            if number in self.running:
                started, highest = self.running[number]
                self.running[number] = started, max(highest, score)
            elif score >= self.how.threshold:
                self.running[number] = hop.start, score

    def _ended(self, number: int, end: float) -> Iterator[Event]:
        start, score = self.running.pop(number)
        if end - start >= self.how.shortest:
            yield Event(self.names[number], start, end, score)
