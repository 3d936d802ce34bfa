"""A model of clips at native length hears each without padding, however it is asked; other models are as before."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import flexiast
from flexiast import AudioClassifier, FeatureConfig, FlexiASTConfig, PatchSize
from flexiast.classifier.cascade import confidence
from flexiast.classifier.events import Progress, Scan, scan
from flexiast.cli import main
from flexiast.data.manifest import Labels, read_manifest
from flexiast.errors import CheckpointError, ConfigError
from flexiast.traintest.evaluate import describe_clips, sweep
from flexiast.traintest.objective import heard_by

LENGTHS = (5_000, 9_000, 16_000, 900, 12_345)
"""Samples: the window has 15,600; 900 are 4 frames, less than any patch here."""


def model(length: str = "native") -> AudioClassifier:
    """Untrained, its blocks not the identity."""
    torch.manual_seed(0)
    features = FeatureConfig(frames=96, length=length)
    network = FlexiASTConfig(3, frames=96, width=16, depth=2, heads=2, pool="mean", pad_value=features.pad_value)
    made = AudioClassifier(network, features, Labels.numbers(3)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(samples, generator=generator) for samples in LENGTHS]


def own(made: AudioClassifier, clip: torch.Tensor, least: int) -> torch.Tensor:
    """Normalised log-mel (1, T, F) of a clip alone, padded to a whole patch at least."""
    features = made.feature_config
    log_mel = features.normalise(made.front_end.log_mel(clip[None, : features.samples]))
    missing = max(0, least - log_mel.shape[1])
    return torch.nn.functional.pad(log_mel, (0, 0, 0, missing), value=features.pad_value)


@torch.no_grad()
def expected_scores(made: AudioClassifier, patch: int) -> torch.Tensor:
    return torch.cat([made.probabilities(made(own(made, clip, patch), patch)) for clip in clips()])


@pytest.mark.parametrize("patch", [8, 16, 48])
def test_scores_are_those_of_the_clip_without_padding(patch: int) -> None:
    made = model()
    windows = made.predict_windows(clips(), patch)
    torch.testing.assert_close(torch.stack([one[0].scores for one in windows]), expected_scores(made, patch))


def test_a_window_model_pads_and_hears_something_else() -> None:
    padded = torch.stack([one[0].scores for one in model("window").predict_windows(clips(), 16)])
    difference = (padded - expected_scores(model(), 16)).abs().amax(dim=1)
    assert difference[2] < 1e-6  # as long as the window
    assert difference[[0, 1, 3, 4]].min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("length", ["native", "window"])
def test_with_a_longer_window_a_clip_is_heard_whole_in_one_pass(length: str) -> None:
    made, generator = model(length), torch.Generator().manual_seed(2)
    long = 0.1 * torch.randn(40_000, generator=generator)
    whole = made.feature_config.normalise(made.front_end.log_mel(long[None]))  # 248 frames, the window has 96
    (heard,) = made.predict_windows(long, 16, window=3.0)
    torch.testing.assert_close(heard.scores[None], made.probabilities(made([whole[0]], 16)))
    assert (heard.start, heard.end) == (0.0, 2.5)
    apart = [made.predict_windows(one, 16, window=3.0)[0].scores for one in (*clips(), long)]
    together = [one[0].scores for one in made.predict_windows([*clips(), long], 16, window=3.0)]
    torch.testing.assert_close(torch.stack(together), torch.stack(apart), atol=1e-5, rtol=1e-4)
    as_before = [one[0].scores for one in made.predict_windows(clips(), 16)]
    for number in (0, 1, 3, 4):  # shorter than the model's window
        torch.testing.assert_close(together[number], as_before[number], atol=1e-5, rtol=1e-4)


def test_a_longer_window_splits_what_is_longer_still() -> None:
    clip = 0.1 * torch.randn(64_000, generator=torch.Generator().manual_seed(2))
    windows = model().predict_windows(clip, 16, window=1.5)
    assert [round(one.start, 2) for one in windows] == [0.0, 1.5, 3.0]
    assert len(model().predict_windows(clip, 16, window=1.5, hop=0.5)) == 6


@pytest.mark.parametrize("window", [0.5, float("nan"), -1, 1e9, "2"])
def test_a_window_shorter_than_the_models_or_without_end_is_refused(window: object) -> None:
    with pytest.raises(ConfigError, match=r"window: found .*, expected seconds from the model's own 0\.96 to 1000"):
        model().predict(clips()[0], 16, window=window)


def test_the_command_takes_a_longer_window(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = model()
    made.save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "long.wav", (0.1 * torch.randn(40_000)).numpy(), 16_000)
    command = ["predict", str(tmp_path / "model"), str(tmp_path / "long.wav"), "--precision", "fp32", "--json"]
    assert main([*command, "--window", "3"]) == 0
    (best,) = made.predict(tmp_path / "long.wav", top_k=1, window=3.0)
    shown = json.loads(capsys.readouterr().out.splitlines()[0])
    assert shown["predictions"][0]["score"] == pytest.approx(best.score, abs=1e-4)
    assert main([*command, "--window", "0.5"]) == 2
    assert "window: found 0.5, expected seconds from the model's own 0.96" in capsys.readouterr().err


def test_evaluation_and_a_checkpoint_keep_to_native_length(tmp_path: Path) -> None:
    made, files = model(), tmp_path / "sounds"
    for number, clip in enumerate(clips()):
        path = files / str(number % 3) / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, clip.numpy(), 16_000, subtype="FLOAT")
    made.save_pretrained(tmp_path / "model")
    loaded = flexiast.load(tmp_path / "model")
    assert loaded.feature_config == made.feature_config
    data = read_manifest(files)
    (result,) = sweep(
        {"": loaded}, data, [PatchSize(16, 16)], batch_size=2, workers=0, precision="fp32", progress=False
    )
    order = [int(Path(str(clip.path)).stem) for clip in data.clips]
    np.testing.assert_allclose(result.scores, expected_scores(made, 16)[order].numpy(), atol=1e-5)
    assert describe_clips(result, loaded.feature_config)[0].endswith("0.96 s: heard at their own length")


def test_a_cascade_hears_the_uncertain_clips_again_at_their_own_length() -> None:
    made = model()
    coarse, fine = expected_scores(made, 48), expected_scores(made, 16)
    leads = confidence(coarse.numpy(), "ce")
    between = float(np.median(leads)) + 1e-6
    assert 0 < (leads < between).sum() < len(leads)
    for clip, answer in enumerate(made.predict(clips(), cascade=[48, 16], threshold=between, top_k=3)):
        sure = bool(leads[clip] >= between)
        wanted = coarse[clip] if sure else (coarse[clip] + fine[clip]) / 2
        scores = {int(one.label): one.score for one in answer}
        np.testing.assert_allclose([scores[number] for number in range(3)], wanted, atol=1e-5)
        assert len(answer.patch_sizes) == 2 - sure


@torch.no_grad()
def test_embeddings_and_frames_are_those_of_the_clip_without_padding() -> None:
    made = model()
    whole, last = made.embed(clips(), 16), made.embed(clips(), 16, layer=-1)
    over_time = made.embed(clips(), 16, time=True)
    for number, clip in enumerate(clips()):
        log_mel = own(made, clip, 16)
        torch.testing.assert_close(whole[number], made.features(log_mel, 16)[0], atol=1e-5, rtol=1e-4)
        columns = made.encode(log_mel, 16)[0, 1:].unflatten(0, (8, -1)).mean(dim=0)
        torch.testing.assert_close(over_time[number].vectors, columns, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(last[number], columns.mean(dim=0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(made.frames(clip, 16).embeddings, made.columns(log_mel, 16)[0], atol=1e-5, rtol=1e-4)


def test_checkpoints_from_before_pad_to_the_window() -> None:
    checkpoint = model("window").checkpoint()
    assert "length" not in checkpoint.metadata["features"]  # nor is it written now
    assert AudioClassifier.from_checkpoint(checkpoint, "old").feature_config.length == "window"


def test_another_length_is_refused_by_name() -> None:
    message = "features.length: found 'long', expected one of window, native"
    with pytest.raises(ConfigError, match=message):
        FeatureConfig(length="long")
    checkpoint = model().checkpoint()
    checkpoint.metadata["features"]["length"] = "long"
    with pytest.raises(CheckpointError, match=message):
        AudioClassifier.from_checkpoint(checkpoint, "broken")


def test_a_scan_for_events_hears_a_short_recording_without_padding() -> None:
    made, clip = model(), clips()[0]
    patch = PatchSize(16, 16)
    every = Scan(coarse=patch, threshold=0.0, release=0.0, smooth=1)
    found = {event.label: event.score for event in scan(made, [clip], every, Progress())}
    (expected,) = expected_scores(made, 16)[:1]
    assert found == pytest.approx(dict(zip(made.labels.names, expected.tolist(), strict=True)), abs=1e-6)


def test_a_teacher_of_native_length_hears_no_padding() -> None:
    made, clip = model(), clips()[0]
    (heard,) = heard_by(made, clip[None], torch.tensor([len(clip)]), made.feature_config.sample_rate)
    torch.testing.assert_close(heard, own(made, clip, 0)[0])
