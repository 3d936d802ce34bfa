"""predict on files, samples, batches and recordings of any length; windows with their times; every misuse named."""

import math
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor

import flexiast
from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.classifier.inputs import pieces_of
from flexiast.cli import main
from flexiast.data import audio as decoding
from flexiast.data.manifest import Labels
from flexiast.data.windows import excerpts
from flexiast.errors import ConfigError, DataError
from flexiast.features import FeatureConfig
from flexiast.models.config import FlexiASTConfig, Loss
from flexiast.models.geometry import Coverage

RATE, FRAMES = 16_000, 50
WINDOW = 0.5  # seconds: 50 frames of 10 ms
SAMPLES = (FRAMES - 1) * 160 + 400


def classifier(loss: Loss = "ce", coverage: Coverage = "pad", **features) -> AudioClassifier:
    """A small network on half a second of sound, far from its start, so that clips get different scores."""
    torch.manual_seed(0)
    settings = FeatureConfig(frames=FRAMES, bins=32, **features)
    config = FlexiASTConfig(
        classes=4, frames=FRAMES, bins=32, patch_size=8, width=16, depth=2, heads=2, pad_value=settings.pad_value,
        coverage=coverage,
    )  # fmt: skip
    model = AudioClassifier(config, settings, Labels.numbers(4), loss).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def noise(seconds: float, channels: int = 0, rate: int = RATE) -> Tensor:
    """Noise that swells and fades, (S,) or (channels, S): no two windows of it sound alike."""
    samples = round(seconds * rate)
    level = 0.1 + 0.09 * torch.sin(torch.arange(samples) / rate * 2.3)
    shape = (channels, samples) if channels else (samples,)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)) * level


def write(path: Path, samples: Tensor, rate: int = RATE) -> Path:
    soundfile.write(path, samples.mT.numpy() if samples.ndim == 2 else samples.numpy(), rate, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def model() -> AudioClassifier:
    return classifier()


@torch.no_grad()
def scores_of(model: AudioClassifier, clip: Tensor, patch=None) -> Tensor:
    """What the network says of one clip that is no longer than a window."""
    return model.probabilities(model(model.front_end(clip[None]), patch))[0]


def named(predictions) -> Tensor:
    """Scores in the order of the classes."""
    return torch.tensor([score for _, score in sorted(predictions, key=lambda p: int(p.label))])


@pytest.mark.parametrize("loss", ["ce", "bce"])
@pytest.mark.parametrize("seconds", [0.025, 0.3, 0.5])
def test_a_short_clip_is_heard_once(loss: Loss, seconds: float) -> None:
    model, clip = classifier(loss), noise(seconds)
    got = model.predict(clip, "8x16", top_k=4)
    torch.testing.assert_close(named(got), scores_of(model, clip, "8x16"), atol=1e-6, rtol=0)
    assert [p.score for p in got] == sorted((p.score for p in got), reverse=True)
    assert model.predict(clip, "8x16", top_k=2) == got[:2]
    assert model.predict(clip, "8x16", top_k=9) == got


@pytest.mark.parametrize(("aggregate", "combine"), [("mean", torch.mean), ("max", torch.amax)])
@pytest.mark.parametrize(("hop", "frames"), [(None, 50), (0.25, 25), (0.1, 10)])
def test_a_long_clip_is_heard_in_windows(model: AudioClassifier, hop, frames: int, aggregate: str, combine) -> None:
    clip = noise(1.8)  # 178 whole frames
    starts = [s for s in range(0, 178, frames) if s == 0 or min(178, s + 50) - (s - frames + 50) >= 5]
    pieces = [clip[s * 160 : s * 160 + SAMPLES] for s in starts]
    expected = torch.stack([scores_of(model, piece) for piece in pieces])
    windows = model.predict_windows(clip, hop=hop)
    assert [w.start for w in windows] == pytest.approx([s / 100 for s in starts])
    assert [w.end for w in windows] == pytest.approx([min(1.8, s / 100 + WINDOW) for s in starts])
    torch.testing.assert_close(torch.stack([w.scores for w in windows]), expected, atol=1e-6, rtol=0)
    got = model.predict(clip, top_k=4, hop=hop, aggregate=aggregate)
    torch.testing.assert_close(named(got), combine(expected, dim=0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("frames", "windows"), [(50, 1), (54, 1), (55, 2), (100, 2), (104, 2), (105, 3)])
def test_a_rest_below_a_tenth_of_a_window_is_left_out(model: AudioClassifier, frames: int, windows: int) -> None:
    clip = noise(((frames - 1) * 160 + 400) / RATE)
    assert len(model.predict_windows(clip)) == windows


@pytest.mark.parametrize("rate", [RATE, 44_100, 8_000])
@pytest.mark.parametrize("channels", [0, 2])
@pytest.mark.parametrize("seconds", [0.4, 2.7])
def test_a_file_and_its_samples_give_the_same(
    model: AudioClassifier, seconds: float, channels: int, rate: int, tmp_path: Path
) -> None:
    samples = noise(seconds, channels, rate)
    path = write(tmp_path / "clip.wav", samples, rate)
    expected = named(model.predict(path, top_k=4))
    for given in (samples, samples.numpy(), samples.double()):
        got = named(model.predict(given, top_k=4, sample_rate=rate))
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    assert model.predict(str(path)) == model.predict(path)


@pytest.mark.parametrize(("downmix", "heard"), [("mean", (1.0, 0.0)), ("first", (1.0, 1.0))])
def test_channels_are_mixed_as_the_model_was_trained(downmix: str, heard: tuple[float, float]) -> None:
    model, mono = classifier(downmix=downmix), noise(0.5)
    stereo = torch.stack([mono, -mono])  # their mean is silence
    expected = scores_of(model, mono * heard[1])
    torch.testing.assert_close(named(model.predict(stereo, top_k=4)), expected, atol=1e-6, rtol=0)


def test_results_do_not_depend_on_the_batch(model: AudioClassifier, tmp_path: Path) -> None:
    clips = [noise(s) for s in (0.1, 1.8, 0.5, 0.03, 3.3)]
    clips.append(write(tmp_path / "clip.wav", noise(0.9)))
    alone = torch.stack([named(model.predict(clip, top_k=4)) for clip in clips])
    for size in (1, 2, 5, 64):
        together = model.predict(clips, top_k=4, batch_size=size)
        torch.testing.assert_close(torch.stack([named(p) for p in together]), alone, atol=1e-6, rtol=0)
    assert model.predict(tuple(clips[:2]))[1] == model.predict(clips[:2])[1]


def test_a_long_file_is_streamed(model: AudioClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, heard = [], []
    original = decoding._read
    monkeypatch.setattr(decoding, "_read", lambda *a: read.append(len(heard)) or original(*a))
    path = write(tmp_path / "long.wav", noise(240))
    for excerpt in excerpts(pieces_of(path, model.feature_config), model.feature_config):
        heard.append(excerpt)
    assert len(heard) == 480
    assert all(excerpt.waveform.untyped_storage().nbytes() < 4 * 70 * RATE for excerpt in heard)
    # Four minutes in pieces of one, the next one read ahead: half of the windows are out before the last is read.
    assert read[:4] == [0, 0, 120 - 1, 240 - 1]


def test_numpy_of_any_layout(model: AudioClassifier) -> None:
    clip = noise(0.5)
    backwards = clip.flip(0).numpy()[::-1]
    assert model.predict(backwards) == model.predict(clip)


UNUSABLE = {
    "empty list": [],
    "None": None,
    "bytes of no audio": b"RIFF",
    "number": 0.5,
    "object": object(),
    "integers of no known range": torch.zeros(8000, dtype=torch.int64),
    "batch of mono clips": torch.zeros(9, 8000),
    "batch of clips with channels": torch.zeros(2, 1, 8000),
    "NaN": torch.full((8000,), math.nan),
    "no samples": torch.zeros(0),
    "too short": torch.zeros(399),
    "a list of bad ones": [torch.zeros(399), None],
    "no file": "gone.wav",
}


@pytest.mark.parametrize("audio", UNUSABLE.values(), ids=UNUSABLE)
def test_what_is_no_sound_is_refused(model: AudioClassifier, audio) -> None:
    with pytest.raises(DataError, match=r"found|no such file|not recognised"):
        model.predict(audio)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("top_k", 0),
        ("top_k", 1.5),
        ("sample_rate", 0),
        ("sample_rate", 10**9),
        ("sample_rate", "16k"),
        ("hop", 0),
        ("hop", -1.0),
        ("hop", 0.51),
        ("hop", math.nan),
        ("aggregate", "median"),
        ("batch_size", 0),
        ("patch_size", "8x51"),
    ],
)
def test_wrong_setting_is_refused_by_name(model: AudioClassifier, setting: str, value) -> None:
    with pytest.raises(ConfigError, match=setting.replace("_size", ".size").replace("batch.size", "batch_size")):
        model.predict(noise(1.0), **{setting: value})


def test_model_and_description_must_agree() -> None:
    good = classifier()
    with pytest.raises(ConfigError, match="3 labels"):
        AudioClassifier(good.config, good.feature_config, Labels.numbers(3))
    with pytest.raises(ConfigError, match="loss: found 'mae'"):
        AudioClassifier(good.config, good.feature_config, good.labels, "mae")


def test_command_names_windows_with_their_times(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = classifier("bce")
    model.save_pretrained(tmp_path / "model")
    path = write(tmp_path / "clip.wav", noise(1.0))
    command = ["predict", str(tmp_path / "model"), str(path), "--top-k", "1", "--hop", "0.25", "--precision", "fp32"]
    assert main([*command, "--windows"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    windows = model.predict_windows(path, hop=0.25)
    assert [line[1:3] for line in lines] == [["0.00", "0.50"], ["0.25", "0.75"], ["0.50", "1.00"]]
    assert [float(line[4]) for line in lines] == pytest.approx([float(w.scores.max()) for w in windows], abs=1e-4)
    assert main([*command, "--aggregate", "max"]) == 0
    _, label, score = capsys.readouterr().out.strip().split("\t")
    assert (label, float(score)) == model.predict(path, hop=0.25, aggregate="max", top_k=1)[0]._replace(
        score=pytest.approx(max(float(w.scores.max()) for w in windows), abs=1e-4)
    )
    assert main([*command, "--hop", "9"]) == 2
    assert "hop: found 9.0" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_predict_works_in_half_precision(dtype: torch.dtype) -> None:
    model = flexiast.load(Path(__file__).parents[2] / "pretrained_models" / "demo_flexible")
    clip = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    expected = model.predict(clip, 16, top_k=35)
    got = dict(model.to(dtype).predict(clip, 16, top_k=35))
    assert all(abs(got[label] - score) < 0.03 for label, score in expected)
