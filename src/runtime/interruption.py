"""Stopping a run from outside: the step is finished, the state saved, and the same command goes on from there."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import FlexiASTError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; what schedulers, torchrun and `kill` send; what Slurm can be told to send before the time is up."""

LAUNCHER_GRACE = 3.0
"""Seconds in which torchrun passes on a signal that its processes have also got themselves."""


class Interrupted(FlexiASTError):
    """The run was asked to stop; its state is saved."""


@contextmanager
def noted_signals(grace: float = 0.0) -> Iterator[list[int]]:
    """While inside, note SIGNALS in the list, to be acted on between steps; a second one ends at once.

    grace: seconds within which more signals count as the first, for processes that get it both from the terminal or
    scheduler and from their launcher.
    """
    received: list[int] = []
    first = 0.0

    def note(number: int, frame: object) -> None:
        nonlocal first
        now = time.monotonic()
        if not received:
            first = now
            received.append(number)
        elif now - first >= grace:
            signal.signal(number, previous[number])
            signal.raise_signal(number)

    previous: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    for number in previous:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
