"""Where in a long file to listen: what lies before is skipped where the file can be moved in, else decoded and cut off.

Dimensions: S samples.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

MAX_FRAMES = 1 << 48
"""Most samples per channel that are believed; headers of streams say that they never end."""
FARTHEST = 1800
"""Seconds in which a crop is looked for in a file that has to be decoded to be moved in."""


class Crop(NamedTuple):
    """Which part of a longer file to read."""

    place: float
    """From 0, the part at the start, to below 1, the one at the end."""
    least: int
    """Samples that the file must be longer by, at the new rate; others are read from their start."""


def can_seek(file: Any) -> bool:
    """Whether a file says how long it is and can be moved in."""
    return bool(hasattr(file, "seek") and 0 < file.frames < MAX_FRAMES and getattr(file, "seekable", lambda: True)())


def seek(file: Any, sample_rate: int, samples: int, margin: int, crop: Crop) -> tuple[int, int]:
    """Move to where a crop of so many samples starts, less the low-pass's margin.

    Starts lie on instants that are whole samples at either rate. Returns the samples skipped, at the file's rate, and
    those to leave out, at the new one. A file that is too short stays where it is.
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
    """The part (samples,) of a whole waveform (S,) at that place, or its start if it is too short."""
    rest = len(waveform) - samples
    start = int(crop.place * (rest + 1)) if rest >= crop.least else 0
    return waveform[start : start + samples]
