"""Decoding audio files: any format, sample rate and channel count that libsndfile reads, to mono at one rate."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import BinaryIO

import soundfile
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from ..errors import DataError
from .crop import FARTHEST, Crop, can_seek, cut, seek
from .shards import ShardMember

Source = str | os.PathLike[str] | ShardMember | BinaryIO
"""An audio file, one inside a shard, or one that is open for reading bytes."""
MAX_SAMPLE_RATE = 384_000
"""Highest sample rate in Hz that is believed; above it a header is broken or hostile."""
MAX_CHANNELS = 64
"""Most channels that are believed."""
_BLOCK = 1 << 20
"""Samples, over all channels, that are read at once: memory follows what a file holds, not what its header says."""
_TABLE = 1 << 20
"""Largest product of the two sample rates, less common factors, of which a table of filters is made (4 bytes each)."""


@lru_cache(maxsize=32)
def _resampler(source: int, target: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(source, target)


def to_mono(waveform: Tensor, downmix: str = "mean") -> Tensor:
    """Channels (channels, S) to one (S,): their mean, or the `first` alone."""
    return waveform.mean(dim=0) if downmix == "mean" else waveform[0]


def as_float(waveform: Tensor) -> Tensor:
    """int16 samples as float32 in [-1, 1), the values that libsndfile makes of them; float ones as they are."""
    return waveform.float().mul_(2.0**-15) if waveform.dtype == torch.int16 else waveform


def resample(waveform: Tensor, source: int, target: int) -> Tensor:
    """Waveform (..., S) at `source` Hz to `target` Hz, windowed-sinc low-pass (torchaudio)."""
    if source == target:
        return waveform
    common = math.gcd(source, target)
    if (source // common) * (target // common) > _TABLE:  # 44,101 to 16,000 Hz would be a table of 2.8 GB
        return resample_without_table(waveform, source, target)
    return _resampler(source, target)(waveform)


def resample_without_table(waveform: Tensor, source: int, target: int) -> Tensor:
    """What torchaudio's Resample returns, its filter evaluated at each sample: slower, for rates of no simple ratio."""
    zeros, cutoff = 6, 0.99 * min(source, target)  # torchaudio's defaults: zero crossings, and roll-off
    width = math.ceil(zeros * source / cutoff)
    count = -(-waveform.shape[-1] * target // source)
    taps = torch.arange(2 * width + 2)
    padded, parts = F.pad(waveform, (width, width + 1)), []
    for place in (torch.arange(count) * source).split(max(1, _BLOCK // len(taps))):
        first, rest = place // target, (place % target).double() / target
        t = ((taps - width - rest[:, None]) * (cutoff / source)).clamp(-zeros, zeros)  # (samples, taps)
        filters = torch.sinc(t) * torch.cos(t * (math.pi / zeros / 2)).square() * (cutoff / source)
        parts.append((padded[..., first[:, None] + taps] * filters.to(waveform.dtype)).sum(dim=-1))
    return torch.cat(parts, dim=-1) if parts else waveform[..., :0]


def decode(
    path: Source,
    sample_rate: int = 16_000,
    downmix: str = "mean",
    max_samples: int | None = None,
    integer: bool = False,
    crop: Crop | None = None,
) -> Tensor:
    """Read a file as a mono float32 waveform (S,) in [-1, 1] at `sample_rate` Hz, from its start.

    integer: return int16 samples as they are where the file holds 16-bit PCM of one channel at that rate; `as_float`
    makes the same waveform of them. Reads no more than gives `max_samples` at the new rate. crop: with `max_samples`,
    a longer file is read from there on, what lies before is skipped. Raises DataError, naming the file, if it is
    missing, unreadable, empty, of an unbelievable sample rate or number of channels, or holds NaN or infinite samples.
    """
    skipped = lead = 0
    with _opened(path) as file:
        source = file.samplerate
        margin = source // 100  # samples more than asked for, so that the low-pass has no edge inside
        decoded_whole = bool(crop and max_samples and not can_seek(file))
        if crop and max_samples and not decoded_whole:
            skipped, lead = seek(file, sample_rate, max_samples, margin, crop)
        wanted = -1 if max_samples is None else -(-(max_samples + lead) * source // sample_rate) + margin
        wanted = FARTHEST * source if decoded_whole else wanted
        if integer and _is_integer(file, sample_rate):
            waveform = _read(path, file, wanted, "first", "int16")
        else:
            waveform = _read(path, file, wanted, downmix)
    if len(waveform) == 0 and not skipped:
        raise DataError(f"{named(path)}: found 0 samples, expected at least one 25 ms window")
    waveform = resample(waveform, source, sample_rate)[lead:]
    if max_samples is None:
        return waveform
    if skipped and len(waveform) < max_samples:  # the file ends before its header says
        return decode(path, sample_rate, downmix, max_samples, integer)
    return cut(waveform, max_samples, crop) if crop and decoded_whole else waveform[:max_samples]


def _is_integer(file: soundfile.SoundFile, sample_rate: int) -> bool:
    """Whether the file's samples are 16-bit integers that need no conversion."""
    return bool(file.subtype == "PCM_16" and file.channels == 1 and file.samplerate == sample_rate)


def decode_pieces(
    path: Source, sample_rate: int = 16_000, downmix: str = "mean", seconds: int = 60, integer: bool = False
) -> Iterator[Tensor]:
    """What `decode` returns for the whole file, in pieces (S,) of so many seconds: memory does not grow with length.

    Of files with more than 48,000 samples a second the pieces are shorter, of whole seconds all the same. Raises
    DataError as `decode` does, though a fault late in the file only when the pieces before it are used up.
    """
    with _opened(path) as file:
        source = file.samplerate
        seconds = min(seconds, max(1, seconds * 48_000 // source))
        how = ("first", "int16") if integer and _is_integer(file, sample_rate) else (downmix, "float32")
        piece = _read(path, file, seconds * source, *how)
        before = piece[:0]
        if len(piece) == 0:
            raise DataError(f"{named(path)}: found 0 samples, expected at least one 25 ms window")
        while len(piece):
            after = _read(path, file, seconds * source, *how)
            # A second of the neighbours on either side, so that the low-pass has no edge at the joints. Joints fall
            # on whole seconds, which are whole samples at either rate.
            joined = resample(torch.cat([before, piece, after[:source]]), source, sample_rate)
            start = len(before) // source * sample_rate
            yield joined[start : start + seconds * sample_rate] if len(after) else joined[start:]
            before, piece = piece[-source:], after


@contextmanager
def _opened(path: Source) -> Iterator[soundfile.SoundFile]:
    try:
        if isinstance(path, (str, os.PathLike)) and not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("no regular file")  # a pipe or a device could keep us for ever
        # As bytes, because file names need not be UTF-8.
        opened = soundfile.SoundFile(
            path.open() if isinstance(path, ShardMember) else path if hasattr(path, "read") else os.fsencode(path)
        )
    except (soundfile.LibsndfileError, OSError, ValueError, TypeError) as error:  # TypeError: *.raw has no header
        raise _unreadable(path, error) from None
    try:
        with opened as file:
            if not 0 < file.samplerate <= MAX_SAMPLE_RATE:
                raise DataError(
                    f"{named(path)}: found a sample rate of {file.samplerate} Hz, expected 1 to {MAX_SAMPLE_RATE}"
                )
            if not 0 < file.channels <= MAX_CHANNELS:
                raise DataError(f"{named(path)}: found {file.channels} channels, expected 1 to {MAX_CHANNELS}")
            yield file
    except (soundfile.LibsndfileError, OSError) as error:
        raise _unreadable(path, error) from None


def named(path: Source) -> str:
    """What a file is called in messages: its path, or its name if it has one."""
    return str(getattr(path, "name", "audio") if hasattr(path, "read") else path)


def _unreadable(path: Source, error: Exception) -> DataError:
    reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return DataError(f"{named(path)}: not readable as audio ({'no such file' if 'No such file' in reason else reason})")


def _read(path: Source, file: soundfile.SoundFile, samples: int, downmix: str, dtype: str = "float32") -> Tensor:
    """The next `samples` (-1: all) as mono (S,), fewer at the end of the file. int16 samples have no `mean`."""
    at_once, blocks, read = _BLOCK // file.channels, [], 0
    while samples < 0 or read < samples:
        wanted = at_once if samples < 0 else min(at_once, samples - read)
        block = to_mono(torch.from_numpy(file.read(wanted, dtype=dtype, always_2d=True).T), downmix)
        if dtype == "float32" and not torch.isfinite(block).all():
            raise DataError(f"{named(path)}: found NaN or infinite samples, expected finite ones")
        blocks.append(block)
        read += len(block)
        if len(block) < wanted:
            break
    return torch.cat(blocks) if len(blocks) != 1 else blocks[0]


def check_audio(path: Source, whole: bool = False) -> None:
    """Raise DataError, naming the file, if its header is none of audio of 25 ms or more; `whole`: or decoding fails."""
    with _opened(path) as file:
        if file.frames < 0.025 * file.samplerate:
            raise DataError(
                f"{named(path)}: found {file.frames} samples at {file.samplerate} Hz, expected at least 25 ms"
            )
        while whole and len(_read(path, file, 60 * file.samplerate, "mean")):
            pass
