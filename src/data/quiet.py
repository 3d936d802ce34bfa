"""Keep messages of C libraries from the terminal."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_BEGINNINGS = (b"[src/libmpg123", b"Warning: ", b"Note: ")
"""How the lines that libmpg123 writes begin."""
_lock = threading.Lock()
_saved: int | None = None
"""The real stderr, while file descriptor 2 is redirected."""


@contextmanager
def without_library_warnings() -> Iterator[None]:
    """Drop what libmpg123 writes to file descriptor 2 inside; anything else written there appears at the end.

    One thread at a time. A process forked inside gets its stderr back.
    """
    global _saved
    with _lock, tempfile.TemporaryFile() as held:
        try:
            _saved = os.dup(2)
        except OSError:  # closed: nothing can be written there
            yield
            return
        try:
            os.dup2(held.fileno(), 2)
            yield
        finally:
            os.dup2(_saved, 2)
            os.close(_saved)
            _saved = None
            if held.seek(0, os.SEEK_END):
                _write_others(held)


def _write_others(held: IO[bytes]) -> None:
    held.seek(0)
    for line in held:
        if line.strip() and not line.startswith(_BEGINNINGS):
            os.write(2, line)


def _in_child() -> None:
    global _lock, _saved
    _lock = threading.Lock()
    if _saved is not None:
        os.dup2(_saved, 2)
        _saved = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
