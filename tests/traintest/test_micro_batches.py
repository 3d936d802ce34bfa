"""Micro-batches: every clip once, in order, within the limits, and no more parts than needed."""

from itertools import pairwise

import numpy as np
import pytest

from flexiast import FlexiASTConfig, PatchSize
from flexiast.traintest.micro_batches import cut, token_counts


@pytest.mark.parametrize("seed", range(20))
def test_parts_are_complete_within_the_limits_and_as_large_as_allowed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 100, size=rng.integers(1, 40)).tolist()
    most, budget = int(rng.integers(1, 12)), int(rng.integers(0, 300))
    parts = list(cut(tokens, most, budget))
    assert [clip for part in parts for clip in range(len(tokens))[part]] == list(range(len(tokens)))
    for part in parts:
        held = tokens[part]
        assert 1 <= len(held) <= most
        assert not budget or sum(held) <= budget or len(held) == 1
    for part, following in pairwise(parts):  # the next clip would not have fitted
        more = [*tokens[part], tokens[following.start]]
        assert len(more) > most or (budget and sum(more) > budget)


def test_an_empty_batch_has_no_part() -> None:
    assert list(cut([], 3, 10)) == []


def test_tokens_follow_the_length_and_are_at_least_one_column() -> None:
    config = FlexiASTConfig(2, frames=96, bins=32, width=16, heads=2, prefix_tokens=2)
    assert token_counts(config, PatchSize(8, 16), [96, 48, 40, 5, 96]) == [4 * n + 2 for n in (6, 3, 3, 1, 6)]
