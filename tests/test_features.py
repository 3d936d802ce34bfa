"""Log-mel features: equal to torchaudio's Kaldi fbank and to golden ones, alone, in batches and padded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

import flexiast.features
from flexiast.errors import ConfigError
from flexiast.features import FeatureConfig, FrontEnd, LogMel, fit_frames

GOLDEN = Path(__file__).parent / "golden"


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Noise of a tenth of full scale, float32."""
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 0.1, shape)).float()


def kaldi_fbank(waveform: torch.Tensor, sample_rate: int, bins: int = 128) -> torch.Tensor:
    """Reference for one waveform (S,): (T, bins)."""
    return kaldi.fbank(
        waveform[None],
        htk_compat=True,
        sample_frequency=sample_rate,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=bins,
        dither=0.0,
    )


def assert_as_kaldi(waveform: torch.Tensor, sample_rate: int = 16_000) -> None:
    expected = kaldi_fbank(waveform, sample_rate)
    got = LogMel(sample_rate)(waveform[None])[0]
    assert got.shape == expected.shape
    # The same operations in the same order: rounding of the mel sums is all that may differ.
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [400, 401, 559, 560, 16_000, 160_000])
def test_as_kaldi_at_every_length(samples):
    assert_as_kaldi(noise(samples))


@pytest.mark.parametrize("sample_rate", [8000, 16_000, 22_050, 44_100])
@pytest.mark.filterwarnings("ignore:.*filterbank:UserWarning")
def test_as_kaldi_at_every_sample_rate(sample_rate):
    assert_as_kaldi(noise(sample_rate), sample_rate)


@pytest.mark.parametrize(
    "waveform",
    [
        torch.zeros(4000),
        torch.tensor([1.0, -1.0]).repeat_interleave(20).repeat(100),
        noise(4000) + 0.5,
        (30 * noise(4000)).round() / 32768 + 0.5,
        1e-3 * noise(4000) + torch.linspace(0, 0.5, 4000),
        0.5 * torch.sin(0.17 * torch.arange(4000)),
    ],
    ids=["silence", "full-scale square wave", "DC offset", "last bits on a DC offset", "drift", "pure tone"],
)
def test_as_kaldi_for_unusual_signals(waveform):
    assert_as_kaldi(waveform)


@pytest.mark.parametrize("clips", [1, 3, 9])
def test_clips_of_a_batch_do_not_mix(clips):
    batch = noise(clips, 8000)
    alone = torch.cat([LogMel()(clip[None]) for clip in batch])
    torch.testing.assert_close(LogMel()(batch), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bins", [4, 5, 40, 64])
@pytest.mark.filterwarnings("ignore:.*filterbank:UserWarning")
def test_any_number_of_mel_bins_is_as_kaldi(bins):
    expected = kaldi_fbank(noise(4000), 16_000, bins)
    torch.testing.assert_close(LogMel(bins=bins)(noise(1, 4000))[0], expected, atol=1e-5, rtol=0)


def test_autocast_does_not_cost_precision():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = LogMel()(noise(2, 4000))
    assert torch.equal(got, LogMel()(noise(2, 4000)))


@pytest.mark.parametrize("chunk", [1, 7, 98, 1000])
def test_chunks_do_not_change_the_result(chunk, monkeypatch):
    batch = noise(5, 16_000)  # 98 frames each
    whole = LogMel()(batch)
    monkeypatch.setattr(flexiast.features, "CHUNK_FRAMES", chunk)
    torch.testing.assert_close(LogMel()(batch), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_clip_shorter_than_a_window_has_no_frames(samples):
    assert LogMel()(torch.zeros(2, samples)).shape == (2, 0, 128)


@pytest.mark.parametrize("shape", [(16_000,), (1, 1, 16_000)])
def test_waveform_of_another_shape_is_refused(shape):
    with pytest.raises(ConfigError) as error:
        LogMel()(torch.zeros(shape))
    assert str(shape) in str(error.value)


def test_integers_are_refused():
    with pytest.raises(ConfigError, match=r"found torch\.int16, expected floating-point samples"):
        LogMel()(torch.zeros(1, 16_000, dtype=torch.int16))


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16_000, 98)])
def test_frame_count_is_that_of_the_log_mel(samples, frames):
    assert FeatureConfig().frame_count(samples) == LogMel()(torch.zeros(1, samples)).shape[1] == frames
    assert FeatureConfig().frame_count(torch.tensor([samples])).tolist() == [frames]


# Golden features subtract the mean of all channels, then use the first (tests/golden/README.md). Fourier transforms
# round as the processor has it, which shows where a mel bin is nearly empty: on an AMD EPYC with AVX-512 torchaudio
# itself is off these by 2e-4. That LogMel is torchaudio's to 1e-5 on every machine is tested above.
@pytest.mark.parametrize(("case", "sample_rate"), [("16k_mono", 16_000), ("44k1_mono", 44_100), ("16k_stereo", 16_000)])
def test_golden_features(case, sample_rate):
    golden = np.load(GOLDEN / "fbank.npz")
    pcm = torch.from_numpy(golden[f"pcm_{case}"] / 32768).float()
    config = FeatureConfig(sample_rate=sample_rate, frames=128)
    log_mel = LogMel(sample_rate)((pcm - pcm.mean())[:1])
    np.testing.assert_allclose(log_mel[0].numpy(), golden[f"fbank_{case}"], atol=5e-4)
    normalised = config.normalise(fit_frames(log_mel, config.frames))
    np.testing.assert_allclose(normalised[0].numpy(), golden[f"norm128_{case}"], atol=6e-5)  # 5e-4 / (2 std)


@pytest.mark.parametrize("frames", [20, 64])
def test_padded_clips_are_as_they_are_alone(frames):
    front_end = FrontEnd(FeatureConfig(frames=frames))
    clips = [noise(samples, seed=samples) for samples in (400, 1000, 5000, 8000)]
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    together = front_end(padded, torch.tensor([len(clip) for clip in clips]))
    alone = torch.cat([front_end(clip[None]) for clip in clips])
    assert together.shape == (4, frames, 128)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_padding_looks_as_the_configuration_says():
    front_end = FrontEnd(FeatureConfig(frames=10, mean=-3.0, std=2.0))
    assert front_end.config.pad_value == 0.75  # (0 - -3) / (2 * 2)
    assert (front_end(noise(1, 400))[:, 1:] == 0.75).all()


@pytest.mark.parametrize("sample_rate", [8000, 16_000, 44_100])
def test_samples_of_the_configuration_make_its_frames_exactly(sample_rate):
    config = FeatureConfig(sample_rate=sample_rate, frames=50)
    assert config.frame_count(config.samples) == 50
    assert config.frame_count(config.samples - 1) == 49


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("sample_rate", 0), ("bins", -1), ("frames", 0), ("std", 0.0), ("std", float("nan")), ("downmix", "last")),
        *(("window_ms", 0.0), ("window_ms", 2000.0), ("hop_ms", 0.0), ("hop_ms", 26.0)),
    ],
)
def test_wrong_setting_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"{field}.*{value}"):
        FeatureConfig(**{field: value})


@pytest.mark.parametrize(
    ("rate", "bins", "window_ms", "hop_ms"), [(8000, 64, 25, 10), (32_000, 64, 32, 10), (48_000, 128, 10, 5)]
)
def test_other_front_ends_are_kaldis(rate, bins, window_ms, hop_ms):
    config = FeatureConfig(rate, bins, window_ms=window_ms, hop_ms=hop_ms)
    waveform = noise(1, rate)
    expected = kaldi.fbank(
        waveform, htk_compat=True, sample_frequency=rate, window_type="hanning", num_mel_bins=bins, dither=0.0,
        frame_length=window_ms, frame_shift=hop_ms,
    )  # fmt: skip
    found = config.log_mel()(waveform)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert len(found) == config.frame_count(rate)
    assert FeatureConfig(frames=200, hop_ms=hop_ms).seconds == pytest.approx(0.2 * hop_ms)


@pytest.mark.parametrize(("setting", "message"), [({"sample_rate": 40}, "40 Hz"), ({"bins": 3}, "3 bins")])
def test_setting_without_a_window_or_a_filter_bank_is_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        LogMel(**setting)


def test_a_batch_that_ends_in_zeros_without_lengths_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    front_end = FrontEnd(FeatureConfig(frames=50))
    padded = noise(2, 8000)
    padded[1, 5000:] = 0
    front_end(padded, torch.tensor([8000, 5000]))
    front_end(padded[:1])
    front_end(padded[1:])  # a single clip is what it is
    front_end(noise(2, 8000))
    assert not caplog.records
    front_end(padded)
    front_end(padded)
    (record,) = caplog.records
    assert "give their lengths in samples" in record.message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_stay_float32_whatever_the_model_becomes(dtype: torch.dtype) -> None:
    front_end, x = FrontEnd(FeatureConfig(frames=50)), noise(1, 8000)
    expected = front_end(x)
    assert torch.equal(front_end.to(dtype)(x), expected)
