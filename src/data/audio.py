"""Decoding audio files: any format, sample rate and channel count that libsndfile reads, to mono at one rate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import soundfile
import torch
import torchaudio
from torch import Tensor

from ..errors import DataError
from .shards import ShardMember

Source = str | os.PathLike[str] | ShardMember
"""An audio file, or one inside a shard."""
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


def decode(path: Source, sample_rate: int = 16_000, downmix: str = "mean", max_samples: int | None = None) -> Tensor:
    """Read a file as a mono float waveform (S,) in [-1, 1] at `sample_rate` Hz, from its start.

    Reads no more than gives `max_samples` at the new rate. Raises DataError, naming the file, if it is missing,
    unreadable, empty, of an unbelievable sample rate, or holds NaN or infinite samples.
    """
    with _opened(path) as file:
        source = file.samplerate
        # A few samples more than asked for, so that the low-pass has no edge inside.
        wanted = -1 if max_samples is None else -(-max_samples * source // sample_rate) + source // 100
        waveform = _read(path, file, wanted, downmix)
    if len(waveform) == 0:
        raise DataError(f"{path}: found 0 samples, expected at least one 25 ms window")
    waveform = resample(waveform, source, sample_rate)
    return waveform if max_samples is None else waveform[:max_samples]


def decode_pieces(
    path: Source, sample_rate: int = 16_000, downmix: str = "mean", seconds: int = 60
) -> Iterator[Tensor]:
    """What `decode` returns for the whole file, in pieces (S,) of so many seconds: memory does not grow with length.

    Raises DataError as `decode` does, though a fault late in the file only when the pieces before it are used up.
    """
    with _opened(path) as file:
        source = file.samplerate
        before = torch.zeros(0)
        piece = _read(path, file, seconds * source, downmix)
        if len(piece) == 0:
            raise DataError(f"{path}: found 0 samples, expected at least one 25 ms window")
        while len(piece):
            after = _read(path, file, seconds * source, downmix)
            # A second of the neighbours on either side, so that the low-pass has no edge at the joints. Joints fall
            # on whole seconds, which are whole samples at either rate.
            joined = resample(torch.cat([before, piece, after[:source]]), source, sample_rate)
            start = len(before) // source * sample_rate
            yield joined[start : start + seconds * sample_rate] if len(after) else joined[start:]
            before, piece = piece[-source:], after


@contextmanager
def _opened(path: Source) -> Iterator[soundfile.SoundFile]:
    try:
        with soundfile.SoundFile(path.open() if isinstance(path, ShardMember) else path) as file:
            if not 0 < file.samplerate <= MAX_SAMPLE_RATE:
                raise DataError(f"{path}: found a sample rate of {file.samplerate} Hz, expected 1 to {MAX_SAMPLE_RATE}")
            yield file
    except (soundfile.LibsndfileError, OSError) as error:
        reason = getattr(error, "error_string", str(error))
        if not isinstance(path, ShardMember) and not os.path.exists(path):
            reason = "no such file"
        raise DataError(f"{path}: not readable as audio ({reason})") from None


def _read(path: Source, file: soundfile.SoundFile, samples: int, downmix: str) -> Tensor:
    """The next `samples` (-1: all) as mono (S,), fewer at the end of the file."""
    waveform = to_mono(torch.from_numpy(file.read(samples, dtype="float32", always_2d=True).T), downmix)
    if not torch.isfinite(waveform).all():
        raise DataError(f"{path}: found NaN or infinite samples, expected finite ones")
    return waveform


def check_audio(path: Source, whole: bool = False) -> None:
    """Raise DataError, naming the file, if its header is none of audio of 25 ms or more; `whole`: or decoding fails."""
    with _opened(path) as file:
        if file.frames < 0.025 * file.samplerate:
            raise DataError(f"{path}: found {file.frames} samples at {file.samplerate} Hz, expected at least 25 ms")
        while whole and len(_read(path, file, 60 * file.samplerate, "mean")):
            pass
