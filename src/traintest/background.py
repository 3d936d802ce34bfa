"""Background sounds that are mixed into training clips.

Dimensions: B clips, S samples, N samples of background.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from ..data.audio import decode
from ..data.sources import every_source
from ..errors import ConfigError
from ..features import FeatureConfig
from .augment import uniform

logger = logging.getLogger(__name__)
LONGEST = 600
"""Seconds of background that are kept in memory; more is left out, with a warning."""
LOUDEST_SNR, SOFTEST_SNR = 5.0, 25.0
"""Decibels by which the clip is louder than the background."""


def read_background(folder: Path, features: FeatureConfig) -> Tensor:
    """The sounds of a folder one after the other, (N,), at the model's rate, at most LONGEST seconds of them.

    Raises DataError for an unusable file, ConfigError if there is less than the model hears at once.
    """
    parts, most = list[Tensor](), LONGEST * features.sample_rate
    for source in every_source([folder]):
        room = most - sum(map(len, parts))
        if room <= 0:
            break
        parts.append(decode(source, features.sample_rate, features.downmix, room, resampler=features.resampler))
    joined = torch.cat(parts)
    if len(joined) >= most:
        logger.warning("augment.background: only the first %d s of sound in %s are used", LONGEST, folder)
    if len(joined) < features.samples:
        raise ConfigError(
            f"augment.background: {folder} holds {len(joined) / features.sample_rate:.1f} s of sound, expected at least"
            f" the {features.seconds:g} s of a clip"
        )
    return joined


def add_background(waveform: Tensor, background: Tensor, keys: Tensor) -> Tensor:
    """Mix a random stretch of the background (N,) into half of the clips (B, S), at a random level below each clip's.

    N is at least S. A silent clip stays silent.
    """
    samples = waveform.shape[1]
    mixed, start, level = uniform(keys, 3, stream=9).unbind(1)  # (B,) each
    last = len(background) - samples
    first = (start * (last + 1)).long().clamp(max=last)  # float32, which MPS has too, may round up to beyond the last
    noise = background[first[:, None] + torch.arange(samples, device=waveform.device)]  # (B, S)
    snr = LOUDEST_SNR + level * (SOFTEST_SNR - LOUDEST_SNR)
    power = waveform.square().mean(dim=1) / noise.square().mean(dim=1).clamp(min=1e-10)
    gain = (mixed < 0.5) * (power * 10 ** (-snr / 10)).sqrt()
    return waveform + gain[:, None] * noise
