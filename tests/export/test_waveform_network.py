"""The front end without a Fourier transform against the one with it, and against Kaldi's own numbers."""

import numpy as np
import pytest
import torch

from flexiast.export.waveform_network import MatrixFrontEnd, Scorer, analysis_matrix
from flexiast.features import FeatureConfig, FrontEnd
from flexiast.models.frozen import freeze
from tests.models.test_flexiast import GOLDEN, small

CONFIG = FeatureConfig(frames=96)
TIME = torch.arange(CONFIG.samples) / 16_000
NOISE = torch.randn(2, CONFIG.samples, generator=torch.Generator().manual_seed(0))
SOUNDS = {
    "noise": 0.1 * NOISE,
    "quiet noise": 1e-4 * NOISE,
    "offset": 0.5 + 0.01 * NOISE,
    "sweep": 0.5 * torch.sin(20_000 * TIME**2)[None],
    "silence": torch.zeros(1, CONFIG.samples),
    "short": 0.1 * NOISE[:, :5000],
    "two frames": 0.1 * NOISE[:, :560],
    "long": 0.1 * torch.cat([NOISE, NOISE], dim=1),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_log_mel_is_that_of_the_front_end(name: str) -> None:
    waveform = SOUNDS[name]
    got, expected = MatrixFrontEnd(CONFIG)(waveform), FrontEnd(CONFIG)(waveform)
    # Normalised log-mel has a standard deviation of about 0.5; nearly empty bins of a pure tone round most.
    torch.testing.assert_close(got, expected, atol=3e-3 if name == "sweep" else 3e-4, rtol=0)
    assert float((got - expected).abs().mean()) < 5e-5


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_sample_rates(rate: int) -> None:
    config = FeatureConfig(sample_rate=rate, bins=40, frames=20)
    waveform = 0.1 * torch.randn(2, config.samples)
    torch.testing.assert_close(MatrixFrontEnd(config)(waveform), FrontEnd(config)(waveform), atol=3e-4, rtol=0)


def test_log_mel_is_kaldis() -> None:
    golden = np.load(GOLDEN / "fbank.npz")
    pcm = torch.from_numpy(golden["pcm_16k_mono"].astype(np.float32) / 32768)
    got = MatrixFrontEnd(FeatureConfig(frames=128))(pcm)[0]
    np.testing.assert_allclose(got.numpy(), golden["norm128_16k_mono"], atol=3e-4)


def test_matrix_is_the_whole_chain_in_float64() -> None:
    samples = torch.randn(400, dtype=torch.float64)
    centred = samples - samples.mean()
    emphasised = centred - 0.97 * torch.cat([centred[:1], centred[:-1]])
    spectrum = torch.fft.rfft(emphasised * torch.hann_window(400, periodic=False, dtype=torch.float64), n=512)
    expected = torch.cat([spectrum.real, spectrum.imag])
    torch.testing.assert_close(analysis_matrix(400, 512) @ samples, expected, atol=1e-11, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_are_probabilities(multi_label: bool) -> None:
    frozen, x = freeze(small(), 16), torch.randn(2, 64, 32)
    scores, logits = Scorer(frozen, multi_label)(x)
    assert torch.equal(logits, frozen(x))
    torch.testing.assert_close(scores, logits.sigmoid() if multi_label else logits.softmax(dim=1))
