"""What conversion to another rate keeps and what it must not let through, and that old models keep their filter."""

import dataclasses

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from flexiast.data.audio import decode, decode_pieces
from flexiast.data.resampling import resample
from flexiast.errors import ConfigError
from flexiast.features import FeatureConfig
from flexiast.traintest.options import FeatureOptions

RATE = 16_000


def decibels(waveform: torch.Tensor, hertz: float) -> float:
    """Level of a sine in the middle half of a waveform at 16 kHz, against one of amplitude 1."""
    middle = waveform[len(waveform) // 4 : -(len(waveform) // 4)].double().numpy()
    window = np.blackman(len(middle))
    wave = np.exp(-2j * np.pi * hertz * np.arange(len(middle)) / RATE)
    return 20 * np.log10(np.abs((middle * window * wave).sum()) / window.sum() * 2 + 1e-12)


def tone(hertz: float, rate: int) -> torch.Tensor:
    return torch.sin(2 * np.pi * hertz * torch.arange(2 * rate).double() / rate).float()


@pytest.mark.parametrize("source", [22_050, 44_100, 48_000, 44_101])
def test_soxr_keeps_what_is_heard_and_lets_no_alias_through(source: int) -> None:
    for hertz in (100, 4000, 6000, 7000):
        assert decibels(resample(tone(hertz, source), source, RATE, "soxr"), hertz) == pytest.approx(0, abs=0.1)
    for hertz in (8050, 8100, 8500, 9000, 10_500):  # would fold to 16,000 less itself
        assert decibels(resample(tone(hertz, source), source, RATE, "soxr"), RATE - hertz) < -100


def test_soxr_makes_no_images_of_telephone_speech() -> None:
    for hertz in (300, 1000, 3400):
        got = resample(tone(hertz, 8000), 8000, RATE, "soxr")
        assert decibels(got, hertz) == pytest.approx(0, abs=0.1)
        assert decibels(got, 8000 - hertz) < -100


def test_sinc_is_torchaudios_default() -> None:
    """What released weights were trained with; its aliases and losses are the reason for the other one."""
    noise = torch.randn(2, 44_100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resample(noise, 44_100, RATE), torchaudio.transforms.Resample(44_100, RATE)(noise))
    assert decibels(resample(tone(8100, 44_100), 44_100, RATE), 7900) > -10
    assert decibels(resample(tone(7000, 44_100), 44_100, RATE), 7000) < -1.5


@pytest.mark.parametrize("shape", [(4410,), (2, 4410), (3, 2, 4410), (0,), (2, 0)])
def test_all_but_the_last_dimension_is_kept(shape: tuple[int, ...]) -> None:
    waveform = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    got = resample(waveform, 44_100, RATE, "soxr")
    assert got.shape == (*shape[:-1], 1600 * bool(shape[-1]))
    if waveform.ndim == 2 and len(got) and got.numel():
        torch.testing.assert_close(got[1], resample(waveform[1], 44_100, RATE, "soxr"))


@pytest.mark.parametrize("rate", [44_100, 48_000, 8000, 11_025])
@pytest.mark.parametrize("seconds", [1.0, 2.0, 3.0001, 5.7])
def test_pieces_have_no_seams(rate: int, seconds: float, tmp_path) -> None:
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (int(seconds * rate), 2)), rate)
    pieces = list(decode_pieces(path, seconds=1, resampler="soxr"))
    whole = decode(path, resampler="soxr")
    torch.testing.assert_close(torch.cat(pieces), whole, atol=2e-6, rtol=0)
    torch.testing.assert_close(decode(path, max_samples=9999, resampler="soxr"), whole[:9999], atol=1e-6, rtol=0)


def test_new_models_use_soxr_and_old_ones_keep_what_they_had() -> None:
    assert FeatureOptions().resolve(None, None, None).resampler == "soxr"
    old = FeatureConfig(**{"frames": 100, "downmix": "first"})  # as descriptions were before there was a choice
    assert old.resampler == "sinc"
    assert FeatureOptions().resolve(old, None, None).resampler == "sinc"
    assert FeatureOptions(resampler="soxr").resolve(old, None, None) == dataclasses.replace(old, resampler="soxr")
    with pytest.raises(ConfigError, match=r"features\.resampler: found 'fft', expected one of soxr, sinc"):
        FeatureConfig(resampler="fft")
