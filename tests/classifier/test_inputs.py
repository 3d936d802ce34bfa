"""What people pass as sound is heard as what it is, or refused with a hint that helps."""

import io
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from flexiast.classifier import inputs
from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.classifier.inputs import is_several, pieces_of
from flexiast.data.audio import as_float
from flexiast.errors import ConfigError, DataError
from flexiast.features import FeatureConfig
from tests.classifier.test_audio_classifier import classifier, noise

FEATURES = FeatureConfig(frames=50, bins=32)


@pytest.fixture(scope="module")
def model() -> AudioClassifier:
    return classifier()


@pytest.fixture(autouse=True)
def _as_if_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_warned", set())


def heard(audio, sample_rate: int | None = None) -> torch.Tensor:
    return torch.cat([as_float(piece) for piece in pieces_of(audio, FEATURES, sample_rate)])


INTEGERS = (noise(0.4) * 32768).round().clamp(-32768, 32767).to(torch.int16)
SAMPLES = INTEGERS.float() / 32768


def file_content() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, INTEGERS.numpy(), 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


SAME = {
    "float32": SAMPLES,
    "float64 array": SAMPLES.double().numpy(),
    "list of numbers": SAMPLES.tolist(),
    "int16": INTEGERS,
    "int32": INTEGERS.numpy().astype(np.int32) << 16,
    "mono with a channel": SAMPLES[None],
    "soundfile's mono": SAMPLES[:, None].numpy(),
    "soundfile's stereo": torch.stack([SAMPLES, SAMPLES], dim=1).numpy(),
    "torchaudio's stereo": torch.stack([SAMPLES, SAMPLES]),
    "Gradio": (16_000, INTEGERS.numpy()),
    "soundfile.read": (SAMPLES.numpy(), 16_000),
    "torchaudio.load": (SAMPLES[None], np.int64(16_000)),
    "datasets": {"path": "a.wav", "array": SAMPLES.double().numpy(), "sampling_rate": np.int64(16_000)},
    "datasets without decoding": {"path": "a.wav", "bytes": file_content()},
    "transformers": {"raw": SAMPLES.numpy(), "sampling_rate": 16_000.0},
    "bytes": file_content(),
    "bytearray": bytearray(file_content()),
    "open file": io.BytesIO(file_content()),
    "torchcodec": SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=SAMPLES[None], sample_rate=16_000)),
}


@pytest.mark.parametrize("audio", SAME.values(), ids=SAME)
def test_the_same_sound_in_every_form(audio) -> None:
    torch.testing.assert_close(heard(audio), SAMPLES, atol=1e-6, rtol=0)
    assert not is_several(audio)


def test_the_rate_that_comes_with_samples_counts(model: AudioClassifier) -> None:
    fast = noise(0.8, rate=48_000)
    expected = heard(fast, 48_000)
    assert len(expected) == round(0.8 * 16_000)
    for given in ((48_000, fast.numpy()), {"array": fast, "sampling_rate": 48_000}):
        assert torch.equal(heard(given), expected)
    assert model.predict(fast, sample_rate=np.int64(48_000)) == model.predict((48_000, fast))


def test_an_open_file_on_the_disk_is_read_from_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(file_content())
    with open(tmp_path / "a.wav", "rb") as file:
        torch.testing.assert_close(heard(file), SAMPLES)
        with pytest.raises(DataError, match=f"{tmp_path}/a.wav: found no bytes left to read"):
            heard(file)
    with open(tmp_path / "a.wav", encoding="latin-1") as file, pytest.raises(DataError, match="open as text"):
        heard(file)


REFUSED = {
    "a URL": ("https://example.org/a.wav", "found a URL, expected a file: download it first"),
    "a folder": (str(Path(__file__).parent), "found a folder, expected an audio file"),
    "a batch": (np.zeros((16, 16_000)), r"shape \(16, 16000\), expected one clip of at most 8 channels; for a batch"),
    "a batch of channels": (np.zeros((4, 1, 16_000)), "for a batch give a list of clips"),
    "a square": (np.zeros((8, 8)), "expected one clip of at most 8 channels"),
    "int64": (np.zeros(16_000, dtype=int), r"found int64 samples, .* become right by \.astype\('int16'\)"),
    "nothing": (np.zeros(0, dtype=np.float32), r"found no samples \(shape \(0,\)\)"),
    "truth values": (np.zeros(16_000, dtype=bool), "found bool samples"),
    "one number": (0.5, r"shape \(\), expected \(samples,\)"),
    "text in an array": (np.array(["a", "b"]), "found ndarray, expected samples or a file name"),
    "a dictionary without a sound": ({"text": "a"}, "found a dictionary with text, expected array and sampling_rate"),
    "a dictionary without a rate": ({"array": SAMPLES}, "found a dictionary with array, expected its sampling_rate"),
    "a rate that is none": ((10**9, SAMPLES), "sample_rate: found 1000000000, expected 1 to 384000 Hz"),
    "infinity": (np.full(16_000, np.inf), "found NaN or infinite samples"),
}


@pytest.mark.parametrize(("audio", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_with_its_hint(audio, hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        heard(audio)


@pytest.mark.parametrize("rate", [0, -1, 10**9, 16_000.5, True, "16k"])
def test_a_wrong_rate_is_a_wrong_setting(rate) -> None:
    with pytest.raises(ConfigError, match="sample_rate: found"):
        heard(SAMPLES, rate)


def test_a_rate_in_a_list_is_the_fault_of_its_clip_alone(model: AudioClassifier) -> None:
    results = model.predict([SAMPLES, {"array": SAMPLES, "sampling_rate": "fast"}])
    assert results[0]
    assert list(results.errors) == [1]


def test_more_than_two_rows_are_said_to_be_channels_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            torch.testing.assert_close(heard(SAMPLES.repeat(4, 1)), SAMPLES, atol=1e-6, rtol=0)
    (record,) = caplog.records
    assert "are taken as 4 channels of one clip and mixed; for a batch of clips give a list" in record.getMessage()


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (SAMPLES * 32768, "expected about 1 (integers written as floats?)"),
        ({"array": torch.zeros(16_000), "sampling_rate": 16_000}, "digital silence (every sample is 0)"),
        ((16_000, torch.stack([SAMPLES, -SAMPLES])), "2 channels in opposite phase"),
        (SAMPLES, None),
    ],
)
def test_samples_that_look_wrong_are_told(audio: object, reason: str | None) -> None:
    reasons = list[str]()
    list(pieces_of(audio, FEATURES, suspicions=reasons))
    assert [reason in one for one in reasons] == ([True] if reason else [])


def test_a_collection_is_told_from_a_sound() -> None:
    for several in ([SAMPLES, SAMPLES], ["a.wav"], (SAMPLES, SAMPLES), ["a.wav", "b.wav"], [], Path().glob("*")):
        assert is_several(several)
    for one in (SAMPLES, SAMPLES.numpy(), "a.wav", b"RIFF", (16_000, SAMPLES), [0.1, 0.2], {"array": SAMPLES}):
        assert not is_several(one)
