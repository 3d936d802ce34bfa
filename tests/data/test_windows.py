"""Recordings read to their end as windows: which windows there are, in what batches, by any number of workers."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flexiast.data.audio import as_float, decode, decode_pieces
from flexiast.data.dataset import LEAST_NEW
from flexiast.data.windows import WindowDataset, clip_groups, excerpts, load_windows
from flexiast.errors import ConfigError, DataError
from flexiast.features import FeatureConfig

FEATURES = FeatureConfig(frames=20)  # 3440 samples, one every 160
LENGTHS = (2000, 10_000, 3440, 30_000, 500, 7000)


def dataset(folder: Path, batch_size: int = 4, subtype: str = "PCM_16", hop: float | None = None) -> WindowDataset:
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.wav" for i in range(len(LENGTHS))]
    for path, length in zip(paths, LENGTHS, strict=True):
        soundfile.write(path, rng.uniform(-0.5, 0.5, length), 16_000, subtype=subtype)
    return WindowDataset(paths, partial(decode_pieces, integer=True), FEATURES, batch_size, hop)


def by_clip(batches) -> dict[int, list[torch.Tensor]]:
    windows: dict[int, list[torch.Tensor]] = {}
    for batch in batches:
        for row, length, clip in zip(batch.waveform, batch.lengths, batch.clips, strict=True):
            assert not row[length:].any()
            windows.setdefault(clip, []).append(as_float(row[:length]))
    return windows


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(("subtype", "dtype"), [("PCM_16", torch.int16), ("FLOAT", torch.float32)])
def test_every_window_of_every_clip_comes_once_and_in_order(workers, subtype, dtype, tmp_path) -> None:
    data = dataset(tmp_path, subtype=subtype)
    batches = list(load_windows(data, workers))
    assert {batch.waveform.dtype for batch in batches} == {dtype}
    assert all(0 < len(batch.clips) <= 4 for batch in batches)
    windows = by_clip(batches)
    for clip, path in enumerate(data.sources):
        whole = decode(path)
        starts = [s for s in range(0, len(whole), 3200) if s == 0 or len(whole) - s >= 400 + 160]
        assert len(windows[clip]) == len(starts)
        for start, window in zip(starts, windows[clip], strict=True):
            assert torch.equal(window, whole[start : start + 3440])
    ended = sorted(one for batch in batches for one in batch.ended)
    assert [(clip, count) for clip, count, _ in ended] == [(clip, len(windows[clip])) for clip in range(6)]
    assert [frames for _, _, frames in ended] == [(len(windows[c][-1]) - 400) // 160 + 1 for c in range(6)]


def test_short_clips_come_in_the_batches_that_were_asked_for(tmp_path) -> None:
    data = dataset(tmp_path)
    data.sources = [data.sources[place] for place in (0, 2, 4, 0, 2)]
    data.groups = clip_groups(5, 2)
    assert [batch.clips for batch in load_windows(data, 0)] == [[0, 1], [2, 3], [4]]
    assert [[one.clip for one in batch.ended] for batch in load_windows(data, 0)] == [[0, 1], [2, 3], [4]]


def test_batches_do_not_depend_on_the_workers(tmp_path) -> None:
    data = dataset(tmp_path, batch_size=3)
    alone, shared = ({(tuple(b.clips), tuple(b.times)) for b in load_windows(data, workers)} for workers in (0, 2))
    assert alone == shared


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_clip_is_named_and_the_rest_goes_on(workers, tmp_path) -> None:
    data = dataset(tmp_path)
    data.sources[1].write_bytes(b"no audio")
    soundfile.write(data.sources[2], np.zeros(399), 16_000)
    batches = list(load_windows(data, workers))
    failures = sorted(failure for batch in batches for failure in batch.failures)
    assert [failure.clip for failure in failures] == [1, 2]
    assert failures[0].reason.startswith(f"{data.sources[1]}: not readable as audio")
    assert failures[1].reason == f"{data.sources[2]}: found 399 samples, expected at least one 25 ms window, 400"
    assert sorted(one.clip for batch in batches for one in batch.ended) == [0, 3, 4, 5]


def test_a_reading_process_that_dies_names_its_clip(tmp_path) -> None:
    import os

    data = dataset(tmp_path)
    read = data.read
    data.read = lambda path, **how: os._exit(3) if path == data.sources[3] else read(path, **how)
    with pytest.raises(DataError, match=r"audio: a decoding process failed \(.*\) while on .*3\.wav"):
        list(load_windows(data, 1))


def test_memory_does_not_grow_with_the_recording() -> None:
    """Ten minutes, given out second by second: what is held is one batch."""
    asked = []

    def pieces(_source, suspicions):
        for second in range(600):
            asked.append(second)
            yield torch.zeros(16_000)

    batches = load_windows(WindowDataset(["long"], pieces, FEATURES, 4), 0)
    first = next(batches)
    assert first.waveform.shape == (4, 3440)
    assert len(asked) <= 2
    assert sum(len(batch.clips) for batch in batches) + 4 == 600 * 16_000 // 3200


def test_a_hop_that_does_not_fit_is_refused_at_once(tmp_path) -> None:
    for hop in (0, -1, 0.21, float("nan"), True, "1"):
        with pytest.raises(ConfigError, match="hop: found"):
            dataset(tmp_path, hop=hop)


def test_a_rest_of_less_than_a_tenth_is_left_out() -> None:
    window = FEATURES.samples
    for new in range(4):
        count = len(list(excerpts([torch.zeros(window + 160 * new + 10)], FEATURES)))
        assert count == (2 if new >= LEAST_NEW * FEATURES.frames else 1)
