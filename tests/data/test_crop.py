"""Random crops of long clips: a pure function of (seed, epoch, clip), the same samples as those of the whole file."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flexiast.data import audio as decoding
from flexiast.data import crop as cropping
from flexiast.data.audio import as_float, decode
from flexiast.data.crop import Crop
from flexiast.data.dataset import ClipDataset, load_batches
from flexiast.data.manifest import Clip, Labels, Manifest
from flexiast.data.pack import pack
from flexiast.data.sampler import Draw
from flexiast.errors import DataError
from flexiast.features import FeatureConfig

FEATURES = FeatureConfig(frames=20)  # 3440 samples


def write(path: Path, samples: int, rate: int = 16_000, **options) -> Path:
    """Noise below the low-pass of any rate here."""
    slow = np.convolve(np.random.default_rng(samples).normal(0, 0.3, samples), np.ones(32) / 32, "same")
    soundfile.write(path, slow, rate, **options)
    return path


def manifest(paths: list[Path]) -> Manifest:
    return Manifest(Path("m"), tuple(Clip(path, (0,)) for path in paths), Labels.numbers(1))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
@pytest.mark.parametrize("rate", [16_000, 44_100, 8_000, 22_050])
def test_a_crop_is_that_part_of_the_whole(name: str, rate: int, tmp_path: Path) -> None:
    path = write(tmp_path / name, 3 * rate, rate)
    whole = decode(path)
    ends = () if name == "a.ogg" else (0.9999,)  # libsndfile moves Vorbis 8 ms too far on its last page
    for place in (0.0, 0.3, 0.77, *ends):
        part = decode(path, max_samples=3440, crop=Crop(place, 344))
        assert len(part) == 3440
        near = max(0, int(place * (len(whole) - 3440)) - 161)  # instants common to both rates are so far apart at most
        windows = whole[near : near + 3440 + 322].unfold(0, 3440, 1)
        assert float((windows - part).abs().amax(dim=1).min()) < 2e-3


def test_only_the_crop_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "long.wav", 16_000 * 60)
    read = []
    original = decoding._read
    monkeypatch.setattr(decoding, "_read", lambda *a, **k: read.append(original(*a, **k)) or read[-1])
    decode(path, max_samples=3440, crop=Crop(0.5, 344))
    assert sum(map(len, read)) < 3440 + 1700


def test_a_file_that_cannot_be_moved_in_is_decoded_and_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", 20_000)
    expected = decode(path, max_samples=3440, integer=True, crop=Crop(0.4, 344))
    monkeypatch.setattr(decoding, "can_seek", lambda file: False)
    assert torch.equal(decode(path, max_samples=3440, integer=True, crop=Crop(0.4, 344)), expected)
    assert not cropping.can_seek(object())


def test_a_file_that_ends_before_its_header_says_is_read_from_its_start(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path / "a.wav", 20_000)
    skipped = []
    monkeypatch.setattr(decoding, "seek", lambda file, *a: skipped.append(file.seek(19_000)) or (19_000, 0))
    assert torch.equal(decode(path, max_samples=3440, crop=Crop(0.9, 344)), decode(path, max_samples=3440))
    assert skipped


@pytest.mark.parametrize("samples", [400, 3440, 3440 + 343])
def test_clips_that_are_not_longer_by_a_tenth_stay_as_they_are(samples: int, tmp_path: Path) -> None:
    data = manifest([write(tmp_path / "a.wav", samples)])
    cropped, plain = ClipDataset(data, FEATURES, crop=True, seed=3), ClipDataset(data, FEATURES)
    for epoch in range(5):
        assert torch.equal(cropped.waveform(0, epoch), plain.waveform(0))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("packed", [False, True], ids=["files", "shards"])
def test_the_place_depends_on_seed_epoch_and_clip_alone(workers, packed, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.wav", 30_000 + i) for i in range(3)]
    data = manifest(paths)
    if packed:
        data = pack(data, tmp_path / "shards", progress=False)
    dataset = ClipDataset(data, FEATURES, replace=True, crop=True, seed=7)
    draws = [[Draw(0, 0), Draw(1, 0), Draw(0, 1)], [Draw(1, 0)], [Draw(0, 2), Draw(0, 0)]]
    first, second, third = load_batches(dataset, draws, workers)
    assert first.waveform.dtype == torch.int16
    assert torch.equal(first.waveform[1], second.waveform[0])
    assert torch.equal(first.waveform[0], third.waveform[1])
    assert not torch.equal(first.waveform[0], first.waveform[1])
    other = ClipDataset(data, FEATURES, crop=True, seed=8)
    assert not torch.equal(other.waveform(0, 0), first.waveform[0])
    for clip, waveform in ((0, first.waveform[0]), (2, third.waveform[0])):
        windows = decode(paths[clip]).unfold(0, 3440, 1)
        assert (windows == as_float(waveform)).all(dim=1).any()


def test_over_the_epochs_a_crop_is_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.linspace(0, 0.9, 40_000), 16_000, subtype="FLOAT")
    dataset = ClipDataset(manifest([path]), FEATURES, crop=True)
    starts = np.array([float(dataset.waveform(0, epoch)[0]) for epoch in range(200)]) / 0.9 * 40_000
    assert starts.min() < 1000
    assert starts.max() > 35_000
    assert abs(starts.mean() - (40_000 - 3440) / 2) < 2500


def test_a_replacement_is_cropped_too(tmp_path: Path) -> None:
    data = manifest([write(tmp_path / "0.wav", 100), write(tmp_path / "1.wav", 30_000)])
    dataset = ClipDataset(data, FEATURES, replace=True, crop=True)
    (batch,) = load_batches(dataset, [[Draw(4, 0)]], 0)
    assert batch.clips.tolist() == [1]
    assert torch.equal(batch.waveform[0], dataset.waveform(1, 4))
    with pytest.raises(DataError, match="found 100 samples"):
        dataset.waveform(0, 4)
