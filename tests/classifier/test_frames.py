"""Scores and embeddings for each time column of patches."""

import pytest
import torch

from flexiast.errors import ConfigError, DataError
from tests.classifier.test_audio_classifier import classifier, noise


@pytest.mark.parametrize(("patch", "resolution", "columns"), [("16x8", 0.08, 7), ("8x10", 0.1, 5), (16, 0.16, 4)])
def test_a_column_for_each_step_of_the_patch(patch, resolution: float, columns: int) -> None:
    model = classifier()
    got = model.frames(noise(0.5), patch)
    assert got.start.tolist() == pytest.approx([resolution * i for i in range(columns)])
    assert float(got.end[-1]) == pytest.approx(0.5)
    assert got.scores.shape == (columns, 4)
    assert got.embeddings.shape == (columns, 16)
    assert got.scores.sum(dim=1) == pytest.approx(1.0)
    expected = model.probabilities(model.head(model.head_norm(got.embeddings)))
    torch.testing.assert_close(got.scores, expected, atol=1e-6, rtol=0)
    assert repr(got) == f"Frames({columns} columns of 4 classes, 0 to 0.50 s)"


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
