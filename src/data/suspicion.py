"""Notice clips that can be decoded but are probably not as intended."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LOUDEST = 10.0
"""Above this magnitude, samples are probably not scaled to [-1, 1]; decoders of lossy formats reach about 2."""


def describe_suspicious(reasons: Sequence[str], file: object = None) -> str:
    """A line that says how many clips look wrong, and why three of them do. file: where all of them are listed."""
    listed = f"; {file} lists them" if file else ""
    them = "clip looks wrong and is" if len(reasons) == 1 else "clips look wrong and are"
    return f"{len(reasons)} {them} used all the same{listed}: {'; '.join(reasons[:3])}{', ...' * (len(reasons) > 3)}"


class Tally:
    """Statistics of a clip's samples, gathered block by block while reading, before and after the downmix."""

    def __init__(self, downmix: str) -> None:
        self.downmix = downmix
        self.count, self.total, self.power, self.channel_power = 0, 0.0, 0.0, 0.0
        self.lowest, self.highest, self.channels = math.inf, -math.inf, 1

    def add(self, channels: Tensor, mono: Tensor) -> None:
        """Add the next samples: (channels, S) as they were read, (S,) after the downmix; both float or both int16."""
        if mono.numel() == 0:
            return
        scale = 2.0**-15 if mono.dtype == torch.int16 else 1.0
        lowest, highest = (float(value) * scale for value in torch.aminmax(mono))
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
        values = mono.float()
        self.count += len(mono)
        self.total += float(values.sum()) * scale
        self.power += float(values.dot(values)) * scale**2
        self.channels = len(channels)
        if self.channels > 1:
            self.channel_power += float(channels.float().square().sum()) / self.channels

    def reasons(self) -> list[str]:
        """What looks wrong about the clip, in words; empty for nearly all clips."""
        if not self.count:
            return []
        reasons, mean = [], self.total / self.count
        peak = max(-self.lowest, self.highest)
        deviation = math.sqrt(max(0.0, self.power / self.count - mean**2))
        if peak > LOUDEST:
            reasons.append(f"samples of up to {peak:.4g}, expected about 1 (integers written as floats?)")
        cancelled = self.channels > 1 and self.power < 0.02 / self.channels * self.channel_power
        if cancelled and self.downmix == "mean":
            reasons.append(f"{self.channels} channels in opposite phase, which cancel in the mean (try downmix first)")
        elif cancelled:
            reasons.append(
                f"a first channel that is almost silent beside the other {self.channels - 1} (try downmix mean)"
            )
        elif self.lowest == self.highest:
            reasons.append(f"digital silence (every sample is {self.lowest:.4g})")
        elif abs(mean) > max(0.02, deviation):
            reasons.append(f"DC offset of {mean:.4g}, more than its sound of {deviation:.4g}")
        return reasons
