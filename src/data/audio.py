"""Decoding audio files: any format, sample rate and channel count that libsndfile reads, to mono at one rate."""

from __future__ import annotations

import os
from functools import lru_cache

import soundfile
import torch
import torchaudio
from torch import Tensor

from ..errors import DataError

MAX_SAMPLE_RATE = 384_000
"""Highest sample rate in Hz that is believed; above it a header is broken or hostile."""


@lru_cache(maxsize=32)
def _resampler(source: int, target: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(source, target)


def to_mono(waveform: Tensor, downmix: str = "mean") -> Tensor:
    """Channels (channels, S) to one (S,): their mean, or the `first` alone."""
    return waveform.mean(dim=0) if downmix == "mean" else waveform[0]


def resample(waveform: Tensor, source: int, target: int) -> Tensor:
    """Waveform (..., S) at `source` Hz to `target` Hz, windowed-sinc low-pass (torchaudio)."""
    return waveform if source == target else _resampler(source, target)(waveform)


def decode(
    path: str | os.PathLike[str], sample_rate: int = 16_000, downmix: str = "mean", max_samples: int | None = None
) -> Tensor:
    """Read a file as a mono float waveform (S,) in [-1, 1] at `sample_rate` Hz, from its start.

    Reads no more than gives `max_samples` at the new rate. Raises DataError, naming the file, if it is missing,
    unreadable, empty, of an unbelievable sample rate, or holds NaN or infinite samples.
    """
    try:
        with soundfile.SoundFile(path) as file:
            source = file.samplerate
            if not 0 < source <= MAX_SAMPLE_RATE:
                raise DataError(f"{path}: found a sample rate of {source} Hz, expected 1 to {MAX_SAMPLE_RATE}")
            # A few samples more than asked for, so that the low-pass has no edge inside.
            wanted = -1 if max_samples is None else -(-max_samples * source // sample_rate) + source // 100
            samples = file.read(wanted, dtype="float32", always_2d=True)  # (S, channels)
    except (soundfile.LibsndfileError, OSError) as error:
        reason = "no such file" if not os.path.exists(path) else str(error)
        raise DataError(f"{path}: not readable as audio ({reason})") from None
    if len(samples) == 0:
        raise DataError(f"{path}: found 0 samples, expected at least one 25 ms window")
    waveform = to_mono(torch.from_numpy(samples.T), downmix)
    if not torch.isfinite(waveform).all():
        raise DataError(f"{path}: found NaN or infinite samples, expected finite ones")
    waveform = resample(waveform, source, sample_rate)
    return waveform if max_samples is None else waveform[:max_samples]
