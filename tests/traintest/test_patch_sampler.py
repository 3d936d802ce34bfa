"""The patch size of each step: repeatable, as frequent as asked."""

from collections import Counter

import numpy as np
import pytest

from flexiast.errors import ConfigError
from flexiast.models.geometry import PatchSize
from flexiast.traintest.patch_draws import DRAWS
from flexiast.traintest.patch_sampler import PatchSampler

SIZES = tuple(PatchSize(s, s) for s in (8, 16, 32))


def test_any_step_is_known_without_those_before_it():
    one, other = PatchSampler(SIZES, seed=3), PatchSampler(SIZES, seed=3)
    assert [one[step] for step in range(50)] == [other[step] for step in reversed(range(50))][::-1]


def test_seeds_differ():
    one, other = PatchSampler(SIZES, seed=3), PatchSampler(SIZES, seed=4)
    assert [one[step] for step in range(50)] != [other[step] for step in range(50)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "shares"),
    [((), (1 / 3, 1 / 3, 1 / 3)), ((1, 2, 7), (0.1, 0.2, 0.7)), ((30, 30, 60), (0.25, 0.25, 0.5))],
)
def test_sizes_are_as_frequent_as_asked(weights, shares):
    draws = 20_000
    sampler = PatchSampler(SIZES, weights)
    counts = Counter(size for step in range(draws) for size in sampler[step])
    for size, share in zip(SIZES, shares, strict=True):
        assert counts[size] / draws == pytest.approx(share, abs=3 * np.sqrt(share * (1 - share) / draws))


@pytest.mark.parametrize("name", sorted(DRAWS))
@pytest.mark.parametrize("step", [0, 500])
def test_squares_have_their_share_and_each_half_is_drawn_by_the_rule(name: str, step: int) -> None:
    sizes = [PatchSize(freq, time) for freq in (8, 16, 48) for time in (8, 16, 48)]
    costs = [1e9 / (size.freq * size.time) for size in sizes]
    plain = PatchSampler(sizes, draw=DRAWS[name], costs=costs, steps=1000).shares(step)
    shares = PatchSampler(sizes, draw=DRAWS[name], costs=costs, steps=1000, square_share=0.5).shares(step)
    square = np.array([size.freq == size.time for size in sizes])
    for half in (square, ~square):
        np.testing.assert_allclose(shares[half], plain[half] / plain[half].sum() / 2)


def test_a_share_of_squares_changes_nothing_where_all_are_squares() -> None:
    np.testing.assert_array_equal(PatchSampler(SIZES, square_share=0.5).shares(0), PatchSampler(SIZES).shares(0))


def test_one_size_is_always_drawn():
    assert {PatchSampler(SIZES[:1])[step] for step in range(20)} == {SIZES[:1]}


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


COSTS = (230.0, 49.0, 14.0)
"""About what the sizes cost a micro model, in MFLOPs."""


def drawn(name: str, steps: int = 1000) -> PatchSampler:
    return PatchSampler(SIZES, draw=DRAWS[name], costs=COSTS, steps=steps)


def test_equal_cost_spends_the_same_on_every_size():
    spent = drawn("equal-cost").shares(0) * COSTS
    np.testing.assert_allclose(spent, spent[0])


def test_uniform_and_coarse_stay_as_they_are_through_the_run():
    np.testing.assert_allclose(drawn("uniform").shares(500), [1 / 3] * 3)
    coarse = drawn("coarse")
    np.testing.assert_allclose(coarse.shares(0), coarse.shares(999))
    np.testing.assert_allclose(coarse.shares(0) / coarse.shares(0)[0], [1, 2**1.6, 4**1.6])


def test_coarse_to_fine_costs_more_and_more():
    sampler = drawn("coarse-to-fine")
    costs = [sampler.shares(step) @ COSTS for step in range(0, 1000, 50)]
    assert costs == sorted(costs)
    assert sampler.shares(0).argmax() == 2
    assert sampler.shares(999).argmax() == 0
    np.testing.assert_array_equal(sampler.shares(5000), sampler.shares(1000))  # a run that goes on past its end


def test_mean_cost_is_that_of_the_sizes_drawn():
    sampler = drawn("coarse-to-fine", steps=20_000)
    costs = [COSTS[SIZES.index(size)] for step in range(sampler.steps) for size in sampler[step]]
    error = np.std(costs) / np.sqrt(len(costs))
    assert sampler.mean_cost() == pytest.approx(np.mean(costs), abs=3 * error)


@pytest.mark.parametrize("weights", [(), (1, 1, 50)])
def test_parts_have_different_sizes(weights):
    sampler = PatchSampler(SIZES, weights, parts=2)
    assert all(len(set(sampler[step])) == 2 for step in range(100))
    assert len({sampler[step] for step in range(100)}) > 2


@pytest.mark.parametrize("parts", [0, 4])
def test_wrong_parts_are_refused(parts):
    with pytest.raises(ConfigError, match=r"patches\.parts"):
        PatchSampler(SIZES, parts=parts)
