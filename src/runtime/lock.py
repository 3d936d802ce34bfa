"""A lock on a directory, so that only one process at a time works there."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

NAME = ".lock"
_PATIENCE = 5.0
"""Seconds to wait for the children of a killed process to end."""
_held: set[int] = set()
"""File descriptors of this process's locks; a forked child must not keep them."""


@contextmanager
def locked(directory: Path, wait: bool = False, silent: bool = False) -> Iterator[None]:
    """Hold the lock of a directory, which is created if needed.

    wait: until it is free. silent: say nothing of waiting. The system releases the lock when its process ends, so a
    killed process leaves none behind. Raises ConfigError, naming the process, if another one holds it and there is no
    waiting. If the file system has no locks, a warning is logged instead.
    """
    descriptor, has_locks = _take(directory, wait, silent)
    try:
        if has_locks:
            if previous := _read(descriptor):
                logger.info("%s: taking over from %s, which has ended", directory, _describe(previous))
            _write(descriptor, {"host": socket.gethostname(), "pid": os.getpid(), "since": _now()})
        _held.add(descriptor)
        yield
    finally:
        _held.discard(descriptor)
        _drop(descriptor, directory)


def require_unlocked(directory: Path) -> None:
    """Raise ConfigError, naming the process, if another one is working in the directory."""
    if (directory / NAME).exists():
        descriptor, _ = _take(directory)
        os.close(descriptor)


def _open(directory: Path) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return os.open(directory / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ConfigError(f"out: {directory} is not writable ({error.strerror})") from None


def _take(directory: Path, wait: bool = False, silent: bool = False) -> tuple[int, bool]:
    """Open and lock the lock file; returns its descriptor, and False if the file system has no locks."""
    deadline = math.inf if wait else time.monotonic() + _PATIENCE
    while True:
        descriptor = _open(directory)
        try:
            if _lock(descriptor, directory, deadline, silent):
                if _is_in_place(descriptor, directory):
                    return descriptor, True
                os.close(descriptor)  # its last holder has just removed it
            else:
                return descriptor, False
        except ConfigError:
            os.close(descriptor)
            raise


def _lock(descriptor: int, directory: Path, deadline: float, silent: bool) -> bool:
    """Lock an open file, waiting for the children of a killed process; False if the file system has no locks.

    deadline: when to give up; infinite to wait for a living process too.
    """
    told = silent
    while fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            holder = _read(descriptor)
            if deadline < math.inf and (_is_alive(holder) or time.monotonic() > deadline):
                raise ConfigError(
                    f"out: {directory} is in use by {_describe(holder)}; wait until it is done, stop it, or choose"
                    " another folder"
                ) from None
            if deadline == math.inf and not told:
                logger.info("%s: waiting for %s, which works there", directory, _describe(holder))
                told = True
            time.sleep(0.1)
        except OSError as error:
            logger.warning(
                "%s: this file system has no locks (%s): make sure that no other process works there",
                directory,
                error.strerror,
            )
            break
    return False


def _is_in_place(descriptor: int, directory: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(directory / NAME))
    except OSError:
        return False


def _drop(descriptor: int, directory: Path) -> None:
    """Remove the lock file, if it is still ours, and release the lock."""
    with contextlib.suppress(OSError):
        if fcntl is not None and _is_in_place(descriptor, directory):
            os.unlink(directory / NAME)
    os.close(descriptor)


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether the process may still be running; one on another machine counts as running."""
    if not holder or holder.get("host") != socket.gethostname():
        return bool(holder)
    try:
        os.kill(int(holder["pid"]), 0)
    except (KeyError, TypeError, ValueError, OverflowError, ProcessLookupError):
        return False
    except OSError:  # another user's process
        return True
    return True


def _describe(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"


def _read(descriptor: int) -> dict[str, Any]:
    try:
        content = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(descriptor: int, holder: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # on a full disk the lock still holds, only without its text
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z")


def _close_in_child() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
