"""A look at the clips: lengths, statistics and summaries are those of the log-mel itself."""

import os
import signal
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flexiast.data import statistics
from flexiast.data.audio import decode
from flexiast.data.manifest import Manifest, read_manifest
from flexiast.data.statistics import measure_statistics
from flexiast.data.survey import survey
from flexiast.errors import ConfigError, DataError
from flexiast.features import FeatureConfig, LogMel
from tests.few_files import few_files


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


def see(data: Manifest, workers: int, timeout: float = 0) -> object:
    return survey(data, FeatureConfig(), workers, progress=False, timeout=timeout)


def measure(data: Manifest, workers: int, timeout: float = 0) -> object:
    return measure_statistics(data, FeatureConfig(), workers, progress=False, timeout=timeout)


@pytest.mark.parametrize(("look", "name"), [(see, r"data\.workers"), (measure, "workers")])
def test_too_few_open_files_are_named_before_the_clips_are_read(look, name: str, sounds: Path) -> None:
    data = read_manifest(sounds / "val")
    with few_files(64), pytest.raises(ConfigError, match=rf"^{name}: found a limit of 64 open files for 8 decoding"):
        look(data, 8)


@pytest.mark.slow
@pytest.mark.parametrize(("look", "name"), [(see, "data.workers"), (measure, "workers")])
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGSTOP), "timed out after 1 seconds"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by signal SIGKILL"),
        (lambda: np.empty(1 << 50), "Unable to allocate.*; memory has run out: fewer NAME or"),
    ],
    ids=["stopped", "killed", "memory"],
)
def test_what_happens_to_a_worker_ends_in_one_line(look, name, act, message: str, sounds: Path, monkeypatch) -> None:
    data, pieces = read_manifest(sounds / "val"), statistics.log_mel_pieces

    def spoiled(path: Path, *rest: object) -> Iterator[torch.Tensor]:
        if path == data.clips[3].path:
            act()
        yield from pieces(path, *rest)  # type: ignore[arg-type]

    for module in (import_module("flexiast.data.survey"), statistics):
        monkeypatch.setattr(module, "log_mel_pieces", spoiled)
    message = message.replace("NAME", name)
    where = "" if "memory" in message else f".* while on .*{data.clips[3].path}"
    with pytest.raises(DataError, match=rf"^{data.source}: a decoding process failed \(.*{message}{where}"):
        look(data, 2, timeout=1)
