"""From files and samples of any length to windows that a model can hear: streamed, in bounded memory.

Dimensions: S samples, T frames of 10 ms, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..data.audio import MAX_SAMPLE_RATE, decode_pieces, resample, to_mono
from ..errors import ConfigError, DataError
from ..features import FeatureConfig, frame_count, window_and_hop

Audio = str | os.PathLike[str] | Tensor | Any
"""A file, or floating-point samples in [-1, 1], mono (S,) or (channels, S), as a tensor or array."""
Aggregate = Literal["mean", "max"]
"""Scores of a long clip from those of its windows. `mean`: what goes on through the clip. `max`: what occurs at all."""
LEAST_NEW = 0.1
"""Share of a window that a last, padded one must add; a rest shorter than that is left out."""
MOST_CHANNELS = 64
T = TypeVar("T")


class Prediction(NamedTuple):
    """One class and its score: a softmax probability (`ce`) or the class's own probability (`bce`)."""

    label: str
    score: float


class Window(NamedTuple):
    """A stretch of a clip, from `start` to `end` seconds, and the scores (C,) that the model gives it."""

    start: float
    end: float
    scores: Tensor


class Excerpt(NamedTuple):
    """Samples (S,) for one window of clip number `clip`, which lie at `start` to `end` seconds of it."""

    clip: int
    start: float
    end: float
    waveform: Tensor


def excerpts(audio: Audio, features: FeatureConfig, sample_rate: int | None, hop: float | None) -> Iterator[Excerpt]:
    """The windows of one file, or of samples at `sample_rate` Hz; every `hop` seconds (default: side by side).

    The last one may be shorter than the window. Raises DataError for a file or samples that cannot be used,
    ConfigError for a hop that is not above 0 and at most the window.
    """
    window, (length, step) = features.frames, window_and_hop(features.sample_rate)
    frame = step / features.sample_rate
    hop_frames = window if hop is None else _hop_in_frames(hop, window, frame)
    start, held = 0, torch.zeros(0)
    for piece in _pieces(audio, features, sample_rate):
        held = torch.cat([held, piece])
        while len(held) >= features.samples:
            yield Excerpt(0, start * frame, (start + window) * frame, held[: features.samples])
            start, held = start + hop_frames, held[hop_frames * step :]
    frames = frame_count(len(held), features.sample_rate)
    new = frames if start == 0 else frames - (window - hop_frames)
    if start == 0 and frames == 0:
        raise DataError(f"{_name(audio)}: found {len(held)} samples, expected at least one 25 ms window, {length}")
    if start == 0 or new >= min(hop_frames, LEAST_NEW * window):
        yield Excerpt(0, start * frame, start * frame + len(held) / features.sample_rate, held)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _name(audio: Audio) -> str:
    return os.fspath(audio) if isinstance(audio, (str, os.PathLike)) else "audio"


def _hop_in_frames(hop: float, window: int, frame: float) -> int:
    if isinstance(hop, bool) or not isinstance(hop, (int, float)) or not 0 < hop <= window * frame + 1e-9:
        raise ConfigError(f"hop: found {hop!r}, expected seconds above 0, at most the window of {window * frame:g} s")
    return max(1, round(hop / frame))


def _pieces(audio: Audio, features: FeatureConfig, sample_rate: int | None) -> Iterable[Tensor]:
    """Consecutive parts (S,) of the waveform, mono, at the model's sample rate."""
    if isinstance(audio, (str, os.PathLike)):
        return decode_pieces(audio, features.sample_rate, features.downmix, resampler=features.resampler)
    rate = features.sample_rate if sample_rate is None else sample_rate
    if isinstance(rate, bool) or not isinstance(rate, int) or not 0 < rate <= MAX_SAMPLE_RATE:
        raise ConfigError(f"sample_rate: found {rate!r}, expected 1 to {MAX_SAMPLE_RATE} Hz")
    samples = _samples(audio)
    mono = samples if samples.ndim == 1 else to_mono(samples, features.downmix)
    return [resample(mono.float(), rate, features.sample_rate, features.resampler)]


def _samples(audio: Any) -> Tensor:
    try:
        if isinstance(audio, np.ndarray):
            audio = np.ascontiguousarray(audio)  # torch takes no negative strides, as of a reversed clip
        samples = torch.as_tensor(audio).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"audio: found {type(audio).__name__}, expected samples or a file name") from None
    channels = samples.shape[0] if samples.ndim == 2 else 1
    usable = samples.ndim in (1, 2) and samples.numel() and samples.is_floating_point()
    if not usable or channels > MOST_CHANNELS or not torch.isfinite(samples).all():
        raise DataError(
            f"audio: found {samples.dtype} samples of shape {tuple(samples.shape)}, expected finite floating-point"
            f" ones in [-1, 1], (samples,) or (channels, samples) with at most {MOST_CHANNELS} channels, or a file name"
        )
    return samples
