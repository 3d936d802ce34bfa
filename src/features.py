"""Waveform to Kaldi-compatible log-mel spectrogram, batched, on any device.

Dimensions: B clips, S samples, T frames of 10 ms, W samples in a 25 ms window, F mel bins.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

from .errors import ConfigError

CHUNK_FRAMES = 256
"""Frames per pass on a CPU, so that a pass stays in the cache (one large pass is slower)."""


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """How a waveform becomes the model's input; kept beside the weights."""

    sample_rate: int = 16_000
    """Sample rate in Hz that audio is converted to."""
    bins: int = 128
    """Mel bins, from 20 Hz to half the sample rate."""
    frames: int = 1024
    """Frames of 10 ms that a clip is cut or padded to."""
    mean: float = -4.2677393
    """Mean of the log-mel over the training data (default: AudioSet, from AST)."""
    std: float = 4.5689974
    """Standard deviation of the log-mel over the training data (default: AudioSet, from AST)."""
    downmix: str = "mean"
    """Stereo to mono: `mean` of the channels, or `first` channel alone (as released AST weights were trained)."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "bins", "frames", "std"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not value > 0:
                raise ConfigError(f"features.{name}: found {value!r}, expected a positive number")
        if not isinstance(self.mean, (int, float)):
            raise ConfigError(f"features.mean: found {self.mean!r}, expected a number")
        if self.downmix not in ("mean", "first"):
            raise ConfigError(f"features.downmix: found {self.downmix!r}, expected 'mean' or 'first'")

    @property
    def pad_value(self) -> float:
        """What padding looks like to the model: AST pads the log-mel with 0 before it normalises."""
        return self.normalise(0.0)

    @property
    def samples(self) -> int:
        """Samples of audio that `frames` frames are made of."""
        window, hop = window_and_hop(self.sample_rate)
        return (self.frames - 1) * hop + window

    def normalise(self, log_mel):  # a float or a tensor
        """(x - mean) / (2 std), AST's normalisation."""
        return (log_mel - self.mean) / (2.0 * self.std)


def window_and_hop(sample_rate: int) -> tuple[int, int]:
    """Samples of a 25 ms window and of the 10 ms between windows, rounded down as Kaldi does."""
    return int(sample_rate * 0.025), int(sample_rate * 0.010)


def frame_count(samples, sample_rate: int = 16_000):
    """Whole windows in so many samples (an int or an integer tensor): what LogMel returns for them."""
    window, hop = window_and_hop(sample_rate)
    frames = (samples - window) // hop + 1
    return frames.clamp(min=0) if isinstance(frames, Tensor) else max(0, frames)


class LogMel(nn.Module):
    """Waveforms (B, S) in [-1, 1] to natural-log mel energies (B, T, F), as Kaldi's fbank computes them.

    Settings are AST's: Hann window of 25 ms every 10 ms, no dither, each window's mean removed,
    pre-emphasis 0.97, power spectrum, triangular mel filters from 20 Hz to Nyquist. A clip shorter than one
    window gives no frames. Not normalised, not padded: see `FeatureConfig.normalise` and `fit_frames`.
    Source: Kaldi's feature-fbank, in the reading of torchaudio.compliance.kaldi.fbank.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int = 16_000, bins: int = 128) -> None:
        super().__init__()
        self.sample_rate, self.bins = sample_rate, bins
        size, self.hop = window_and_hop(sample_rate)
        if size < 2 or bins < 1:
            raise ConfigError(
                f"log-mel: found sample rate {sample_rate} Hz and {bins} bins, expected at least 80 Hz and 1 bin"
            )
        self.n_fft = 1 << (size - 1).bit_length()
        banks, _ = get_mel_banks(bins, self.n_fft, float(sample_rate), 20.0, 0.0, 100.0, -500.0, 1.0)
        self.register_buffer("window", torch.hann_window(size, periodic=False), persistent=False)
        self.register_buffer("filters", F.pad(banks, (0, 1)).T.contiguous(), persistent=False)  # (n_fft/2 + 1, F)

    def forward(self, waveform: Tensor) -> Tensor:
        """Log-mel (B, T, F) of waveforms (B, S). Raises ConfigError for any other shape."""
        if waveform.ndim != 2:
            raise ConfigError(f"waveform shape: found {tuple(waveform.shape)}, expected (batch, samples)")
        frames = frame_count(waveform.shape[1], self.sample_rate)
        if frames == 0:
            return waveform.new_zeros(len(waveform), 0, self.bins)
        windows = waveform.float().unfold(1, len(self.window), self.hop)  # (B, T, W), a view
        if waveform.device.type != "cpu":
            return self._log_mel(windows)
        return torch.cat([self._log_mel(chunk) for chunk in self._chunks(windows)]).view(len(waveform), frames, -1)

    def _chunks(self, windows: Tensor):
        """Views of at most CHUNK_FRAMES windows, in order, over the flattened (B, T) windows."""
        if windows.shape[1] >= CHUNK_FRAMES:
            for clip in windows:
                yield from clip.split(CHUNK_FRAMES)
        else:
            for clips in windows.split(max(1, CHUNK_FRAMES // windows.shape[1])):
                yield clips.flatten(0, 1)

    def _log_mel(self, windows: Tensor) -> Tensor:
        """Log-mel (..., F) of windows (..., W)."""
        centred = windows - windows.mean(dim=-1, keepdim=True)
        previous = torch.cat([centred[..., :1], centred[..., :-1]], dim=-1)
        emphasised = torch.sub(centred, previous, alpha=0.97).mul_(self.window)
        spectrum = torch.view_as_real(torch.fft.rfft(emphasised, n=self.n_fft))  # (..., n_fft/2 + 1, 2)
        mel = spectrum.square().sum(dim=-1) @ self.filters
        return mel.clamp_(min=torch.finfo(torch.float32).eps).log_()


def fit_frames(log_mel: Tensor, frames: int, valid: Tensor | None = None) -> Tensor:
    """Cut or pad (B, T, F) with 0 to (B, frames, F), AST's way; from frame `valid[b]` (B,) on all is padding."""
    fitted = F.pad(log_mel, (0, 0, 0, max(0, frames - log_mel.shape[1])))[:, :frames]
    if valid is None:
        return fitted
    inside = torch.arange(frames, device=log_mel.device) < valid[:, None]  # (B, frames)
    return fitted * inside[:, :, None]


class FrontEnd(nn.Module):
    """Waveforms and their lengths to what a model sees: log-mel, cut or padded to `frames`, normalised."""

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.log_mel = LogMel(config.sample_rate, config.bins)

    def raw(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Log-mel (B, frames, F), padded but not yet normalised; lengths (B,) in samples where clips are padded."""
        config = self.config
        valid = None if lengths is None else frame_count(lengths, config.sample_rate)
        return fit_frames(self.log_mel(waveform[:, : config.samples]), config.frames, valid)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalised log-mel (B, frames, F)."""
        return self.config.normalise(self.raw(waveform, lengths))
