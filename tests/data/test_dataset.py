"""Batches of clips: padding, targets, order, and errors that come through worker processes whole."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flexiast.data.audio import decode
from flexiast.data.dataset import Batch, ClipDataset, load_batches, sequential_batches
from flexiast.data.manifest import Clip, Labels, Manifest, read_manifest
from flexiast.data.pack import pack
from flexiast.data.sampler import BatchSchedule, Draw
from flexiast.errors import DataError
from flexiast.features import FeatureConfig

LENGTHS = (400, 2000, 3000, 9000, 1000)
FEATURES = FeatureConfig(frames=20)  # 19 * 160 + 400 = 3440 samples


@pytest.fixture
def dataset(tmp_path) -> ClipDataset:
    """Five clips of different lengths, clip i holding the value (i + 1) / 10, in three classes."""
    clips = []
    for i, length in enumerate(LENGTHS):
        soundfile.write(tmp_path / f"{i}.wav", np.full(length, (i + 1) / 10), 16_000, subtype="FLOAT")
        clips.append(Clip(tmp_path / f"{i}.wav", (0, 2) if i == 1 else (i % 3,)))
    return ClipDataset(Manifest(Path("m"), tuple(clips), Labels.numbers(3)), FEATURES)


@pytest.fixture
def recordings(tmp_path) -> Manifest:
    """Three clips of 16-bit PCM, mono, at 16 kHz, then three of which one of these is not so; noise in two classes."""
    rng = np.random.default_rng(0)
    for name, samples, rate, channels, subtype in (
        ("a/0.wav", 2000, 16_000, 1, "PCM_16"),
        ("a/1.flac", 9000, 16_000, 1, "PCM_16"),
        ("a/2.wav", 3000, 16_000, 1, "PCM_16"),
        ("b/3.wav", 3000, 16_000, 1, "FLOAT"),
        ("b/4.wav", 9000, 44_100, 1, "PCM_16"),
        ("b/5.wav", 5000, 16_000, 2, "PCM_16"),
    ):
        path = tmp_path / "recordings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-1, 1, (samples, channels)), rate, subtype=subtype)
    return read_manifest(tmp_path / "recordings")


def assert_as_decoded(batch: Batch, clips: Manifest) -> None:
    """What a device gets of the batch is to the bit what decoding to floats gives."""
    waveform, lengths, targets = batch.on(torch.device("cpu"))
    assert waveform.dtype == torch.float32
    expected = torch.zeros(len(batch.clips), FEATURES.samples)
    for row, clip in enumerate(batch.clips):
        samples = decode(clips.clips[clip].path, max_samples=FEATURES.samples)
        expected[row, : len(samples)] = samples
        assert lengths[row] == len(samples)
    assert torch.equal(waveform, expected)
    assert torch.equal(targets, batch.targets)


def test_clips_are_padded_with_zeros_or_cut(dataset):
    (batch,) = load_batches(dataset, sequential_batches(5, 8), workers=0)
    assert batch.waveform.shape == (5, 3440)
    assert batch.lengths.tolist() == [400, 2000, 3000, 3440, 1000]
    for i, (waveform, length) in enumerate(zip(batch.waveform, batch.lengths, strict=True)):
        torch.testing.assert_close(waveform[:length], torch.full((length,), (i + 1) / 10))
        assert not waveform[length:].any()


def test_targets_hold_every_class_of_a_clip(dataset):
    (batch,) = load_batches(dataset, [[Draw(3, 1), Draw(4, 2)]], workers=0)
    assert batch.targets.tolist() == [[1, 0, 1], [0, 0, 1]]
    assert batch.epochs.tolist() == [3, 4]
    assert batch.clips.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("clips", "size", "expected"), [(5, 2, [[0, 1], [2, 3], [4]]), (4, 4, [[0, 1, 2, 3]]), (2, 9, [[0, 1]])]
)
def test_sequential_batches_hold_every_clip_in_order(clips, size, expected):
    assert [[draw.clip for draw in batch] for batch in sequential_batches(clips, size)] == expected


def test_workers_do_not_change_the_batches(dataset):
    def batches(workers: int):
        return list(load_batches(dataset, BatchSchedule(5, 2, seed=1).batches(0, 6), workers))

    alone, shared = batches(0), batches(2)
    assert len(alone) == len(shared) == 6
    for one, other in zip(alone, shared, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:5], other[:5], strict=True))
        assert one.failures == other.failures == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unusable_clip_is_left_out_and_named(workers, dataset):
    path = dataset.manifest.clips[3].path
    path.write_bytes(b"no audio")
    batches = list(load_batches(dataset, sequential_batches(5, 2), workers))
    assert [batch.clips.tolist() for batch in batches] == [[0, 1], [2], [4]]
    (failure,) = batches[1].failures
    assert failure.clip == 3
    assert failure.reason.startswith(f"{path}: not readable as audio")


@pytest.mark.parametrize("workers", [0, 2])
def test_in_training_another_clip_always_the_same_takes_its_place(workers, dataset):
    dataset.manifest.clips[3].path.write_bytes(b"no audio")
    dataset.replace = True
    schedule = [[Draw(0, 3), Draw(0, 1)], [Draw(1, 3), Draw(1, 0)], [Draw(2, 3), Draw(2, 0)]]
    batches = list(load_batches(dataset, schedule, workers))
    assert all(len(batch.waveform) == 2 for batch in batches)
    substitutes = [int(batch.clips[0]) for batch in batches]
    assert 3 not in substitutes
    assert substitutes == [int(batch.clips[0]) for batch in load_batches(dataset, schedule, 0)]
    for batch, clip in zip(batches, substitutes, strict=True):
        assert batch.targets[0, dataset.manifest.clips[clip].classes[0]] == 1


def test_where_no_clip_is_usable_the_batch_stays_short(dataset):
    for clip in dataset.manifest.clips:
        clip.path.write_bytes(b"no audio")
    dataset.replace = True
    (batch,) = load_batches(dataset, [[Draw(0, 0), Draw(0, 1)]], 0)
    assert len(batch.waveform) == 0
    assert {failure.clip for failure in batch.failures} == {0, 1, 2, 3, 4}


def test_clip_shorter_than_a_window_is_refused(dataset):
    path = dataset.manifest.clips[0].path
    soundfile.write(path, np.zeros(399), 16_000)
    with pytest.raises(DataError, match=f"{path}: found 399 samples"):
        dataset.waveform(0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("packed", [False, True], ids=["files", "shards"])
def test_sixteen_bit_clips_are_handed_over_as_integers(packed, workers, recordings, tmp_path):
    data = pack(recordings, tmp_path / "shards", progress=False) if packed else recordings
    schedule = [[Draw(0, clip) for clip in clips] for clips in ((0, 1), (2,), (0, 3), (4, 1), (2, 5), (3, 4, 5))]
    batches = list(load_batches(ClipDataset(data, FEATURES), schedule, workers))
    assert [batch.waveform.dtype for batch in batches] == 2 * [torch.int16] + 4 * [torch.float32]
    for batch in batches:
        assert_as_decoded(batch, recordings)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_replaces_a_clip_decides_whether_integers_are_handed_over(workers, recordings):
    recordings.clips[0].path.write_bytes(b"no audio")
    schedule = [[Draw(epoch, 0), Draw(epoch, 1)] for epoch in range(10)]
    kinds = set()
    for batch in load_batches(ClipDataset(recordings, FEATURES, replace=True), schedule, workers):
        assert batch.waveform.dtype == (torch.int16 if batch.clips[0] < 3 else torch.float32)
        assert_as_decoded(batch, recordings)
        kinds.add(batch.waveform.dtype)
    assert kinds == {torch.int16, torch.float32}
