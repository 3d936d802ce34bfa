"""The second decoder, after libsndfile: one ffmpeg process per file.

A process rather than a library: it needs no build that matches torch's, a malicious file cannot harm this process, and
ffmpeg's command line has been stable for many years. It reads one local file in one given format, and nothing from the
network.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from functools import lru_cache
from threading import Timer
from typing import BinaryIO

import numpy as np

SILENCE = 60.0
"""Seconds that ffmpeg may take for the next samples before it is stopped."""
MOST_MEMORY = 256 << 20
"""Bytes that ffmpeg may allocate at once."""


class FfmpegError(Exception):
    """ffmpeg's message about a file that it cannot decode."""


@lru_cache(maxsize=1)
def find_ffmpeg() -> str | None:
    """The ffmpeg of the system, else the one of the package imageio-ffmpeg (extra `audio`), else None."""
    if on_path := shutil.which("ffmpeg"):
        return on_path
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError, OSError):
        return None


class FfmpegStream:
    """The samples of a file's first audio stream, in order. Close it, or use it in a `with` statement.

    Has those attributes of soundfile.SoundFile that decoding needs: samplerate, channels, subtype, read.
    """

    subtype = "FLOAT"

    def __init__(self, ffmpeg: str, file: str | BinaryIO, container: str) -> None:
        """file: its path, or a file that is copied. container: ffmpeg's name for its format. Raises FfmpegError."""
        self._copy, self._stopped = None, False
        if not isinstance(file, str):  # written to a file, because mp4 is not read in order
            self._copy = tempfile.NamedTemporaryFile(prefix="flexiast-")  # noqa: SIM115
            shutil.copyfileobj(file, self._copy)
            self._copy.flush()
            file = self._copy.name
        command = [ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "error", "-max_alloc", str(MOST_MEMORY)]
        command += ["-protocol_whitelist", "file,pipe", "-threads", "1", "-f", container, "-i", f"file:{file}"]
        command += ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "-protocol_whitelist", "pipe", "pipe:1"]
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115
        # In a session of its own: after Ctrl-C a training run finishes its step, which may need this file.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            start_new_session=True,
        )
        try:
            self.samplerate, self.channels = self._header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FfmpegStream:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def read(self, frames: int, dtype: str = "float32") -> np.ndarray:
        """The next samples (frames, channels) as float32; fewer at the end. Raises FfmpegError if decoding fails."""
        content = self._read(4 * self.channels * frames)
        whole = len(content) // (4 * self.channels) * self.channels
        return np.frombuffer(content, ">f4", whole).astype(np.float32).reshape(-1, self.channels)

    def close(self) -> None:
        """End the process, if it is still running, and remove the temporary files."""
        self._process.kill()
        self._process.communicate()
        self._messages.close()
        if self._copy:
            self._copy.close()

    def _header(self) -> tuple[int, int]:
        """Sample rate and channels, from the header of a Sun AU file."""
        head = self._read(24)
        if len(head) < 24:
            raise FfmpegError("no samples")
        magic, start, _, _, rate, channels = struct.unpack(">4s5I", head)
        if magic != b".snd" or channels == 0:
            raise FfmpegError(f"found {magic!r} and {channels} channels in its answer")
        self._read(start - 24)
        return rate, channels

    def _read(self, count: int) -> bytes:
        """The next bytes, fewer at the end. Raises FfmpegError if ffmpeg hangs or ends with an error."""
        assert self._process.stdout is not None
        timer = Timer(SILENCE, self._stop)
        timer.start()
        try:
            content = self._process.stdout.read(count)
            ended = len(content) < count and self._process.wait()
        finally:
            timer.cancel()
        if self._stopped:
            raise FfmpegError(f"stopped, no samples for {SILENCE:g} s")
        if ended:
            raise FfmpegError(self._complaint())
        return content

    def _stop(self) -> None:
        self._stopped = True
        self._process.kill()

    def _complaint(self) -> str:
        """The first line of ffmpeg's messages, without the part and address in brackets before it."""
        self._messages.seek(0)
        lines = self._messages.read(4096).decode(errors="replace").splitlines()
        return re.sub(r"^\[[^\]]*\] *", "", lines[0]).strip() if lines else f"exit code {self._process.returncode}"
