"""Make processes end together with the one that started them, however that one ends."""

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
"""How long a rank whose launcher is gone may take to finish its step and save."""


def shield_children() -> None:
    """Block SIGNALS in this thread and in the processes that it will start, which inherit the mask.

    A program that is asked to stop finishes its step first, and needs its workers until then. Does nothing on Windows.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def end_with_parent() -> None:
    """Make sure that this process, started by multiprocessing, is killed when the thread that started it ends."""
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
    """Stop this process when the one that started it is gone: SIGTERM first, so that it can save, then an exit."""
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(0.5)
        logger.warning("the launcher (process %d) is gone: this process stops", launcher)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(last_seconds)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="flexiast-launcher", daemon=True).start()
