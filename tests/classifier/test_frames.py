"""Scores and embeddings for each time column of patches."""

import pytest
import torch

from flexiast import AudioClassifier, FeatureConfig, FlexiASTConfig, PatchSize
from flexiast.classifier.events import Progress, Scan, scan
from flexiast.data.labels import Labels
from flexiast.errors import ConfigError, DataError
from tests.classifier.test_audio_classifier import classifier, noise


@pytest.mark.parametrize(("patch", "resolution", "columns"), [("16x8", 0.08, 6), ("8x10", 0.1, 5), (16, 0.16, 3)])
def test_a_column_for_each_step_of_the_patch(patch, resolution: float, columns: int) -> None:
    model = classifier()
    got = model.frames(noise(0.5), patch)
    assert got.start.tolist() == pytest.approx([resolution * i for i in range(columns)])
    assert 0.5 - resolution < float(got.end[-1]) <= 0.5  # a column of padding alone is left out
    assert got.scores.shape == (columns, 4)
    assert got.embeddings.shape == (columns, 16)
    assert got.scores.sum(dim=1) == pytest.approx(1.0)
    expected = model.probabilities(model.head(model.head_norm(got.embeddings)))
    torch.testing.assert_close(got.scores, expected, atol=1e-6, rtol=0)
    assert repr(got) == f"Frames({columns} columns of 4 classes, 0 to {float(got.end[-1]):.2f} s)"


def test_one_column_that_is_the_whole_window_is_the_clip_itself() -> None:
    model, clip = classifier(), noise(0.5)
    log_mel = model.front_end(clip[None])
    with torch.no_grad():
        torch.testing.assert_close(model.columns(log_mel, "8x50")[:, 0], model.features(log_mel, "8x50"))


def test_a_long_clip_goes_on_in_time_and_a_short_one_ends_where_it_ends() -> None:
    model = classifier()
    got = model.frames(noise(1.2), "16x10", batch_size=2)
    assert got.start.tolist() == pytest.approx([0.1 * i for i in range(12)], abs=1e-5)
    assert len(model.frames(noise(0.25), "16x10").start) == 3


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError):
        classifier().frames(noise(0.5), "8x51")
    with pytest.raises(DataError):
        classifier().frames("gone.wav")


def test_times_are_right_for_another_hop() -> None:
    """20 ms from frame to frame: columns of 8 frames are 160 ms apart, in frames, embeddings and events alike."""
    features = FeatureConfig(frames=48, window_ms=40, hop_ms=20)
    labels = Labels.numbers(4)
    model = AudioClassifier(FlexiASTConfig(4, frames=48, width=16, depth=2, heads=2), features, labels)
    clip = noise(0.9)
    got, embedded = model.frames(clip, "16x8"), model.embed(clip, "16x8", time=True)
    assert got.start.tolist() == pytest.approx([0.16 * i for i in range(6)])
    torch.testing.assert_close(embedded.starts, got.start)
    torch.testing.assert_close(embedded.ends, got.end)
    done = Progress()
    always = Scan(coarse=PatchSize(16, 16), threshold=0.0, release=0.0)
    events = list(scan(model, [noise(3.0)], always, done))
    assert done.windows == 10  # of 0.96 s, one every 0.24 s
    assert [event.end for event in events] == pytest.approx([3.0] * 4)
