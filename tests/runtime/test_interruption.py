"""Signals are noted, not obeyed; elsewhere than in the main thread they are left alone."""

import importlib
import os
import signal
import threading
import time

from flexiast.runtime import interruption
from flexiast.runtime.interruption import noted_signals


def test_the_first_signal_is_noted_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with noted_signals(grace=60) as stopping:
        assert not stopping
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # counted as the first
        assert stopping
        assert stopping.signal == signal.SIGTERM
        assert not stopping.for_seconds(30)
        time.sleep(0.01)
        assert stopping.for_seconds(0.01)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_notes_nothing_and_changes_nothing() -> None:
    handlers = []

    def work() -> None:
        with noted_signals() as stopping:
            handlers.append((bool(stopping), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [(False, before)]


def test_a_system_without_sigusr1_can_import_it(monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.delattr(signal, "SIGUSR1")
        assert len(importlib.reload(interruption).SIGNALS) == 2
    importlib.reload(interruption)
    assert signal.SIGUSR1 in interruption.SIGNALS
