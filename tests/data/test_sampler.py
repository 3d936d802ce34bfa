"""The order of training clips: every clip once per epoch, and nothing but (seed, step) decides."""

from collections import Counter
from itertools import chain
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexiast.data.arrays import Lists
from flexiast.data.sampler import BatchSchedule, StreamSchedule, balancing_weights
from flexiast.errors import ConfigError


@settings(max_examples=30, deadline=None)
@given(clips=st.integers(1, 30), batch_size=st.integers(1, 40), seed=st.integers(0, 2**40))
def test_every_clip_comes_once_per_epoch(clips, batch_size, seed):
    draws = list(chain(*BatchSchedule(clips, batch_size, seed).batches(0, 3 * clips)))
    complete = [draw for draw in draws if draw.epoch < len(draws) // clips]
    assert len(draws) == 3 * clips * batch_size
    assert set(Counter(complete).values()) == {1}
    assert [draw.epoch for draw in draws] == [k // clips for k in range(len(draws))]
    assert {draw.clip for draw in draws} == set(range(clips))


def test_any_step_is_known_without_those_before_it():
    steps = list(range(40))
    in_order = list(BatchSchedule(13, 4, seed=5).batches(0, 40))
    backwards = BatchSchedule(13, 4, seed=5)
    assert [backwards[step] for step in reversed(steps)] == in_order[::-1]
    assert list(BatchSchedule(13, 4, seed=5).batches(17, 40)) == in_order[17:]


def test_epochs_and_seeds_have_their_own_order():
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(draw.clip for draw in BatchSchedule(50, 50, seed)[epoch])

    orders = {order(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert tuple(range(50)) not in orders


@pytest.mark.parametrize(
    ("epochs", "steps"), [(1, 4), (2, 7), (3, 10), (0.5, 2), (0.1, 1), (10, 34)]
)  # 10 clips in batches of 3: ceil(10 * epochs / 3)
def test_steps_complete_the_last_batch(epochs, steps):
    assert BatchSchedule(10, 3, seed=0).steps(epochs) == steps


@pytest.mark.parametrize(("clips", "batch_size"), [(0, 4), (4, 0), (4, -1)])
def test_empty_batches_are_refused(clips, batch_size):
    with pytest.raises(ConfigError, match=f"{clips} clips in batches of {batch_size}"):
        BatchSchedule(clips, batch_size, seed=0)


def test_clips_without_a_class_are_balanced_as_one_class_more():
    assert balancing_weights(Lists.of([(0,), (0, 1), (), ()])).tolist() == [0.5, 1.5, 0.5, 0.5]


# Streams ---------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.integers(1, 12), min_size=1, max_size=30),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**40),
    mixed=st.integers(1, 6),
)
def test_a_stream_has_every_clip_once_and_few_pieces_at_a_time(rows, batch_size, seed, mixed):
    pieces = np.repeat(np.arange(len(rows)) * 7, rows)
    with mock.patch.multiple("flexiast.data.sampler", MOST_MIXED=0, LEAST_MIXED=mixed):
        schedule = StreamSchedule(pieces, batch_size, seed)
        again = StreamSchedule(pieces, batch_size, seed)
    order = [draw.clip for step in range(schedule.steps(1)) for draw in schedule[step] if draw.epoch == 0]
    assert sorted(order) == list(range(len(pieces)))
    assert [again[step] for step in (2, 0)] == [schedule[2], schedule[0]]
    at = {piece: [place for place, clip in enumerate(order) if pieces[clip] == piece] for piece in set(pieces.tolist())}
    open_at_once = [sum(min(own) <= place <= max(own) for own in at.values()) for place in range(len(order))]
    assert max(open_at_once) <= mixed + 1


def test_a_stream_mixes_some_thousands_of_clips_and_each_epoch_anew():
    pieces = np.repeat(np.arange(200), 100)
    schedule = StreamSchedule(pieces, 20_000, seed=0)
    assert schedule.mixed == 41  # of 100 clips each
    assert StreamSchedule(np.repeat(np.arange(200), 5000), 1, seed=0).mixed == 8
    first, second = ([draw.clip for draw in schedule[epoch]] for epoch in range(2))
    assert first != second
    middle = pieces[first[10_000:10_100]]
    assert len(set(middle.tolist())) > 30
    assert set(middle.tolist()).isdisjoint(pieces[first[:1000]].tolist())
