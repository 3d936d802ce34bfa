"""How far a run has come."""

from __future__ import annotations

import dataclasses


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
