"""Normalisation statistics: equal to NumPy over all real frames at once, whatever the workers and clip lengths."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flexiast.cli import main
from flexiast.data import statistics
from flexiast.data.audio import decode, decode_pieces
from flexiast.data.clips import Clips
from flexiast.data.manifest import Clip, Labels, Manifest, write_manifest
from flexiast.data.statistics import Moments, measure_statistics
from flexiast.errors import DataError
from flexiast.features import FeatureConfig, LogMel

FEATURES = FeatureConfig(frames=20, bins=32)
CLIPS = {  # name: (sample rate, channels, seconds)
    "a.wav": (16_000, 1, 0.03),  # one frame
    "b.flac": (16_000, 2, 3.0),  # longer than the 20 frames of FEATURES
    "c.wav": (44_100, 1, 1.5),
    "d.ogg": (22_050, 2, 0.7),
    "e.wav": (8000, 1, 2.2),
}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Five clips of noise, of different length, loudness, format, rate and channels."""
    rng = np.random.default_rng(0)
    for number, (name, (rate, channels, seconds)) in enumerate(CLIPS.items(), start=1):
        soundfile.write(tmp_path / name, rng.normal(0, 0.03 * number, (int(rate * seconds), channels)), rate)
    return Manifest(Path("m"), tuple(Clip(tmp_path / name, (0,)) for name in CLIPS), Labels.numbers(1))


def all_frames(manifest: Manifest, features: FeatureConfig) -> np.ndarray:
    """Log-mel (T, F) of all clips, one after the other, in float64."""
    log_mel = LogMel(features.sample_rate, features.bins)
    clips = [decode(clip.path, features.sample_rate, features.downmix) for clip in manifest.clips]
    return np.concatenate([log_mel(clip[None])[0].double().numpy() for clip in clips])


@pytest.mark.parametrize(
    "features", [FEATURES, FeatureConfig(downmix="first"), FeatureConfig(sample_rate=8000, bins=16)]
)
def test_equals_numpy_over_all_frames(features, manifest):
    found, frames = measure_statistics(manifest, features, workers=0, progress=False), all_frames(manifest, features)
    assert found.mean == pytest.approx(frames.mean(), abs=1e-6)
    assert found.std == pytest.approx(frames.std(), abs=1e-6)
    assert (found.frames, found.clips) == (len(frames), 5)


def test_does_not_depend_on_workers(manifest):
    alone, shared = (measure_statistics(manifest, FEATURES, workers, progress=False) for workers in (0, 2))
    assert alone == shared  # to the bit: merged in the order of the manifest, each clip on one thread


def test_clips_longer_than_a_piece_keep_every_frame(manifest, monkeypatch):
    def in_seconds(path, sample_rate, downmix, **how):
        return decode_pieces(path, sample_rate, downmix, seconds=1, **how)

    whole = measure_statistics(manifest, FEATURES, workers=0, progress=False)
    monkeypatch.setattr(statistics, "decode_pieces", in_seconds)
    pieces = measure_statistics(manifest, FEATURES, workers=0, progress=False)
    assert pieces.frames == whole.frames
    assert pieces.mean == pytest.approx(whole.mean, abs=1e-6)
    assert pieces.std == pytest.approx(whole.std, abs=1e-6)


def test_moments_stay_exact_far_from_zero():
    # Sums of squares would lose the deviations here: 1e16 against 1.
    values = 1e8 + np.random.default_rng(0).normal(size=(50, 100))
    total = sum((Moments.of(torch.tensor(row)) for row in values), Moments())
    assert total.count == 5000
    assert total.mean == pytest.approx(values.mean(), rel=1e-12)
    assert math.sqrt(total.squares / total.count) == pytest.approx(values.std(), rel=1e-6)
    assert Moments() + Moments() == Moments.of(torch.zeros(0))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"no audio", None], ids=["empty", "text", "missing"])
def test_unusable_clip_is_named(workers, content, manifest):
    path = manifest.clips[3].path
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path}: "):
        measure_statistics(manifest, FEATURES, workers, progress=False)


def test_clip_shorter_than_a_window_is_named(manifest):
    soundfile.write(manifest.clips[0].path, np.ones(399) / 2, 16_000)
    with pytest.raises(DataError, match=f"^{manifest.clips[0].path}: found no whole window"):
        measure_statistics(manifest, FEATURES, workers=0, progress=False)


def test_so_many_clips_may_be_unusable(manifest, caplog):
    manifest.clips[3].path.write_bytes(b"no audio")
    found = measure_statistics(manifest, FEATURES, workers=0, progress=False, max_bad=0.2)
    rest = dataclasses.replace(manifest, clips=Clips.of([*manifest.clips[:3], *manifest.clips[4:]]))
    assert found == measure_statistics(rest, FEATURES, workers=0, progress=False)
    assert caplog.text.count("left out: ") == 1
    assert str(manifest.clips[3].path) in caplog.text
    manifest.clips[4].path.write_bytes(b"no audio")
    with pytest.raises(DataError, match=r"2 of its 5 clips are unusable, expected at most 1 .*e\.wav: "):
        measure_statistics(manifest, FEATURES, workers=0, progress=False, max_bad=0.2)


def test_silence_has_no_statistics(manifest):
    soundfile.write(manifest.clips[0].path, np.zeros(16_000), 16_000)
    silent = dataclasses.replace(manifest, clips=manifest.clips[:1])
    with pytest.raises(DataError, match="m: every frame of its 1 clips is alike"):
        measure_statistics(silent, FEATURES, workers=0, progress=False)


# The command ---------------------------------------------------------------------------------------------------


def test_command_prints_and_writes_the_statistics(manifest, tmp_path, capsys):
    write_manifest(tmp_path / "m.json", [(name, "x,y") for name in CLIPS])
    command = ["stats", str(tmp_path / "m.json"), "--bins", "32", "--workers", "0", "--out", str(tmp_path / "s.json")]
    assert main(command) == 0
    features = dataclasses.replace(FEATURES, resampler="soxr")  # as a new model has it
    expected = measure_statistics(manifest, features, workers=0, progress=False)
    first, second, *summary = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in summary] == ["written", "clips", "time"]
    numbers = dict(part.split(" ") for part in first.split(", "))
    assert float(numbers["mean"]) == pytest.approx(expected.mean, abs=1e-6)
    assert float(numbers["std"]) == pytest.approx(expected.std, abs=1e-6)
    assert (numbers["frames"], numbers["clips"]) == (str(expected.frames), "5")
    assert second == f"--features.bins 32 --data.mean {numbers['mean']} --data.std {numbers['std']}"
    assert json.loads((tmp_path / "s.json").read_text()) == dataclasses.asdict(expected)


def test_command_goes_past_a_bad_clip_and_says_so(manifest, tmp_path, capsys):
    (tmp_path / "e.wav").write_bytes(b"no audio")
    (tmp_path / "m.csv").write_text("path,label\n" + "".join(f"{name},x\n" for name in CLIPS))
    assert main(["stats", str(tmp_path / "m.csv"), "--workers", "0"]) == 0
    output = capsys.readouterr()
    assert "clips 4\n" in output.out
    assert "left out  1 of 5 clips, which cannot be used" in output.out
    assert f"left out: {tmp_path / 'e.wav'}: not readable as audio" in output.err
    assert main(["stats", str(tmp_path / "m.csv"), "--workers", "0", "--max-bad", "0"]) == 2
    assert "e.wav: not readable as audio" in capsys.readouterr().err


def test_command_takes_folders_roots_and_csv(manifest, tmp_path, capsys):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "m.csv").write_text("path,label\na.wav,x\nb.flac,y\n")
    assert main(["stats", str(tmp_path / "csv" / "m.csv"), "--root", str(tmp_path), "--workers", "0"]) == 0
    assert "clips 2" in capsys.readouterr().out
    (tmp_path / "folder" / "x").mkdir(parents=True)
    (tmp_path / "c.wav").rename(tmp_path / "folder" / "x" / "c.wav")
    assert main(["stats", str(tmp_path / "folder"), "--workers", "0"]) == 0
    assert "clips 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{tmp}/none.json"], "none.json: not readable as a manifest"),
        (["{tmp}/m.csv"], "gone.wav); say with --root which folder the paths start in"),
        (["{tmp}/m.csv", "--workers", "-1"], "workers: found -1"),
        (["{tmp}/m.csv", "--bins", "0"], "features.bins: found 0"),
        (["{tmp}/good.csv", "--out", "{tmp}/a.wav/s.json"], "a.wav is not writable"),
    ],
)
def test_a_mistake_gets_one_line(options, message, manifest, tmp_path, capsys):
    (tmp_path / "m.csv").write_text("path,label\ngone.wav,x\n")
    (tmp_path / "good.csv").write_text("path,label\nb.flac,x\n")
    command = ["stats", *(option.replace("{tmp}", str(tmp_path)) for option in options)]
    assert main([*command, *([] if "--workers" in command else ["--workers", "0"])]) == 2
    *_, last = capsys.readouterr().err.strip().splitlines()
    assert message in last
    assert "Traceback" not in last
