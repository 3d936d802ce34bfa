"""Open audio files with libsndfile, or with ffmpeg if libsndfile refuses them or only guesses their length."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile

from ..errors import DataError
from .containers import container, falls_short, with_length
from .ffmpeg import FfmpegError, FfmpegStream, find_ffmpeg
from .quiet import without_library_warnings
from .shards import ShardMember

Source = str | os.PathLike[str] | ShardMember | bytes | BinaryIO
"""An audio file, one inside a shard, or the content of one: bytes, or a file opened in binary mode."""
MAX_SAMPLE_RATE = 384_000
"""Highest sample rate in Hz that is accepted; a header that claims more is broken or malicious."""
MAX_CHANNELS = 64
"""Most channels that are accepted."""
WITHOUT_FFMPEG = (
    "without ffmpeg only WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, AU, CAF and W64 are read: pip install"
    " imageio-ffmpeg (or 'flexiast[audio]'), or convert the file: ffmpeg -i IN OUT.flac"
)


def named(source: Source) -> str:
    """An audio file's name in messages: its path, or `audio` if it has none."""
    if isinstance(source, (str, os.PathLike, ShardMember)):
        return str(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "audio"


class _Sndfile:
    """A file that libsndfile decodes."""

    def __init__(self, file: Any, quietly: bool = False) -> None:
        """file: a path as bytes, because it may not be UTF-8, or a binary file. Raises what soundfile raises.

        quietly: keep libmpg123's messages about an MP3 from the terminal.
        """
        self._quiet = without_library_warnings if quietly else nullcontext
        with self._quiet():
            self._file = soundfile.SoundFile(file)
        self.samplerate, self.channels = self._file.samplerate, self._file.channels
        self.format, self.subtype, self.frames = self._file.format, self._file.subtype, self._file.frames

    def read(self, frames: int, dtype: str = "float32") -> np.ndarray:
        """The next samples (frames, channels); fewer at the end."""
        with self._quiet():
            return self._file.read(frames, dtype=dtype, always_2d=True)

    def seekable(self) -> bool:
        """Whether the file is seekable."""
        return self._file.seekable()

    def seek(self, frame: int) -> None:
        """Move to this sample."""
        with self._quiet():
            self._file.seek(frame)

    def close(self) -> None:
        with self._quiet():
            self._file.close()


File = _Sndfile | FfmpegStream


@contextmanager
def opened(source: Source) -> Iterator[File]:
    """Open a file to read samples from its start; its sample rate and number of channels are plausible.

    Raises DataError, naming the file, if it is missing or not audio, or if reading inside the context fails.
    """
    with ExitStack() as stack:
        try:
            content = stack.enter_context(_content(source))
            file = _decoder(source, content, stack.enter_context(_for_sndfile(source, content)))
        except OSError as error:
            raise _unreadable(source, _reason(error)) from None
        stack.callback(file.close)
        if not 0 < file.samplerate <= MAX_SAMPLE_RATE:
            raise DataError(
                f"{named(source)}: found a sample rate of {file.samplerate} Hz, expected 1 to {MAX_SAMPLE_RATE}"
            )
        if not 0 < file.channels <= MAX_CHANNELS:
            raise DataError(f"{named(source)}: found {file.channels} channels, expected 1 to {MAX_CHANNELS}")
        try:
            yield file
        except (soundfile.LibsndfileError, FfmpegError, OSError) as error:
            raise _unreadable(source, _reason(error)) from None


def _unreadable(source: Source, reason: str) -> DataError:
    return DataError(f"{named(source)}: not readable as audio ({reason})")


def _reason(error: Exception) -> str:
    reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return "no such file" if "No such file" in reason else reason.rstrip(".")


def _is_path(source: Source) -> bool:
    return isinstance(source, (str, os.PathLike))


def _content(source: Any) -> BinaryIO:
    """The bytes of a file, as a seekable binary file. Raises OSError or DataError."""
    if isinstance(source, ShardMember):
        return source.open()
    if _is_path(source):
        try:
            regular = stat.S_ISREG(os.stat(source).st_mode)
        except ValueError as error:  # a NUL in its name
            raise OSError(str(error)) from None
        if not regular:
            raise OSError("no regular file")  # a pipe or a device could block forever
        return open(source, "rb")
    content = source if isinstance(source, bytes) else source.read()
    if not isinstance(content, bytes):
        raise DataError(f"{named(source)}: found a file of {type(content).__name__}, expected one opened as 'rb'")
    return io.BytesIO(content)


def _for_sndfile(source: Source, content: BinaryIO) -> Any:
    """A context with what libsndfile opens: a path, or a file object of its own, whose place nothing else moves."""
    if _is_path(source):
        return nullcontext(os.fsencode(cast(str, source)))
    return source.open() if isinstance(source, ShardMember) else io.BytesIO(cast(io.BytesIO, content).getvalue())


def _decoder(source: Source, content: BinaryIO, raw: bytes | BinaryIO) -> File:
    """libsndfile, or ffmpeg if libsndfile refuses the file or would not read all of it. Raises DataError.

    raw: what libsndfile opens.
    """
    kind = container(content)
    file = _sndfile(content, raw, kind)
    if isinstance(file, _Sndfile):
        return file
    refusal = file
    if kind is None:
        raise _unreadable(source, refusal)
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        raise _unreadable(source, f"{refusal}; {WITHOUT_FFMPEG}")
    content.seek(0)
    try:
        return FfmpegStream(ffmpeg, os.fspath(cast(str, source)) if _is_path(source) else content, kind)
    except FfmpegError as error:
        raise _unreadable(source, f"{refusal}; ffmpeg: {error}") from None


def _sndfile(content: BinaryIO, raw: bytes | BinaryIO, kind: str | None) -> _Sndfile | str:
    """The opened file, or the reason why libsndfile should not decode it."""
    if kind == "voc":  # libsndfile mistakes the header of newer ones for samples
        return "VOC needs ffmpeg"
    try:
        file = _Sndfile(raw, kind in ("mp3", None))
        kind = "mp3" if file.format == "MP3" else kind  # it may begin in the middle of a frame
        if file.frames == 0 and (head := with_length(content, kind)):
            file.close()
            file = _Sndfile(_Replaced(content, head))
    except (soundfile.LibsndfileError, OSError, ValueError, TypeError) as error:  # TypeError: *.raw has no header
        return _reason(error)
    if not falls_short(content, kind, file.frames / max(1, file.samplerate)):
        return file
    file.close()
    return "libsndfile would read only its beginning"


class _Replaced:
    """A file whose first bytes are replaced by `head`; the rest is unchanged."""

    def __init__(self, content: BinaryIO, head: bytes) -> None:
        self.head, self.content = head, content
        self.seek, self.tell = content.seek, content.tell
        self.seek(0)

    def read(self, count: int) -> bytes:
        place = self.tell()
        content = self.content.read(count)
        return self.head[place : place + len(content)] + content[max(0, len(self.head) - place) :]
