"""Stopping a run from outside: the step is finished, the state saved, and the same command goes on from there."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import FlexiASTError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; what schedulers, torchrun and `kill` send; what Slurm's `--signal=USR1@120` sends before the time is up."""


class Interrupted(FlexiASTError):
    """The run was asked to stop; its state is saved."""


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """While inside, note SIGNALS in the list, to be acted on between steps; a second one ends at once."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        for other, handler in previous.items():
            signal.signal(other, handler)

    previous = {number: signal.getsignal(number) for number in SIGNALS}
    for number in previous:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
