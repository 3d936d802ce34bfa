"""Resample waveforms, with the same filter as when the model was trained.

Dimensions: S samples.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

_TABLE = 1 << 20
"""Up to this product of the two sample rates, without common factors, use a table of filters (4 bytes per product)."""
_BLOCK = 1 << 20
"""Number of products to compute at once without a table."""


def resample(waveform: Tensor, source: int, target: int, resampler: str = "sinc") -> Tensor:
    """Resample a waveform (..., S) from `source` Hz to `target` Hz.

    `soxr`: libsoxr at high quality; to 16 kHz, it is flat up to 7 kHz and below -120 dB above 8 kHz. `sinc`:
    torchaudio's default, which released weights were trained with; it loses 1.8 dB at 7 kHz and passes frequencies just
    above 8 kHz. `benchmarks/resample.py` compares them.
    """
    if source == target or waveform.shape[-1] == 0:
        return waveform
    if resampler == "soxr":
        return _soxr(waveform, source, target)
    common = math.gcd(source, target)
    if (source // common) * (target // common) > _TABLE:  # 44,101 to 16,000 Hz would be a table of 2.8 GB
        return resample_without_table(waveform, source, target)
    return _sinc(source, target, waveform.device)(waveform)


def _soxr(waveform: Tensor, source: int, target: int) -> Tensor:
    import soxr  # only when needed: audio at the model's rate does not need it

    channels = waveform.detach().reshape(-1, waveform.shape[-1])  # (rest, S)
    resampled = soxr.resample(channels.float().T.contiguous().numpy(), source, target, quality="HQ")  # (S', rest)
    return torch.from_numpy(resampled.T.copy()).view(*waveform.shape[:-1], -1)


@lru_cache(maxsize=32)
def _sinc(source: int, target: int, device: torch.device) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(source, target).to(device)


def resample_without_table(waveform: Tensor, source: int, target: int) -> Tensor:
    """Like torchaudio's Resample, evaluating the filter at each sample: slower, for rates without a simple ratio."""
    zeros, cutoff = 6, 0.99 * min(source, target)  # torchaudio's defaults: zero crossings, and roll-off
    width = math.ceil(zeros * source / cutoff)
    count = -(-waveform.shape[-1] * target // source)
    taps = torch.arange(2 * width + 2, device=waveform.device)
    padded, parts = F.pad(waveform, (width, width + 1)), []
    for place in (torch.arange(count, device=waveform.device) * source).split(max(1, _BLOCK // len(taps))):
        first, rest = place // target, (place % target).double() / target
        t = ((taps - width - rest[:, None]) * (cutoff / source)).clamp(-zeros, zeros)  # (samples, taps)
        filters = torch.sinc(t) * torch.cos(t * (math.pi / zeros / 2)).square() * (cutoff / source)
        parts.append((padded[..., first[:, None] + taps] * filters.to(waveform.dtype)).sum(dim=-1))
    return torch.cat(parts, dim=-1) if parts else waveform[..., :0]
