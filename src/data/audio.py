"""Decode audio of any format, sample rate and channel count to mono at one rate.

libsndfile comes first. ffmpeg decodes files that libsndfile refuses, and those that libsndfile would not read to their
end because it only guesses their length.

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
"""Largest sample magnitude that is accepted; full scale is 1."""
_BLOCK = 1 << 20
"""Samples, over all channels, to read at once: memory use depends on what a file holds, not on what its header says."""


def to_mono(waveform: Tensor, downmix: str = "mean") -> Tensor:
    """Mix channels (channels, S) to one (S,): their mean, or only the `first`."""
    return waveform.mean(dim=0) if downmix == "mean" else waveform[0]


def as_float(waveform: Tensor) -> Tensor:
    """int16 samples as float32 in [-1, 1), the same values as from libsndfile; float samples unchanged."""
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
    """Read a file as a mono float32 waveform (S,) in [-1, 1] at `sample_rate` Hz.

    max_samples: most samples to return, at the new rate; no more of the file is read than they need. integer: return
    int16 samples unchanged if the file holds 16-bit PCM, mono, at that rate; `as_float` turns them into the same
    waveform. resampler: see `resample`. suspicions: a list that receives, in words, what looks wrong about the samples
    (see `Tally`). crop: which part of a file longer than `max_samples` to read; by default its start. Raises DataError,
    naming the file, if it is missing, unreadable or empty, if its sample rate or number of channels is implausible, or
    if it holds samples that are not finite or beyond MAX_MAGNITUDE.
    """
    tally = None if suspicions is None else Tally(downmix)
    skipped = lead = 0
    with opened(path) as file:
        source = file.samplerate
        margin = source // 20  # read 50 ms more, so that the low-pass filter sees no edge
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
    if skipped and len(waveform) * sample_rate < (max_samples or 0) * source:  # it is shorter than its header says
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
    suspicions: list[str] | None = None,
) -> Iterator[Tensor]:
    """What `decode` returns for the whole file, in pieces (S,) of `seconds` each: memory does not grow with its length.

    Above 48,000 samples per second the pieces are shorter, but still whole seconds. `suspicions` is filled after the
    last piece. Raises DataError as `decode` does;
    a fault late in the file is raised only after the pieces before it.
    """
    tally = None if suspicions is None else Tally(downmix)
    with opened(path) as file:
        source = file.samplerate
        seconds = min(seconds, max(1, seconds * 48_000 // source))
        how = ("first", "int16") if integer and _is_integer(file, sample_rate) else (downmix, "float32")
        piece = _read(path, file, seconds * source, *how, tally)
        before = piece[:0]
        if len(piece) == 0:
            raise DataError(f"{named(path)}: found 0 samples, expected at least one 25 ms window")
        while len(piece):
            after = _read(path, file, seconds * source, *how, tally)
            # Add a second of the neighbouring pieces on either side, so that the low-pass filter sees no edge at the
            # joints. Joints fall on whole seconds, which are whole samples at either rate.
            joined = resample(torch.cat([before, piece, after[:source]]), source, sample_rate, resampler)
            start = len(before) // source * sample_rate
            yield joined[start : start + seconds * sample_rate] if len(after) else joined[start:]
            before, piece = piece[-source:], after
    if suspicions is not None and tally is not None:
        suspicions.extend(tally.reasons())


def check_audio(path: Source, whole: bool = False) -> None:
    """Raise DataError, naming the file, if its first 25 ms (with `whole`: any part of it) cannot be decoded."""
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
    """The next `samples` (-1: all) as mono (S,), fewer at the end of the file. int16 needs downmix `first`."""
    block_size, blocks, read = _BLOCK // file.channels, [], 0
    while samples < 0 or read < samples:
        wanted = block_size if samples < 0 else min(block_size, samples - read)
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
    lowest, highest = (float(value) for value in torch.aminmax(samples))  # NaN if any sample is
    if not (lowest >= -math.inf and max(-lowest, highest) < math.inf):
        raise DataError(f"{named(path)}: found NaN or infinite samples, expected finite ones")
    if max(-lowest, highest) > MAX_MAGNITUDE:
        raise DataError(
            f"{named(path)}: found a sample of magnitude {max(-lowest, highest):.3g}, expected about 1 and at most"
            f" {MAX_MAGNITUDE:g}; convert it to a scale of [-1, 1]"
        )
