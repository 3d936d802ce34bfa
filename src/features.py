"""Waveform to Kaldi-compatible log-mel spectrogram, batched, on any device.

Dimensions: B clips, S samples, T frames (one every hop), W samples in a window, F mel bins.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

from .errors import ConfigError, is_finite_number, is_whole_number

logger = logging.getLogger(__name__)
MAXIMA = {"sample_rate": 384_000, "bins": 1024, "frames": 100_000}
"""Largest accepted settings: they determine how much memory is allocated. 100,000 frames are 17 minutes."""
LONGEST_WINDOW = 1000.0
"""Longest accepted window, in milliseconds."""
Length = Literal["window", "native"]
"""How a clip shorter than the window is heard: padded to it, or at its `native` length."""
RESAMPLERS = ("soxr", "sinc")
"""Resampling methods, see `data.resampling`."""
CHUNK_FRAMES = 512
"""Frames per pass on a CPU, so that a pass fits in the cache (one large pass is slower)."""
MEL_GROUPS = 4
"""Number of matrix products that apply the mel filters, each over only the frequencies its filters cover."""


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """How a waveform becomes the model's input; stored with the weights."""

    sample_rate: int = 16_000
    """Sample rate in Hz to which audio is converted."""
    bins: int = 128
    """Mel bins, from 20 Hz to half the sample rate."""
    frames: int = 1024
    """Number of frames, one every `hop_ms`, to which a clip is cut or padded."""
    mean: float = -4.2677393
    """Mean of the log-mel over the training data (default: AudioSet, from AST)."""
    std: float = 4.5689974
    """Standard deviation of the log-mel over the training data (default: AudioSet, from AST)."""
    downmix: str = "mean"
    """Stereo to mono: `mean` of the channels, or the `first` channel alone (as released AST weights were trained)."""
    resampler: str = "sinc"
    """Resampling method: `soxr`, or `sinc`, torchaudio's default. The released weights were trained with `sinc`, and it
    is assumed for models whose description does not say."""
    window_ms: float = 25.0
    """Length of the window of one frame, in milliseconds."""
    hop_ms: float = 10.0
    """Time from one frame to the next, in milliseconds."""
    length: Length = "window"
    """What is done with a clip shorter than `frames`: padded to them, or heard at its `native` length, as the model
    was trained."""

    def __post_init__(self) -> None:
        for name, maximum in MAXIMA.items():
            value = getattr(self, name)
            if not is_whole_number(value) or not 1 <= value <= maximum:
                raise ConfigError(f"features.{name}: found {value!r}, expected a whole number from 1 to {maximum}")
        for name in ("mean", "std"):
            value = getattr(self, name)
            if not is_finite_number(value):
                raise ConfigError(f"features.{name}: found {value!r}, expected a finite number")
        if not self.std > 0:
            raise ConfigError(f"features.std: found {self.std!r}, expected a positive number")
        if self.downmix not in ("mean", "first"):
            raise ConfigError(f"features.downmix: found {self.downmix!r}, expected 'mean' or 'first'")
        if self.length not in get_args(Length):
            raise ConfigError(f"features.length: found {self.length!r}, expected one of {', '.join(get_args(Length))}")
        if self.resampler not in RESAMPLERS:
            raise ConfigError(f"features.resampler: found {self.resampler!r}, expected one of {', '.join(RESAMPLERS)}")
        if not is_finite_number(self.window_ms) or not 0 < self.window_ms <= LONGEST_WINDOW:
            raise ConfigError(f"features.window_ms: found {self.window_ms!r}, expected above 0 to {LONGEST_WINDOW:g}")
        if not is_finite_number(self.hop_ms) or not (0 < self.hop_ms <= self.window_ms and self.hop >= 1):
            raise ConfigError(
                f"features.hop_ms: found {self.hop_ms!r}, expected at least one sample at {self.sample_rate} Hz, and"
                f" at most the window of {self.window_ms:g} ms"
            )

    @property
    def pad_value(self) -> float:
        """Value of padding in the normalised input: AST pads the log-mel with 0, then normalises."""
        return self.normalise(0.0)

    @property
    def window(self) -> int:
        """Samples in a window, rounded down as in Kaldi."""
        return int(self.sample_rate * self.window_ms * 0.001)

    @property
    def hop(self) -> int:
        """Samples from one window to the next, rounded down as in Kaldi."""
        return int(self.sample_rate * self.hop_ms * 0.001)

    @property
    def samples(self) -> int:
        """Samples of audio that `frames` frames span."""
        return (self.frames - 1) * self.hop + self.window

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop / self.sample_rate

    @property
    def seconds(self) -> float:
        """Seconds from the first of `frames` frames to the one after the last: what the model hears at once."""
        return self.frames * self.frame_seconds

    def frame_count(self, samples):
        """Number of whole windows in `samples` (an int or an integer tensor): the frames that LogMel returns."""
        frames = (samples - self.window) // self.hop + 1
        return frames.clamp(min=0) if isinstance(frames, Tensor) else max(0, frames)

    def log_mel(self) -> LogMel:
        """The spectrogram with these settings."""
        return LogMel(self.sample_rate, self.bins, self.window_ms, self.hop_ms)

    def normalise(self, log_mel):  # a float or a tensor
        """(x - mean) / (2 std), AST's normalisation."""
        return (log_mel - self.mean) / (2.0 * self.std)


class LogMel(nn.Module):
    """Waveforms (B, S) in [-1, 1] to natural-log mel energies (B, T, F), as Kaldi's fbank computes them.

    Settings are AST's: Hann window, by default of 25 ms every 10 ms, no dither, each window's mean removed,
    pre-emphasis 0.97, power spectrum, triangular mel filters from 20 Hz to Nyquist. A clip shorter than one
    window gives no frames. The result is neither normalised nor padded: see `FeatureConfig.normalise` and `fit_frames`.
    The operations and their order match torchaudio.compliance.kaldi.fbank, so that float32 rounds the same way
    and the two agree to 1e-5 even where a mel bin is nearly empty. No gradient flows back to the waveform.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self, sample_rate: int = 16_000, bins: int = 128, window_ms: float = 25.0, hop_ms: float = 10.0
    ) -> None:
        super().__init__()
        self.config = FeatureConfig(sample_rate, bins, window_ms=window_ms, hop_ms=hop_ms)
        self.bins, size, self.hop = bins, self.config.window, self.config.hop
        if sample_rate < 80 or bins < 4:
            raise ConfigError(
                f"log-mel: found sample rate {sample_rate} Hz and {bins} bins, expected at least 80 Hz and 4 bins"
            )
        if size < 2:
            raise ConfigError(f"features.window_ms: found {window_ms:g}, one sample, expected at least two")
        self.n_fft = 1 << (size - 1).bit_length()
        banks, _ = get_mel_banks(bins, self.n_fft, float(sample_rate), 20.0, 0.0, 100.0, -500.0, 1.0)  # (F, n_fft/2)
        # Each row twice, because squared real and imaginary parts alternate: (n_fft + 2, F).
        filters = F.pad(banks, (0, 1)).T.repeat_interleave(2, dim=0).contiguous()
        self.register_buffer("window", torch.hann_window(size, periodic=False), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self._bands = [_band(filters, mel) for mel in torch.arange(bins).split(-(-bins // MEL_GROUPS))]

    def _apply(self, fn, recurse: bool = True):
        """Follow the model to its device, but stay float32 if it is converted to half: features need the precision."""

        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep, recurse)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Log-mel (B, T, F) of waveforms (B, S). Raises ConfigError for any other shape, and for integers."""
        if waveform.ndim != 2:
            raise ConfigError(f"waveform shape: found {tuple(waveform.shape)}, expected (batch, samples)")
        if not waveform.is_floating_point():
            raise ConfigError(f"waveform: found {waveform.dtype}, expected floating-point samples in [-1, 1]")
        clips, frames = len(waveform), self.config.frame_count(waveform.shape[1])
        log_mel = torch.empty(clips, frames, self.bins, device=waveform.device)
        if log_mel.numel() == 0:
            return log_mel
        windows = waveform.float().unfold(1, len(self.window), self.hop)  # (B, T, W), a view
        limit = CHUNK_FRAMES if waveform.device.type == "cpu" else clips * frames
        at_once, rows = max(1, limit // frames), min(limit, frames)
        padded = torch.zeros(min(at_once, clips), rows, self.n_fft, device=waveform.device)
        with torch.autocast(waveform.device.type, enabled=False):  # bfloat16 is too coarse for features
            for clip_windows, result in zip(windows.split(at_once), log_mel.split(at_once), strict=True):
                for chunk, out in zip(clip_windows.split(rows, dim=1), result.split(rows, dim=1), strict=True):
                    self._log_mel(chunk, padded[: len(chunk), : chunk.shape[1]], out)
        return log_mel

    def _log_mel(self, windows: Tensor, padded: Tensor, out: Tensor) -> None:
        """Log-mel of windows (b, t, W) into `out` (b, t, F); `padded` (b, t, n_fft) is zero at 0 and beyond W."""
        centred = windows - windows.mean(dim=-1, keepdim=True)
        # The Hann window is zero at its first sample, so pre-emphasis can skip that sample.
        emphasised = padded[..., 1 : len(self.window)]
        torch.sub(centred[..., 1:], (0.97 * centred)[..., :-1], out=emphasised)
        emphasised.mul_(self.window[1:])
        spectrum = torch.view_as_real(torch.fft.rfft(padded)).view(-1, len(self.filters))  # (b * t, n_fft + 2)
        spectrum.square_()
        energies = out.view(-1, self.bins)
        for fft, mel in self._bands:
            torch.mm(spectrum[:, fft], self.filters[fft, mel], out=energies[:, mel])
        energies.clamp_(min=torch.finfo(torch.float32).eps).log_()


def _band(filters: Tensor, mel: Tensor) -> tuple[slice, slice]:
    """Rows and columns of filters (n_fft + 2, F) that are not zero for a run of mel bins."""
    columns = slice(int(mel[0]), int(mel[-1]) + 1)
    rows = filters[:, columns].any(dim=1).nonzero()
    return slice(int(rows.min()), int(rows.max()) + 1) if len(rows) else slice(0, 1), columns


def fit_frames(log_mel: Tensor, frames: int, valid: Tensor | None = None) -> Tensor:
    """Cut or zero-pad (B, T, F) to (B, frames, F) as AST does; all frames from `valid[b]` on (B,) become padding."""
    fitted = F.pad(log_mel, (0, 0, 0, max(0, frames - log_mel.shape[1])))[:, :frames]
    if valid is None:
        return fitted
    inside = torch.arange(frames, device=log_mel.device) < valid[:, None]  # (B, frames)
    return fitted * inside[:, :, None]


class FrontEnd(nn.Module):
    """Waveforms and their lengths to the model's input: log-mel, cut or padded to `frames`, normalised."""

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.log_mel = config.log_mel()
        self.warned = False

    def _looks_padded(self, waveform: Tensor) -> bool:
        """Whether some but not all clips of a batch (B, S) end in a window of digital silence."""
        if waveform.ndim != 2 or len(waveform) < 2 or waveform.shape[1] == 0:
            return False
        silent = (waveform[:, -self.config.window :] == 0).all(dim=1)
        return bool(silent.any() and not silent.all())

    def raw(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Log-mel (B, frames, F), padded but not yet normalised. lengths (B,): in samples, if clips are padded."""
        config = self.config
        valid = None if lengths is None else config.frame_count(lengths)
        return fit_frames(self.log_mel(waveform[:, : config.samples]), config.frames, valid)

    def raw_clips(self, waveform: Tensor, lengths: Tensor, config: FeatureConfig | None = None) -> list[Tensor]:
        """Log-mel (T, F) of each clip of (B, S) at its own length, at most `frames`; lengths (B,), in samples.

        config: the same features with another number of frames.
        """
        config = config or self.config
        samples = min(config.samples, int(lengths.max()))
        frames = config.frame_count(lengths).tolist()
        return [one[:count] for one, count in zip(self.log_mel(waveform[:, :samples]), frames, strict=True)]

    def as_trained(self, waveform: Tensor, lengths: Tensor) -> Tensor | list[Tensor]:
        """The input that the model is trained for: `forward`'s, or with native length a (T, F) for each clip."""
        if self.config.length == "window":
            return self(waveform, lengths)
        return [self.config.normalise(one) for one in self.raw_clips(waveform, lengths)]

    def longer(self, waveform: Tensor, lengths: Tensor, config: FeatureConfig) -> list[Tensor]:
        """As `as_trained`, but a clip longer than the window is not cut until `config.frames`: (T, F) of each clip."""
        least = self.config.frames if self.config.length == "window" else 0
        clips = self.raw_clips(waveform, lengths, config)
        return [self.config.normalise(F.pad(one, (0, 0, 0, max(0, least - len(one))))) for one in clips]

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalised log-mel (B, frames, F).

        lengths (B,), in samples: needed for clips padded with zeros. Digital silence is sound, the padding of a
        spectrogram is not, and the model's output differs. Without lengths every sample counts as sound.
        """
        if lengths is None and not self.warned and not torch.compiler.is_compiling() and self._looks_padded(waveform):
            self.warned = True
            logger.warning(
                "front_end: some clips of a batch end in zeros; if that is padding, give their lengths in samples"
                " (front_end(waveform, lengths)), or the model hears it as silence"
            )
        return self.config.normalise(self.raw(waveform, lengths))
