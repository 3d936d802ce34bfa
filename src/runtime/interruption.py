"""Stop a run from outside: the step is finished and the state saved, and the same command resumes from there."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import FlexiASTError

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""SIGINT is Ctrl-C. SIGTERM comes from schedulers, torchrun and `kill`. Slurm can be configured to send SIGUSR1 before
the time limit; Windows does not have it."""

LAUNCHER_GRACE = 3.0
"""Seconds within which torchrun passes on a signal that its processes may already have received directly."""


class Interrupted(FlexiASTError):
    """The run was asked to stop; its state is saved."""


class Stopping:
    """Whether a stop has been requested: true from the first signal on."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.since = 0.0

    def __bool__(self) -> bool:
        return self.signal is not None

    def for_seconds(self, seconds: float) -> bool:
        """Whether the stop was requested at least this many seconds ago."""
        return bool(self) and time.monotonic() - self.since >= seconds

    def note(self, number: int) -> None:
        """Record the first signal."""
        self.since = time.monotonic()
        self.signal = number


def never() -> bool:
    """No stop is ever requested."""
    return False


@contextmanager
def noted_signals(grace: float = 0.0) -> Iterator[Stopping]:
    """While inside, only record SIGNALS, so that the run can stop between steps; a second signal ends it at once.

    grace: seconds within which further signals count as the first one, for processes that receive it both from the
    terminal or scheduler and from their launcher. Outside the main thread, where Python has no signal handlers,
    nothing is recorded.
    """
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def note(number: int, frame: object) -> None:
        if not stopping:
            stopping.note(number)
        elif stopping.for_seconds(grace):
            signal.signal(number, previous[number])
            signal.raise_signal(number)

    previous: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    for number in previous:
        signal.signal(number, note)
    try:
        yield stopping
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
