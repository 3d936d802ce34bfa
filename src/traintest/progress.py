"""How far a run has come."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass
class Progress:
    """How far a run has come: everything saved besides weights, optimizers and random states."""

    step: int = 0
    best: float = float("-inf")
    """Best score of a validation so far."""
    losses: list[float] = dataclasses.field(default_factory=list)
    """Of the steps since the last line of the log."""
    epoch_losses: list[float] = dataclasses.field(default_factory=list)
    """Of the steps since the last validation."""
    since_best: int = 0
    """Validations since the best one."""
    ended: bool = False
    """Whether the run ended before its last step, see `TrainConfig.patience`."""
    skipped: int = 0
    skipped_in_a_row: int = 0
    validating: bool = False
    """Whether this step still has to be validated; the weight average already includes it."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up the fields of a state; older ones lack some. Raises ValueError for one that no run has saved."""
        for field in dataclasses.fields(self):
            value = saved.get(field.name, getattr(self, field.name))
            kind = type(getattr(self, field.name))
            if type(value) is not kind or not _is_possible(value):
                expected = {int: "a whole number of at least 0", float: "a number", list: "numbers"}
                found = f"{type(value).__name__} {str(value)[:40]}"
                raise ValueError(f"{field.name}: found {found}, expected {expected.get(kind, 'True or False')}")
            setattr(self, field.name, value)


def _is_possible(value: Any) -> bool:
    if isinstance(value, list):
        return all(type(item) is float for item in value)
    return value >= 0 if isinstance(value, int) else not math.isnan(value)
