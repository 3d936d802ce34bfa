"""Networks for export: waveform or log-mel in, scores and logits out, built from plain operations only.

Dimensions: B clips, S samples, W samples in a window, K frequencies of the transform, T frames, F mel bins,
C classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

from ..classifier.scale import Scale
from ..features import FeatureConfig
from ..models.frozen import FrozenAST
from .sizes_network import SizesAST


class MatrixFrontEnd(nn.Module):
    """`FrontEnd` without a Fourier transform, which exchange formats lack: waveforms (B, S) to log-mel (B, T, F).

    Removing a window's mean, pre-emphasis, the Hann window and the transform are all linear: one matrix from W
    samples to K cosine and K sine coefficients, multiplied out in float64 and applied as a strided convolution.
    """

    analysis: Tensor
    filters: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        size, self.hop = config.window, config.hop
        n_fft = 1 << (size - 1).bit_length()
        banks, _ = get_mel_banks(config.bins, n_fft, float(config.sample_rate), 20.0, 0.0, 100.0, -500.0, 1.0)
        self.register_buffer("filters", F.pad(banks, (0, 1)).T.contiguous())  # (K, F)
        self.register_buffer("analysis", analysis_matrix(size, n_fft).float()[:, None])  # (2 K, 1, W)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalised log-mel (B, frames, F), cut or padded as `FrontEnd` does; S is at least one window.

        lengths: samples of each clip, (B,) integers; the rest is padding. Without them every sample counts.
        """
        # A constant offset changes nothing, but costs precision: the matrix would have to cancel it.
        centred = waveform - waveform.mean(dim=1, keepdim=True)
        spectrum = F.conv1d(centred[:, None], self.analysis, stride=self.hop)  # (B, 2 K, T)
        power = spectrum.square().unflatten(1, (2, -1)).sum(dim=1)  # (B, K, T)
        energies = power.mT @ self.filters  # (B, T, F)
        log_mel = energies.clamp(min=torch.finfo(torch.float32).eps).log()
        padding = log_mel.new_zeros(waveform.shape[0], self.config.frames, self.config.bins)
        fitted = torch.cat([log_mel, padding], dim=1)[:, : self.config.frames]
        if lengths is None:
            return self.config.normalise(fitted)
        valid = self.frame_count(lengths)
        inside = torch.arange(self.config.frames, device=fitted.device) < valid[:, None]  # (B, frames)
        return self.config.normalise(fitted * inside[:, :, None])

    def frame_count(self, lengths: Tensor) -> Tensor:
        """Whole windows in so many samples."""
        return (lengths - self.analysis.shape[2]).div(self.hop, rounding_mode="floor") + 1


def analysis_matrix(size: int, n_fft: int) -> Tensor:
    """Matrix from a window's samples to the real, then imaginary parts of its spectrum: (2 (n_fft / 2 + 1), size)."""
    centre = torch.eye(size, dtype=torch.float64) - 1.0 / size
    emphasis = torch.eye(size, dtype=torch.float64) - 0.97 * torch.eye(size, dtype=torch.float64).roll(1, dims=0)
    emphasis[0, -1] = 0.0  # the first sample has no predecessor, and the window is zero there
    window = torch.hann_window(size, periodic=False, dtype=torch.float64)
    turns = torch.outer(torch.arange(n_fft // 2 + 1), torch.arange(size)) % n_fft
    angle = turns.double() * (2 * math.pi / n_fft)
    return torch.cat([angle.cos(), -angle.sin()]) @ (window[:, None] * (emphasis @ centre))


class Scorer(nn.Module):
    """A network with its front end and score function; returns scores (B, C) and logits (B, C)."""

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        network: FrozenAST | SizesAST,
        multi_label: bool,
        front_end: MatrixFrontEnd | None = None,
        inputs: tuple[str, ...] = ("waveform", "lengths"),
        native: bool = False,
        scale: Scale | None = None,
    ) -> None:
        """front_end: for waveforms (B, S) and lengths (B,) as input; otherwise the input is normalised log-mel.

        inputs: what `forward` takes, in order: a sound, then `lengths` and `patch`, if they are there.
        native: hear short clips at their own length. scale: of a regression, whose scores are values in these units.
        """
        super().__init__()
        self.front_end, self.network, self.multi_label = front_end, network, multi_label
        self.inputs, self.native = inputs, native
        self.register_buffer("mean", None if scale is None else torch.tensor(scale.mean))
        self.register_buffer("std", None if scale is None else torch.tensor(scale.std))

    def forward(self, x: Tensor, second: Tensor | None = None, third: Tensor | None = None) -> tuple[Tensor, Tensor]:
        given = dict(zip(self.inputs[1:], (second, third), strict=False))
        lengths = given.get("lengths")
        if self.front_end is not None:
            x = self.front_end(x, lengths)
            lengths = None if lengths is None else self.front_end.frame_count(lengths)
        if isinstance(self.network, SizesAST):
            logits = self.network(x, lengths if self.native else None, given.get("patch"))
        else:
            logits = self.network(x)
        if self.mean is not None and self.std is not None:
            return logits * self.std + self.mean, logits
        return (logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)), logits
