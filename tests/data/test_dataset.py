"""Batches of clips: padding, targets, order, and errors that come through worker processes whole."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flexiast.data.dataset import ClipDataset, load_batches, sequential_batches
from flexiast.data.manifest import Clip, Labels, Manifest
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
