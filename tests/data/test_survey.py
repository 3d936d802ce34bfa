"""A look at the clips: lengths, statistics and summaries are those of the log-mel itself."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flexiast.data.audio import decode
from flexiast.data.manifest import read_manifest
from flexiast.data.statistics import measure_statistics
from flexiast.data.survey import survey
from flexiast.errors import DataError
from flexiast.features import FeatureConfig, LogMel


def test_it_sees_what_the_log_mel_says(sounds: Path) -> None:
    data, features = read_manifest(sounds / "val"), FeatureConfig()
    seen = survey(data, features, progress=False)
    statistics = measure_statistics(data, features, workers=0, progress=False)
    assert (seen.mean, seen.std) == pytest.approx((statistics.mean, statistics.std))
    log_mel = LogMel()(decode(data.clips[3].path)[None])[0]
    assert seen.frames[3] == len(log_mel)
    expected = torch.cat([log_mel.mean(dim=0), log_mel.std(dim=0, correction=0)])
    np.testing.assert_allclose(seen.summary[3], expected, atol=1e-4)


def test_unusable_clips_are_left_out_and_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "1.wav", np.random.default_rng(0).normal(size=8000) * 0.1, 16_000)
    (tmp_path / "a" / "2.wav").write_text("no sound")
    seen = survey(read_manifest(tmp_path), FeatureConfig(), progress=False)
    assert seen.clips.tolist() == [0, 2]
    assert len(seen.unusable) == 1
    assert "a/2.wav" in seen.unusable[0]


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.wav").write_text("no sound")
    with pytest.raises(DataError, match="found no usable clip"):
        survey(read_manifest(tmp_path), FeatureConfig(), progress=False)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 20), (0.95, 40), (1.0, 40)])
def test_length_that_a_share_of_the_clips_does_not_exceed(share: float, expected: int, sounds: Path) -> None:
    seen = survey(read_manifest(sounds / "val"), FeatureConfig(), progress=False)
    object.__setattr__(seen, "frames", np.array([10, 10, 20, 40]))
    assert seen.length(share) in (expected, 10 if share == 0.5 else expected)
