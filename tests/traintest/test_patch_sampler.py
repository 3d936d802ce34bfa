"""The patch size of each step: repeatable, as frequent as asked."""

from collections import Counter

import numpy as np
import pytest

from flexiast.errors import ConfigError
from flexiast.models.geometry import PatchSize
from flexiast.traintest.patch_sampler import PatchSampler

SIZES = tuple(PatchSize(s, s) for s in (8, 16, 32))


def test_any_step_is_known_without_those_before_it():
    one, other = PatchSampler(SIZES, seed=3), PatchSampler(SIZES, seed=3)
    assert [one[step] for step in range(50)] == [other[step] for step in reversed(range(50))][::-1]


def test_seeds_differ():
    one, other = PatchSampler(SIZES, seed=3), PatchSampler(SIZES, seed=4)
    assert [one[step] for step in range(50)] != [other[step] for step in range(50)]


@pytest.mark.parametrize(
    ("weights", "shares"),
    [((), (1 / 3, 1 / 3, 1 / 3)), ((1, 2, 7), (0.1, 0.2, 0.7)), ((30, 30, 60), (0.25, 0.25, 0.5))],
)
def test_sizes_are_as_frequent_as_asked(weights, shares):
    draws = 20_000
    sampler = PatchSampler(SIZES, weights)
    counts = Counter(sampler[step] for step in range(draws))
    for size, share in zip(SIZES, shares, strict=True):
        assert counts[size] / draws == pytest.approx(share, abs=3 * np.sqrt(share * (1 - share) / draws))


def test_one_size_is_always_drawn():
    assert {PatchSampler(SIZES[:1])[step] for step in range(20)} == {SIZES[0]}


@pytest.mark.parametrize("sizes", [(), (SIZES[0], SIZES[0])], ids=["none", "twice"])
def test_wrong_sizes_are_refused(sizes):
    with pytest.raises(ConfigError, match=r"patches\.sizes"):
        PatchSampler(sizes)


@pytest.mark.parametrize(
    "weights", [(1, 2), (1, 0, 1), (1, -1, 1), (1, 1, 1, 1), (1, float("nan"), 1), (1, float("inf"), 1)]
)
def test_wrong_weights_are_refused(weights):
    with pytest.raises(ConfigError, match=r"patches\.weights"):
        PatchSampler(SIZES, weights)
