"""Augmentation as batched tensor operations, every random number a pure function of the clip's own key.

A key is an int64 per clip made from (seed, epoch, clip); `uniform` turns keys into random numbers by hashing.
So a clip is augmented alike on any device, in any batch, on any rank, and after any resume: no generator state.

Dimensions: B clips, S samples, T frames, F mel bins, C classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import require
from ..features import FeatureConfig
from ..runtime.arguments import AUTO, AutoFloat, AutoInt

# Odd 64-bit constants of the splitmix64 generator (Steele, Lea, Flood, OOPSLA 2014), as signed integers.
_GOLDEN, _MIX1, _MIX2 = (c - (1 << 64) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Training-time augmentation; zero turns each one off, `auto` fits each to the clips."""

    freq_mask: AutoInt = AUTO
    """SpecAugment: widest band of mel bins to blank (AST: `freqm`)."""
    time_mask: AutoInt = AUTO
    """SpecAugment: widest run of frames to blank (AST: `timem`)."""
    roll: AutoInt = AUTO
    """Circular shift along time by up to this many frames either way."""
    noise: AutoFloat = AUTO
    """Uniform noise on the normalised log-mel, of an amplitude drawn up to this (AST: 0.1)."""
    mixup: AutoFloat = AUTO
    """Share of clips that are mixed with their neighbour in the batch."""
    gain: float = 0.0
    """Largest gain or attenuation of a clip, in decibels."""
    stretch: float = 0.0
    """Largest change of tempo, as a share: at 0.1 a clip is up to 10 % slower or faster, its pitch as it was."""
    background: Path | None = None
    """Folder of background sounds; a stretch of them is mixed into half of the clips, 5 to 25 dB below the clip."""
    crop: bool = True
    """Of a clip longer than the model's window, train on a random crop, drawn anew in every epoch."""

    def __post_init__(self) -> None:
        for name in ("freq_mask", "time_mask", "roll", "noise", "gain"):
            value = getattr(self, name)
            require(value is AUTO or 0 <= value < math.inf, f"augment.{name}", value, "0 or more")
        require(0.0 <= self.stretch < 1.0, "augment.stretch", self.stretch, "a share from 0 to below 1")
        require(self.mixup is AUTO or 0.0 <= self.mixup <= 1.0, "augment.mixup", self.mixup, "a share from 0 to 1")


def _mix(bits: Tensor) -> Tensor:
    """The output function of splitmix64 on int64 (shifts made logical by masking the sign's copies)."""
    bits = (bits ^ ((bits >> 30) & ((1 << 34) - 1))) * _MIX1
    bits = (bits ^ ((bits >> 27) & ((1 << 37) - 1))) * _MIX2
    return bits ^ ((bits >> 31) & ((1 << 33) - 1))


def clip_keys(seed: int, epochs: Tensor, clips: Tensor) -> Tensor:
    """One int64 key (B,) for each clip index (B,) in each epoch (B,)."""
    start = _mix(torch.full_like(clips, seed) * _GOLDEN + 1)
    return _mix(_mix(start + epochs * _GOLDEN) + clips * _GOLDEN)


def uniform(keys: Tensor, *shape: int, stream: int) -> Tensor:
    """Uniform numbers in [0, 1), (B, *shape) float32; `stream` sets apart what one clip draws for several uses."""
    counter = torch.arange(1, 1 + int(torch.Size(shape).numel()), device=keys.device) * _GOLDEN
    bits = _mix(_mix(keys + torch.full_like(keys, stream) * _MIX2)[:, None] + counter)  # (B, n)
    return ((bits >> 40) & ((1 << 24) - 1)).to(torch.float32).mul_(2.0**-24).view(-1, *shape)


def mask_band(log_mel: Tensor, widest: int, axis: int, keys: Tensor) -> Tensor:
    """Set one band along an axis (1 frames, 2 bins) of each clip (B, T, F) to 0, the padding value (SpecAugment).

    Its width is uniform in [0, widest), its start uniform where the band fits, as torchaudio's masking does.
    """
    extent = log_mel.shape[axis]
    width, start = uniform(keys, 2, stream=axis).unbind(1)  # (B,) each
    width = width * min(widest, extent)
    start = start * (extent - width)
    first, last = start.floor(), start.floor() + width.floor()
    position = torch.arange(extent, device=log_mel.device)
    masked = (position >= first[:, None]) & (position < last[:, None])  # (B, extent)
    return log_mel.masked_fill(masked.unsqueeze(3 - axis), 0.0)


def stretch_frames(log_mel: Tensor, most: float, keys: Tensor) -> Tensor:
    """Each padded log-mel (B, T, F) slower or faster, at a rate uniform in [1 - most, 1 + most).

    Frames between two others are interpolated; what then lies beyond the end is cut, or padding (0) follows.
    """
    frames = log_mel.shape[1]
    rate = 1 + most * (2 * uniform(keys, 1, stream=9) - 1)
    place = torch.arange(frames, device=log_mel.device) * rate  # (B, T)
    first = place.floor().long()

    def at(number: Tensor) -> Tensor:
        return frames_at(log_mel, number.clamp(max=frames - 1))

    between = at(first).lerp(at(first + 1), (place - first)[:, :, None])
    return between.masked_fill((place > frames - 1)[:, :, None], 0.0)


def roll_frames(spectrogram: Tensor, furthest: int, keys: Tensor) -> Tensor:
    """Shift each clip (B, T, F) circularly along time by a whole number of frames in [-furthest, furthest]."""
    frames = spectrogram.shape[1]
    shift = (uniform(keys, stream=3) * (2 * furthest + 1)).long() - furthest  # (B,)
    source = (torch.arange(frames, device=spectrogram.device) - shift[:, None]) % frames  # (B, T)
    return frames_at(spectrogram, source)


def frames_at(spectrogram: Tensor, numbers: Tensor) -> Tensor:
    """Those frames of each clip (B, T, F), numbers (B, t) within T: (B, t, F). Copies whole frames, unlike `gather`."""
    clips = torch.arange(len(spectrogram), device=spectrogram.device)
    return spectrogram[clips[:, None], numbers]


def add_noise(spectrogram: Tensor, loudest: float, keys: Tensor) -> Tensor:
    """Add uniform noise in [0, a) to each clip (B, T, F), a itself uniform in [0, loudest) per clip (AST)."""
    amplitude = uniform(keys, 1, 1, stream=4) * loudest
    return spectrogram + uniform(keys, *spectrogram.shape[1:], stream=5) * amplitude


def change_gain(waveform: Tensor, most: float, keys: Tensor) -> Tensor:
    """Each clip (B, S) louder or softer by up to `most` decibels, uniform in decibels."""
    decibels = (2 * uniform(keys, 1, stream=8) - 1) * most
    return waveform * 10 ** (decibels / 20)


def mixup(
    waveform: Tensor, lengths: Tensor, targets: Tensor, share: float, keys: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix a `share` of the clips (B, S) and their targets (B, C) with a neighbour's, weights from Beta(10, 10) (AST).

    The neighbour of clip 2i is 2i + 1 and the reverse, so an even split of a batch mixes the same pairs; the odd
    one at the end stays as it is. Returns waveforms, lengths (the longer of the two) and soft targets.
    """
    index = torch.arange(len(keys), device=keys.device)
    partner = torch.where(index ^ 1 < len(keys), index ^ 1, index)
    # The tenth smallest of nineteen uniform numbers is distributed as Beta(10, 10).
    weight = uniform(keys, 19, stream=6).sort(dim=1).values[:, 9]
    mixed = uniform(keys, stream=7) < share
    weight = torch.where(mixed, weight, torch.ones_like(weight))[:, None]
    waveform = weight * waveform + (1 - weight) * waveform[partner]
    targets = weight * targets + (1 - weight) * targets[partner]
    return waveform, torch.where(mixed, torch.maximum(lengths, lengths[partner]), lengths), targets


def augment_clips(
    log_mels: Sequence[Tensor], features: FeatureConfig, config: AugmentConfig, keys: Tensor
) -> list[Tensor]:
    """`augment_features` of clips of their own lengths, (T, F) each: tempo, masks and roll stay within its frames."""
    alone = zip(log_mels, keys.split(1), strict=True)
    return [augment_features(log_mel[None], features, config, key)[0] for log_mel, key in alone]


def augment_features(log_mel: Tensor, features: FeatureConfig, config: AugmentConfig, keys: Tensor) -> Tensor:
    """Padded log-mel (B, T, F) to an augmented, normalised one: tempo, then masks, normalisation, noise and roll in
    AST's order."""
    if config.stretch:
        log_mel = stretch_frames(log_mel, config.stretch, keys)
    if config.freq_mask:
        log_mel = mask_band(log_mel, config.freq_mask, 2, keys)
    if config.time_mask:
        log_mel = mask_band(log_mel, config.time_mask, 1, keys)
    spectrogram = features.normalise(log_mel)
    if config.noise:
        spectrogram = add_noise(spectrogram, config.noise, keys)
    if config.roll:
        spectrogram = roll_frames(spectrogram, config.roll, keys)
    return spectrogram
