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
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_unusable_clip_raises_its_own_error(workers, dataset):
    path = dataset.manifest.clips[3].path
    path.write_bytes(b"no audio")
    with pytest.raises(DataError) as error:
        list(load_batches(dataset, sequential_batches(5, 2), workers))
    assert str(error.value).startswith(f"{path}: not readable as audio")
    assert "Traceback" not in str(error.value)


def test_clip_shorter_than_a_window_is_refused(dataset):
    path = dataset.manifest.clips[0].path
    soundfile.write(path, np.zeros(399), 16_000)
    with pytest.raises(DataError, match=f"{path}: found 399 samples"):
        dataset.waveform(0)
