"""Twelve kinds of audio file that cannot be used; each function spoils a good wav file in place."""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from tests.sounds import SAMPLE_RATE


def _samples(path: Path, values: np.ndarray) -> None:
    soundfile.write(path, values, SAMPLE_RATE, subtype="FLOAT", format="WAV")


def _absurd_rate(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", 3_000_000_000)  # the sample rate of the fmt chunk
    path.write_bytes(content)


def _truncated_flac(path: Path) -> None:
    flac = io.BytesIO()
    soundfile.write(flac, np.zeros(SAMPLE_RATE), SAMPLE_RATE, format="FLAC")
    path.write_bytes(flac.getvalue()[:40])


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.wav")


BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: os.truncate(path, 0),
    "header only": lambda path: os.truncate(path, 44),
    "text": lambda path: path.write_text("no sound"),
    "web page": lambda path: path.write_text("<!DOCTYPE html><html><body>404</body></html>" * 100),
    "random bytes": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "NaN": lambda path: _samples(path, np.full(SAMPLE_RATE, np.nan)),
    "infinite": lambda path: _samples(path, np.append(np.inf, np.zeros(SAMPLE_RATE))),
    "too short": lambda path: _samples(path, np.zeros(300)),
    "absurd sample rate": _absurd_rate,
    "truncated flac": _truncated_flac,
    "dangling link": _dangling_link,
}
