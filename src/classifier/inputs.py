"""Turn any kind of audio input into consecutive parts of a waveform; reject unusable input with a hint.

Dimensions: C channels, S samples.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.audio import MAX_SAMPLE_RATE, decode_pieces, named, resample, to_mono
from ..data.shards import ShardMember
from ..data.suspicion import Tally
from ..errors import ConfigError, DataError
from ..features import FeatureConfig

logger = logging.getLogger(__name__)

Audio = str | os.PathLike[str] | bytes | Tensor | Any
"""A sound: a file name, the bytes of a file, an open file; samples, (S,), (C, S) or (S, C), as a tensor, an array or a
list, floating-point in [-1, 1] or full-range integers; (sample rate, samples) or the reverse;
{"array": ..., "sampling_rate": ...} or {"bytes": ...}, as in Hugging Face datasets."""
MOST_CHANNELS = 8
"""Largest number of rows of a 2-D array that are read as channels."""
SURE_CHANNELS = 2
"""Up to so many rows are certainly channels; reading more of them as channels logs a warning."""
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_warned: set[str] = set()


class _Content(io.BytesIO):
    """The bytes of an audio file, and its name for messages."""

    def __init__(self, content: bytes, name: str = "audio") -> None:
        super().__init__(content)
        self.name = name


def pieces_of(
    audio: Audio, features: FeatureConfig, sample_rate: int | None = None, suspicions: list[str] | None = None
) -> Iterable[Tensor]:
    """Consecutive parts (S,) of one sound, mono, at the model's rate; int16 if the file holds exactly that.

    sample_rate: for samples that come without one, in Hz (default: the model's). suspicions: a list that receives, with
    the last part, what looks wrong about the sound. Raises DataError for unusable input, ConfigError for an impossible
    sample rate.
    """
    if isinstance(audio, (str, os.PathLike, bytes, bytearray, memoryview, ShardMember)) or _is_file(audio):
        return decode_pieces(
            _file(audio),
            features.sample_rate,
            features.downmix,
            resampler=features.resampler,
            integer=True,
            suspicions=suspicions,
        )
    if isinstance(audio, Mapping):
        return pieces_of(*_of_mapping(audio, features, sample_rate), suspicions)
    if is_pair(audio):
        rate, samples = audio if _is_number(audio[0]) else reversed(audio)
        return pieces_of(samples, features, _rate_of(rate), suspicions)
    if hasattr(audio, "get_all_samples"):  # torchcodec decoders, as returned by datasets
        audio = audio.get_all_samples()
    if hasattr(audio, "sample_rate") and hasattr(audio, "data") and not isinstance(audio, (Tensor, np.ndarray)):
        return pieces_of(audio.data, features, _rate_of(audio.sample_rate), suspicions)
    rate = features.sample_rate if sample_rate is None else as_rate(sample_rate)
    samples = _samples(audio)
    channels = samples[None] if samples.ndim == 1 else _channels_first(samples)
    mono = to_mono(channels, features.downmix)
    if suspicions is not None:
        tally = Tally(features.downmix)
        tally.add(channels, mono)
        suspicions.extend(tally.reasons())
    return [resample(mono, rate, features.sample_rate, features.resampler)]


def is_several(audio: Any) -> bool:
    """Whether this is a collection of sounds, not one."""
    if isinstance(audio, (list, tuple)):
        return not is_pair(audio) and not (len(audio) and all(map(_is_number, audio[:100])))
    return hasattr(audio, "__next__") and not _is_file(audio)  # a generator, such as Path.glob


def is_pair(audio: Any) -> bool:
    """Whether this is a pair of samples and rate, as from Gradio, soundfile and torchaudio."""
    return isinstance(audio, tuple) and len(audio) == 2 and sum(map(_is_number, audio)) == 1


def as_rate(rate: Any) -> int:
    """A sample rate as an int. Raises ConfigError if it is not valid."""
    whole = isinstance(rate, (int, np.integer)) or (isinstance(rate, (float, np.floating)) and float(rate).is_integer())
    if isinstance(rate, bool) or not whole or not 0 < rate <= MAX_SAMPLE_RATE:
        raise ConfigError(f"sample_rate: found {rate!r}, expected 1 to {MAX_SAMPLE_RATE} Hz")
    return int(rate)


def _rate_of(rate: Any) -> int:
    """The rate that came with the samples: part of the input, so a bad one raises DataError."""
    try:
        return as_rate(rate)
    except ConfigError as error:
        raise DataError(f"audio: {error}") from None


def name_of(audio: Any) -> str:
    """Name of a sound for messages."""
    return named(audio) if isinstance(audio, (str, os.PathLike, ShardMember)) or _is_file(audio) else "audio"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _is_file(audio: Any) -> bool:
    return callable(getattr(audio, "read", None))


def _file(audio: Any) -> Any:
    """Something that can be opened: a path, or bytes in memory."""
    if isinstance(audio, _Content):
        return audio
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return _Content(bytes(audio))
    if _is_file(audio):
        name = named(audio)
        content = audio.read()
        if not isinstance(content, bytes):
            raise DataError(f"{name}: found a file open as text, expected one open as bytes: open(name, 'rb')")
        if not content:
            raise DataError(f"{name}: found no bytes left to read, expected an audio file at its start: seek(0)")
        return _Content(content, name)
    if isinstance(audio, (str, os.PathLike)):
        name = os.fspath(audio)
        if isinstance(name, str) and _URL.match(name):
            raise DataError(f"{name}: found a URL, expected a file: download it first")
        if os.path.isdir(name):
            raise DataError(f"{name}: found a folder, expected an audio file: give a list of its files")
    return audio


def _of_mapping(
    audio: Mapping[str, Any], features: FeatureConfig, sample_rate: int | None
) -> tuple[Any, FeatureConfig, int | None]:
    """What `pieces_of` takes, for the dictionaries that datasets and transformers use."""
    samples = next((audio[key] for key in ("array", "raw", "waveform") if audio.get(key) is not None), None)
    if samples is not None:
        rate = next((audio[key] for key in ("sampling_rate", "sample_rate") if key in audio), sample_rate)
        if rate is None:
            raise DataError(f"audio: found a dictionary with {', '.join(audio)}, expected its sampling_rate too")
        return samples, features, _rate_of(rate)
    if audio.get("bytes") is not None:
        return _Content(bytes(audio["bytes"]), str(audio.get("path") or "audio")), features, None
    if audio.get("path") is not None:
        return audio["path"], features, None
    keys = ", ".join(map(str, audio)) or "nothing"
    raise DataError(f"audio: found a dictionary with {keys}, expected array and sampling_rate, or bytes, or path")


def _samples(audio: Any) -> Tensor:
    """Samples (S,) or two-dimensional ones as float32 in [-1, 1]; integers are divided by their range."""
    try:
        if not isinstance(audio, Tensor):  # torch does not support negative strides, as in a reversed clip
            audio = np.ascontiguousarray(audio) if np.ndim(audio) else audio
        samples = torch.as_tensor(audio).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"audio: found {type(audio).__name__}, expected samples or a file name") from None
    kind, shape = f"{samples.dtype}".removeprefix("torch."), tuple(samples.shape)
    if samples.ndim == 3:
        raise DataError(f"audio: found samples of shape {shape}, expected one clip; for a batch give a list of clips")
    if not samples.numel():
        raise DataError(f"audio: found no samples (shape {shape}), expected at least one 25 ms window")
    if samples.ndim not in (1, 2):
        raise DataError(f"audio: found {kind} samples of shape {shape}, expected (samples,) or (channels, samples)")
    if samples.dtype in (torch.int16, torch.int32):
        return samples.float() / (1 << (15 if samples.dtype == torch.int16 else 31))
    if samples.dtype == torch.uint8:  # 8-bit PCM is centred at 128
        return (samples.float() - 128) / 128
    if not samples.is_floating_point():
        raise DataError(
            f"audio: found {kind} samples, expected floating-point ones in [-1, 1], int16 or int32:"
            " 16-bit values in wider integers become right by .astype('int16')"
        )
    samples = samples.float()
    if not torch.isfinite(samples).all():
        raise DataError(f"audio: found NaN or infinite samples of shape {shape}, expected finite ones in [-1, 1]")
    return samples


def _channels_first(samples: Tensor) -> Tensor:
    """Two-dimensional samples as (C, S): the short axis is taken as channels, if it is short enough."""
    rows, columns = samples.shape
    if rows > columns:
        samples = samples.T
        rows, columns = columns, rows
    if rows > MOST_CHANNELS or rows == columns:
        raise DataError(
            f"audio: found samples of shape {tuple(samples.shape)}, expected one clip of at most {MOST_CHANNELS}"
            " channels; for a batch of clips give a list: list(batch)"
        )
    if rows > SURE_CHANNELS:
        _warn_once(
            f"audio: samples of shape {tuple(samples.shape)} are taken as {rows} channels of one clip and mixed;"
            " for a batch of clips give a list: list(batch)"
        )
    return samples


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        logger.warning(message)
