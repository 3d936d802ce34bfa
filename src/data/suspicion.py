"""Clips that can be decoded and are likely not what was meant."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOUDEST = 10.0
"""Magnitude above which samples were hardly meant to lie in [-1, 1]; decoders of lossy formats reach 2 or so."""


class Tally:
    """What is looked at in the samples of a clip as they are read, block by block, before and after the downmix."""

    def __init__(self, downmix: str) -> None:
        self.downmix = downmix
        self.count, self.total, self.power, self.channel_power = 0, 0.0, 0.0, 0.0
        self.least, self.most, self.channels = math.inf, -math.inf, 1

    def add(self, channels: Tensor, mono: Tensor) -> None:
        """Take in the next samples: (channels, S) as they were read, (S,) mixed, both float or both int16."""
        if mono.numel() == 0:
            return
        scale = 2.0**-15 if mono.dtype == torch.int16 else 1.0
        least, most = (float(value) * scale for value in torch.aminmax(mono))
        self.least, self.most = min(self.least, least), max(self.most, most)
        values = mono.float()
        self.count += len(mono)
        self.total += float(values.sum()) * scale
        self.power += float(values.dot(values)) * scale**2
        self.channels = len(channels)
        if self.channels > 1:
            self.channel_power += float(channels.float().square().sum()) / self.channels

    def reasons(self) -> list[str]:
        """What is suspicious about the clip, in words; empty for nearly all clips."""
        if not self.count:
            return []
        found, mean = [], self.total / self.count
        peak = max(-self.least, self.most)
        deviation = math.sqrt(max(0.0, self.power / self.count - mean**2))
        if peak > LOUDEST:
            found.append(f"samples of up to {peak:.4g}, expected about 1 (integers written as floats?)")
        cancelled = self.channels > 1 and self.power < 0.02 / self.channels * self.channel_power
        if cancelled and self.downmix == "mean":
            found.append(f"{self.channels} channels in opposite phase, which cancel in the mean (try downmix first)")
        elif cancelled:
            found.append(
                f"a first channel that is almost silent beside the other {self.channels - 1} (try downmix mean)"
            )
        elif self.least == self.most:
            found.append(f"digital silence (every sample is {self.least:.4g})")
        elif abs(mean) > max(0.02, deviation):
            found.append(f"DC offset of {mean:.4g}, more than its sound of {deviation:.4g}")
        return found
