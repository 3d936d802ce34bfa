"""Scores of clips from those of their windows."""

import pytest
import torch

from flexiast.classifier.tally import Tally
from flexiast.errors import ConfigError


@pytest.mark.parametrize(("aggregate", "expected"), [("mean", [0.4, 0.6]), ("max", [0.7, 0.9])])
def test_windows_come_in_any_batches(aggregate: str, expected: list[float]) -> None:
    tally = Tally(aggregate)
    tally.add([3, 4, 3], torch.tensor([[0.1, 0.9], [0.5, 0.5], [0.7, 0.3]]))
    tally.add([3], torch.tensor([[0.4, 0.6]]))
    torch.testing.assert_close(tally.take(3), torch.tensor(expected))
    assert tally.take(4).tolist() == [0.5, 0.5]
    with pytest.raises(KeyError):
        tally.take(3)
    tally.add([5], torch.ones(1, 2))
    tally.drop(5)
    tally.drop(6)
    with pytest.raises(KeyError):
        tally.take(5)


def test_unknown_aggregate_is_refused() -> None:
    with pytest.raises(ConfigError, match="aggregate: found 'median'"):
        Tally("median")
