"""Read a part of a long file: seek to it if the file allows, otherwise decode what lies before and cut it off.

Dimensions: S samples.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

MAX_FRAMES = 1 << 48
"""Most samples per channel that are plausible; the headers of streams claim endless length."""
FARTHEST = 1800
"""In a file that cannot be seeked in, a crop comes from the first this many seconds."""


class Crop(NamedTuple):
    """Which part of a longer file to read."""

    place: float
    """From 0 (the start of the file) to just below 1 (its end)."""
    least: int
    """Samples, at the new rate, by which the file must be longer than the crop; others are read from their start."""


def can_seek(file: Any) -> bool:
    """Whether a file states its length and is seekable."""
    return bool(hasattr(file, "seek") and 0 < file.frames < MAX_FRAMES and getattr(file, "seekable", lambda: True)())


def seek(file: Any, sample_rate: int, samples: int, margin: int, crop: Crop) -> tuple[int, int]:
    """Move to the start of a crop of `samples`, less a margin for the low-pass filter.

    Starts lie on instants that are whole samples at either rate. Returns the samples skipped, at the file's rate, and
    those to drop after decoding, at the new rate. In a file that is too short, nothing is skipped.
    """
    common = math.gcd(file.samplerate, sample_rate)
    old, new = file.samplerate // common, sample_rate // common  # samples between two such instants
    rest = file.frames // old * new - samples
    if rest < crop.least:
        return 0, 0
    start = int(crop.place * (rest // new + 1))
    lead = 0 if old == new else min(start, -(-margin // old))
    file.seek((start - lead) * old)
    return (start - lead) * old, lead * new


def cut(waveform: Tensor, samples: int, crop: Crop) -> Tensor:
    """The crop (samples,) of a whole waveform (S,), or its start if it is too short."""
    rest = len(waveform) - samples
    start = int(crop.place * (rest + 1)) if rest >= crop.least else 0
    return waveform[start : start + samples]
