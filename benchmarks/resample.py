#!/usr/bin/env python3
"""Converters of the sample rate: what they keep, what they let through, and how long they take, on one thread.

torchaudio's default (`sinc`, which released weights were trained with), torchaudio with the wide filter that its
documentation gives for high quality, and soxr in three qualities; `soxr HQ` is what new models use. Passband is the
largest change in dB of tones up to 7/8 of what the lower rate can hold; alias is the loudest image in dB of tones from
1/160 above it, or of tones at all when going up. The time is of ten seconds, which includes no decoding.

python benchmarks/resample.py        writes benchmarks/results/resample.json and prints the table
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import soxr
import torch
import torchaudio
from harness import Report, arguments, run
from torch import Tensor

from flexiast.data.resampling import resample

TARGET = 16_000
WIDE = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}
Converter = Callable[[Tensor], Tensor]


def converters(source: int) -> dict[str, Converter]:
    """From `source` Hz to 16 kHz, by name."""

    def by_soxr(quality: str) -> Converter:
        return lambda waveform: torch.from_numpy(soxr.resample(waveform.numpy(), source, TARGET, quality=quality))

    return {
        "torchaudio default": torchaudio.transforms.Resample(source, TARGET),
        "torchaudio wide": torchaudio.transforms.Resample(source, TARGET, **WIDE),
        "soxr MQ": by_soxr("MQ"),
        "soxr HQ": by_soxr("HQ"),
        "soxr VHQ": by_soxr("VHQ"),
    }


def decibels(waveform: Tensor, hertz: float) -> float:
    """Level of a sine in the middle half, against one of amplitude 1."""
    middle = waveform[len(waveform) // 4 : -(len(waveform) // 4)].double().numpy()
    window = np.blackman(len(middle))
    wave = np.exp(-2j * np.pi * hertz * np.arange(len(middle)) / TARGET)
    return float(20 * np.log10(abs((middle * window * wave).sum()) / window.sum() * 2 + 1e-12))


def quality(convert: Converter, source: int) -> dict[str, float]:
    """Passband and alias in dB, see above; and the level of a tone at 7/8 of the band."""
    half = min(source, TARGET) / 2

    def level(hertz: float, heard: float) -> float:
        tone = torch.sin(2 * np.pi * hertz * torch.arange(2 * source).double() / source).float()
        return decibels(convert(tone), heard)

    kept = [level(share * half, share * half) for share in np.linspace(0.05, 0.875, 12)]
    if source > TARGET:
        alias = [level(share * half, 2 * half - share * half) for share in (161 / 160, 1.02, 1.05, 1.1, 1.2, 1.3)]
    else:
        alias = [level(share * half, 2 * half - share * half) for share in (0.1, 0.25, 0.5, 0.75, 0.875)]
    return {"passband_db": round(max(map(abs, kept)), 3), "alias_db": round(max(alias), 1)}


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    report = Report("resample", options, rounds=30, threads=1)
    torch.manual_seed(0)
    for source in (44_100, 48_000, 22_050, 8000):
        group, contenders = f"{source} to {TARGET} Hz", converters(source)
        noise = 0.1 * torch.randn((1 if options.quick else 10) * source)
        sinc, soxr_hq = (resample(noise, source, TARGET, name) for name in ("sinc", "soxr"))
        report.agree(f"{group}: ours and torchaudio's", sinc, contenders["torchaudio default"](noise), within=0)
        report.agree(f"{group}: ours and soxr's", soxr_hq, contenders["soxr HQ"](noise), within=0)
        report.facts[group] = {name: quality(convert, source) for name, convert in contenders.items()}
        timed = {name: partial(convert, noise) for name, convert in contenders.items()}
        report.race(group, timed, against="torchaudio default")
    report.finish()


if __name__ == "__main__":
    run(main)
