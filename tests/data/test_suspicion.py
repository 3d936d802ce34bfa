"""Clips that decode and look wrong are told with their reason and used; those that cannot be right are refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flexiast.cli import main
from flexiast.data.audio import check_audio, decode, decode_pieces
from flexiast.data.dataset import ClipDataset, load_batches, sequential_batches
from flexiast.data.manifest import Clip, Labels, Manifest
from flexiast.errors import DataError
from flexiast.features import FeatureConfig
from tests.classifier.test_audio_classifier import classifier

RATE = 16_000
NOISE = np.random.default_rng(0).normal(0, 0.1, RATE)
OTHER = np.random.default_rng(1).normal(0, 0.1, RATE)

WRONG = {
    "samples of up to 1": (NOISE * 32768, "FLOAT"),
    "2 channels in opposite phase": (np.stack([NOISE, -NOISE], axis=1), "FLOAT"),
    "2 channels in opposite phase, which cancel": (np.stack([NOISE, -0.95 * NOISE], axis=1), "PCM_16"),
    r"digital silence \(every sample is 0\)": (np.zeros(RATE), "PCM_16"),
    r"digital silence \(every sample is 0\.5\)": (np.full(RATE, 0.5), "FLOAT"),
    "DC offset of 0.4": (NOISE + 0.4, "PCM_16"),
    r"DC offset of -0\.(4|399)": (np.stack([NOISE - 0.4] * 2, axis=1), "FLOAT"),
}
RIGHT = {
    "noise": (NOISE, "PCM_16"),
    "stereo": (np.stack([NOISE, OTHER], axis=1), "PCM_16"),
    "one live channel": (np.stack([NOISE, 0 * NOISE], axis=1), "FLOAT"),
    "64 microphones": (np.random.default_rng(2).normal(0, 0.1, (RATE, 64)), "FLOAT"),
    "quiet": (NOISE * 1e-3, "PCM_16"),
    "loud": (NOISE * 15, "FLOAT"),
    "a click after silence": (np.append(np.zeros(RATE), 0.5), "PCM_16"),
}


def suspicions(path: Path, samples: np.ndarray, subtype: str, **options) -> list[str]:
    soundfile.write(path, samples, RATE, subtype=subtype)
    found: list[str] = []
    got = decode(path, suspicions=found, **options)
    assert torch.equal(got, decode(path, **options))
    return found


@pytest.mark.parametrize("reason", WRONG)
def test_what_looks_wrong_is_said(reason: str, tmp_path: Path) -> None:
    (found,) = suspicions(tmp_path / "a.wav", *WRONG[reason], integer=True)
    assert re.match(reason, found), found


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_said_of_ordinary_clips(name: str, tmp_path: Path) -> None:
    assert suspicions(tmp_path / "a.wav", *RIGHT[name], integer=True) == []


def test_the_first_channel_alone_does_not_cancel_but_may_be_the_silent_one(tmp_path: Path) -> None:
    assert suspicions(tmp_path / "a.wav", np.stack([NOISE, -NOISE], axis=1), "FLOAT", downmix="first") == []
    (found,) = suspicions(tmp_path / "a.wav", np.stack([0 * NOISE, NOISE], axis=1), "FLOAT", downmix="first")
    assert "a first channel that is almost silent beside the other 1" in found


def test_only_what_was_read_is_looked_at(tmp_path: Path) -> None:
    samples = np.append(np.zeros(2 * RATE), NOISE)
    (found,) = suspicions(tmp_path / "a.wav", samples, "PCM_16", max_samples=RATE)
    assert "digital silence" in found


@pytest.mark.parametrize("level", [1e7, 1e19, 1e30])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_of_no_possible_scale_are_unusable(level: float, channels: int, tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    samples = np.stack([level * np.sign(NOISE) * (-1) ** channel for channel in range(channels)], axis=1)
    soundfile.write(path, samples, RATE, subtype="FLOAT")  # in stereo the mean is 0
    for read in (decode, lambda p: list(decode_pieces(p)), check_audio):
        with pytest.raises(DataError, match=rf"^{path}: found a sample of magnitude 1e\+\d\d, expected about 1"):
            read(path)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_name_the_clips_that_look_wrong_and_hold_them(workers: int, tmp_path: Path) -> None:
    clips = []
    for name, samples in (("good", NOISE), ("silent", 0 * NOISE), ("scaled", NOISE * 32768)):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype="FLOAT")
        clips.append(Clip(tmp_path / f"{name}.wav", (0,)))
    dataset = ClipDataset(Manifest(Path("m"), tuple(clips), Labels.numbers(1)), FeatureConfig(frames=98))
    first, second = load_batches(dataset, sequential_batches(3, 2), workers)
    assert (first.clips.tolist(), second.clips.tolist()) == ([0, 1], [2])
    assert [(f.clip, f.reason.split(": ")[0]) for f in first.suspicions] == [(1, str(clips[1].path))]
    assert "digital silence" in first.suspicions[0].reason
    assert [f.clip for f in second.suspicions] == [2]
    assert first.failures == second.failures == []


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and clips of which one is silent and one in opposite phase."""
    root = tmp_path_factory.mktemp("odd")
    classifier().save_pretrained(root / "model")
    rows = ["path,label"]
    for number, (name, samples) in enumerate(
        (("good", 0.1 * NOISE), ("silent", 0 * NOISE), ("phase", np.stack([0.1 * NOISE, -0.1 * NOISE], axis=1)))
    ):
        soundfile.write(root / f"{name}.wav", samples, RATE, subtype="FLOAT")
        rows.append(f"{name}.wav,{classifier().labels.names[number]}")
    (root / "list.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize(
    "command",
    ["predict {}/model {}/list.csv", "measure {}/model --data {}/list.csv --patch-sizes 16 --out {}/measured"
     " --overwrite --labels {}/model/labels.csv", "stats {}/list.csv", "embed {}/model {}/list.csv --out {}/e.npz"
     " --overwrite"],
)  # fmt: skip
@pytest.mark.parametrize("workers", ["0", "1"])
def test_every_command_says_once_which_clips_look_wrong(command: str, workers: str, odd: Path, caplog) -> None:
    classifier().labels.write(odd / "model" / "labels.csv")
    assert main([*command.replace("{}", str(odd)).split(), "--workers", workers]) == 0
    (line,) = [r.getMessage() for r in caplog.records if "used all the same" in r.getMessage()]
    assert "2 clips look wrong and are used all the same: " in line
    assert "silent.wav: digital silence" in line
    assert "phase.wav: 2 channels in opposite phase" in line
    assert "good.wav" not in line
