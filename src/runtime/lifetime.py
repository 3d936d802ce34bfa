"""Processes that end with the one that started them, however that one ends."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time

from .interruption import SIGNALS

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
LAST_SECONDS = 60.0
"""How long a rank whose launcher is gone has to finish its step and save."""


def shield_children() -> None:
    """Block SIGNALS in this thread: processes that it starts inherit that, so what stops the program leaves them be.

    A program that finishes its step needs its workers until then. On Windows there are no such signals.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def end_with_parent() -> None:
    """Have this process, started by multiprocessing, killed when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if not parent.is_alive():  # it ended before the call above
        os._exit(1)
    if sys.platform != "linux":

        def leave() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=leave, daemon=True).start()


def end_with_launcher(last_seconds: float = LAST_SECONDS) -> None:
    """Stop this process when the one that started it is gone: SIGTERM first, so that it saves, then the hard way."""
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(0.5)
        logger.warning("the launcher (process %d) is gone: this process stops", launcher)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(last_seconds)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="flexiast-launcher", daemon=True).start()
