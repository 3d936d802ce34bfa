"""Decoding audio: any format, sample rate and channel count, to mono at one rate.

libsndfile decodes first. ffmpeg decodes what libsndfile refuses, and what libsndfile would stop reading before its end
because it goes by a guessed length.

Dimensions: S samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import DataError
from .crop import FARTHEST, Crop, can_seek, cut, seek
from .opening import MAX_SAMPLE_RATE, File, Source, named, opened
from .resampling import resample
from .suspicion import Tally

__all__ = [
    "MAX_MAGNITUDE",
    "MAX_SAMPLE_RATE",
    "Source",
    "as_float",
    "check_audio",
    "decode",
    "decode_pieces",
    "named",
    "resample",
    "to_mono",
]

MAX_MAGNITUDE = 1e6
"""Largest sample that is believed; full scale is 1."""
_BLOCK = 1 << 20
"""Samples, over all channels, that are read at once: memory follows what a file holds, not what its header says."""


def to_mono(waveform: Tensor, downmix: str = "mean") -> Tensor:
    """Channels (channels, S) to one (S,): their mean, or the `first` alone."""
    return waveform.mean(dim=0) if downmix == "mean" else waveform[0]


def as_float(waveform: Tensor) -> Tensor:
    """int16 samples as float32 in [-1, 1), the values that libsndfile makes of them; float ones as they are."""
    return waveform.float().mul_(2.0**-15) if waveform.dtype == torch.int16 else waveform


def decode(
    path: Source,
    sample_rate: int = 16_000,
    downmix: str = "mean",
    max_samples: int | None = None,
    integer: bool = False,
    resampler: str = "sinc",
    suspicions: list[str] | None = None,
    crop: Crop | None = None,
) -> Tensor:
    """Read a file as a mono float32 waveform (S,) in [-1, 1] at `sample_rate` Hz, from its start.

    integer: return int16 samples as they are where the file holds 16-bit PCM of one channel at that rate; `as_float`
    makes the same waveform of them. resampler: see `resample`. suspicions: takes what is suspicious about the samples
    that were read, in words (see `Tally`). Reads no more than gives `max_samples` at the new rate. crop: with
    `max_samples`, a longer file is read from there on, what lies before is skipped. Raises DataError, naming the file,
    if it is missing, unreadable, empty, of an unbelievable sample rate or number of channels, or holds samples that are
    not finite or beyond MAX_MAGNITUDE.
    """
    tally = None if suspicions is None else Tally(downmix)
    skipped = lead = 0
    with opened(path) as file:
        source = file.samplerate
        margin = source // 20  # 50 ms more than asked for, so that the low-pass has no edge inside
        decoded_whole = bool(crop and max_samples and not can_seek(file))
        if crop and max_samples and not decoded_whole:
            skipped, lead = seek(file, sample_rate, max_samples, margin, crop)
        wanted = -1 if max_samples is None else -(-(max_samples + lead) * source // sample_rate) + margin
        wanted = FARTHEST * source if decoded_whole else wanted
        if integer and _is_integer(file, sample_rate):
            waveform = _read(path, file, wanted, "first", "int16", tally)
        else:
            waveform = _read(path, file, wanted, downmix, tally=tally)
    if len(waveform) == 0 and not skipped:
        raise DataError(f"{named(path)}: found 0 samples, expected at least one 25 ms window")
    if skipped and len(waveform) * sample_rate < (max_samples or 0) * source:  # it ends before its header says
        return decode(path, sample_rate, downmix, max_samples, integer, resampler, suspicions)
    if suspicions is not None and tally is not None:
        suspicions.extend(tally.reasons())
    waveform = resample(waveform, source, sample_rate, resampler)[lead:]
    if max_samples is None:
        return waveform
    return cut(waveform, max_samples, crop) if crop and decoded_whole else waveform[:max_samples]


def _is_integer(file: File, sample_rate: int) -> bool:
    """Whether the file's samples are 16-bit integers that need no conversion."""
    return bool(file.subtype == "PCM_16" and file.channels == 1 and file.samplerate == sample_rate)


def decode_pieces(
    path: Source,
    sample_rate: int = 16_000,
    downmix: str = "mean",
    seconds: int = 60,
    resampler: str = "sinc",
    integer: bool = False,
) -> Iterator[Tensor]:
    """What `decode` returns for the whole file, in pieces (S,) of so many seconds: memory does not grow with length.

    Of files with more than 48,000 samples a second the pieces are shorter, of whole seconds all the same. Raises
    DataError as `decode` does, though a fault late in the file only when the pieces before it are used up.
    """
    with opened(path) as file:
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
            joined = resample(torch.cat([before, piece, after[:source]]), source, sample_rate, resampler)
            start = len(before) // source * sample_rate
            yield joined[start : start + seconds * sample_rate] if len(after) else joined[start:]
            before, piece = piece[-source:], after


def check_audio(path: Source, whole: bool = False) -> None:
    """Raise DataError, naming the file, if its first 25 ms cannot be decoded; `whole`: or all of it."""
    with opened(path) as file:
        least = -(-file.samplerate // 40)
        samples = len(_read(path, file, least, "mean"))
        if samples < least:
            raise DataError(f"{named(path)}: found {samples} samples at {file.samplerate} Hz, expected at least 25 ms")
        while whole and len(_read(path, file, 60 * file.samplerate, "mean")):
            pass


def _read(
    path: Source, file: File, samples: int, downmix: str, dtype: str = "float32", tally: Tally | None = None
) -> Tensor:
    """The next `samples` (-1: all) as mono (S,), fewer at the end of the file. int16 samples have no `mean`."""
    at_once, blocks, read = _BLOCK // file.channels, [], 0
    while samples < 0 or read < samples:
        wanted = at_once if samples < 0 else min(at_once, samples - read)
        channels = torch.from_numpy(file.read(wanted, dtype).T)  # (channels, S)
        block = to_mono(channels, downmix)
        if dtype == "float32":
            _check_magnitude(path, channels if downmix == "mean" else block)
        if tally is not None:
            tally.add(channels, block)
        blocks.append(block)
        read += len(block)
        if len(block) < wanted:
            break
    return torch.cat(blocks) if len(blocks) != 1 else blocks[0]


def _check_magnitude(path: Source, samples: Tensor) -> None:
    if samples.numel() == 0:
        return
    least, most = (float(value) for value in torch.aminmax(samples))  # NaN if any sample is
    if not (least >= -math.inf and max(-least, most) < math.inf):
        raise DataError(f"{named(path)}: found NaN or infinite samples, expected finite ones")
    if max(-least, most) > MAX_MAGNITUDE:
        raise DataError(
            f"{named(path)}: found a sample of magnitude {max(-least, most):.3g}, expected about 1 and at most"
            f" {MAX_MAGNITUDE:g}; convert it to a scale of [-1, 1]"
        )
