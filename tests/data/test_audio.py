"""Decoding: formats, channels, sample rates, lengths, and files that are no audio."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flexiast.data.audio import as_float, decode, decode_pieces
from flexiast.errors import DataError

SECOND = 16_000


def tone(hertz: float, rate: int = SECOND, seconds: float = 1.0, level: float = 0.5) -> np.ndarray:
    """A sine (S,)."""
    return level * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def written(folder: Path, samples: np.ndarray, rate: int = SECOND, name: str = "clip.wav", **options) -> Path:
    """The file that holds these samples, (S,) or (S, channels)."""
    soundfile.write(folder / name, samples, rate, **options)
    return folder / name


def level(waveform: torch.Tensor, hertz: float) -> float:
    """Level of the sine of this frequency in the middle half of a waveform at 16 kHz."""
    middle = waveform[len(waveform) // 4 : -(len(waveform) // 4)].double().numpy()
    wave = np.exp(-2j * np.pi * hertz * np.arange(len(middle)) / SECOND) * np.hanning(len(middle))
    return float(np.abs((middle * wave).sum()) / np.hanning(len(middle)).sum() * 2)


# Steps of 16-bit samples are 3e-5; ogg is lossy.
@pytest.mark.parametrize(("suffix", "tolerance"), [("wav", 4e-5), ("flac", 4e-5), ("ogg", 0.05)])
def test_formats(suffix, tolerance, tmp_path):
    samples = tone(440)
    got = decode(written(tmp_path, samples, name=f"clip.{suffix}"))
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), samples, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("clip.wav", "PCM_24", 2e-7),  # steps of 24 bits
        ("clip.flac", "PCM_24", 2e-7),
        ("clip.wav", "FLOAT", 1e-7),
        ("clip.wav", "DOUBLE", 1e-7),
        ("clip.wav", "PCM_U8", 0.008),  # steps of 8 bits
        ("clip.wav", "ULAW", 0.02),
    ],
)
def test_sample_formats(name, subtype, tolerance, tmp_path):
    samples = tone(440)
    got = decode(written(tmp_path, samples, name=name, subtype=subtype))
    np.testing.assert_allclose(got.numpy(), samples, atol=tolerance)


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_sixteen_bits_come_as_stored_where_asked_for(suffix, tmp_path):
    samples = np.arange(-(2**15), 2**15, dtype=np.int16)  # all there are
    path = written(tmp_path, samples, name=f"clip.{suffix}", subtype="PCM_16")
    got = decode(path, integer=True)
    assert got.dtype == torch.int16
    np.testing.assert_array_equal(got.numpy(), samples)
    assert decode(path).dtype == as_float(got).dtype == torch.float32
    assert torch.equal(as_float(got), decode(path))
    np.testing.assert_array_equal(decode(path).numpy(), samples / 32768)
    assert torch.equal(decode(path, max_samples=999, integer=True), got[:999])


@pytest.mark.parametrize("downmix", ["mean", "first"])
@pytest.mark.parametrize(
    ("subtype", "rate", "channels"),
    [
        ("PCM_24", SECOND, 1),
        ("PCM_U8", SECOND, 1),
        ("FLOAT", SECOND, 1),
        ("PCM_16", 44_100, 1),
        ("PCM_16", 8000, 1),
        ("PCM_16", SECOND, 2),
    ],
)
def test_all_else_comes_as_floats(subtype, rate, channels, downmix, tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (rate, channels))
    path = written(tmp_path, samples, rate, subtype=subtype)
    got = decode(path, downmix=downmix, integer=True)
    assert got.dtype == torch.float32
    assert torch.equal(got, decode(path, downmix=downmix))
    assert torch.equal(as_float(got), got)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_mp3(rate, tmp_path):
    got = decode(written(tmp_path, np.stack([tone(440, rate)] * 2, axis=1), rate, name="clip.mp3"))
    assert level(got, 440) == pytest.approx(0.5, rel=0.02)
    assert SECOND <= len(got) <= SECOND + 4000  # an mp3 is made of whole blocks, of up to 1152 samples at its rate


def test_samples_beyond_full_scale_are_kept(tmp_path):
    got = decode(written(tmp_path, tone(440, level=3.0), subtype="FLOAT"))
    assert level(got, 440) == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize(("downmix", "expected"), [("mean", 0.5 / 8), ("first", 0.5)])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_eight_channels_become_mono(downmix, expected, suffix, tmp_path):
    samples = np.zeros((SECOND, 8))
    samples[:, 0] = tone(440)
    got = decode(written(tmp_path, samples, name=f"clip.{suffix}"), downmix=downmix)
    assert got.shape == (SECOND,)
    assert level(got, 440) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("downmix", "left", "right"), [("mean", 0.25, 0.1), ("first", 0.5, 0.0)])
def test_stereo_becomes_mono(downmix, left, right, tmp_path):
    path = written(tmp_path, np.stack([tone(440), tone(1000, level=0.2)], axis=1))
    got = decode(path, downmix=downmix)
    assert got.ndim == 1
    assert level(got, 440) == pytest.approx(left, abs=1e-3)
    assert level(got, 1000) == pytest.approx(right, abs=1e-3)


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_resampling_keeps_frequency_and_level(rate, tmp_path):
    got = decode(written(tmp_path, tone(1000, rate), rate))
    assert len(got) == SECOND
    assert level(got, 1000) == pytest.approx(0.5, rel=0.01)


# Half of 16,000 Hz is 8,000; what lies above would fold to 16,000 less its frequency.
@pytest.mark.parametrize(("hertz", "rate"), [(15_000, 44_100), (10_000, 44_100), (15_000, 48_000), (20_000, 96_000)])
def test_resampling_removes_what_the_new_rate_cannot_hold(hertz, rate, tmp_path):
    got = decode(written(tmp_path, tone(hertz, rate), rate))
    assert level(got, abs(SECOND - hertz)) < 0.005
    assert got[1000:-1000].abs().max() < 0.005  # of 0.5; the edges of the file click


@pytest.mark.parametrize("rate", [16_000, 44_100, 8000])
@pytest.mark.parametrize("samples", [1, 4000, 12_345])
def test_reading_stops_at_max_samples(rate, samples, tmp_path):
    path = written(tmp_path, tone(440, rate), rate)
    got = decode(path, max_samples=samples)
    assert len(got) == samples
    torch.testing.assert_close(got, decode(path)[:samples], atol=1e-5, rtol=0)


def test_shorter_clip_than_max_samples_is_whole(tmp_path):
    assert len(decode(written(tmp_path, tone(440)), max_samples=2 * SECOND)) == SECOND


@pytest.mark.parametrize("rate", [16_000, 44_100, 8000, 11_025])
@pytest.mark.parametrize("seconds", [0.4, 1.0, 2.0, 3.0001, 5.7])
def test_pieces_of_a_file_make_up_the_whole(rate, seconds, tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (int(seconds * rate), 2))
    path = written(tmp_path, samples, rate)
    pieces = list(decode_pieces(path, seconds=1))
    assert all(len(piece) == SECOND for piece in pieces[:-1])
    torch.testing.assert_close(torch.cat(pieces), decode(path), atol=1e-6, rtol=0)


def test_pieces_of_what_is_no_audio_are_refused(tmp_path):
    for path in (tmp_path / "none.wav", written(tmp_path, np.zeros(0))):
        with pytest.raises(DataError, match=re.escape(str(path))):
            list(decode_pieces(path))
    samples = tone(440, seconds=3)
    samples[-1] = np.nan
    with pytest.raises(DataError, match="NaN"):
        list(decode_pieces(written(tmp_path, samples, subtype="FLOAT"), seconds=1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(bad, tmp_path):
    samples = tone(440)
    samples[700] = bad
    path = written(tmp_path, samples, subtype="FLOAT")
    with pytest.raises(DataError, match=f"{re.escape(str(path))}.*NaN"):
        decode(path)


@pytest.mark.parametrize("integer", [False, True])
def test_empty_clip_is_refused(integer, tmp_path):
    path = written(tmp_path, np.zeros(0))
    with pytest.raises(DataError, match=f"{re.escape(str(path))}.*0 samples"):
        decode(path, integer=integer)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "no such file"),
        (b"", "not readable"),
        (b"these are no samples" * 50, "not readable"),
        (b"RIFF", "not readable"),
    ],
    ids=["missing", "empty file", "text", "cut header"],
)
def test_what_is_no_audio_is_refused(content, found, tmp_path):
    path = tmp_path / "clip.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"{re.escape(str(path))}.*{found}"):
        decode(path)


def test_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        decode(tmp_path)


def test_unbelievable_sample_rate_is_refused(tmp_path):
    path = written(tmp_path, tone(440), 2_000_000_000)
    with pytest.raises(DataError, match="2000000000"):
        decode(path)
