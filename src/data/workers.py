"""Decoding processes: waited for with a deadline, out of reach of signals, and ended with the program.

torch's DataLoader runs them. What they hand over is read from a socket without any time limit, so a thread of its own
does that, and the program waits for the thread: with a deadline, and seeing signals.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..errors import ConfigError, FlexiASTError
from ..runtime.interruption import Interrupted, never
from ..runtime.lifetime import end_with_parent, shield_children

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps what decoding processes hand over."""
PREFETCHED = 2
"""Batches that a decoding process works ahead."""
_LOOK = 0.5
"""Seconds between looks at signals, dead workers and the clock."""
_FILES_PER_WORKER = 6
"""Pipes and sentinels of a decoding process, in the process that started it."""


class WorkerError(FlexiASTError):
    """A decoding process has died, or taken too long."""


def start_worker(_worker: int) -> None:
    """What a decoding process does first: one thread each, and no life beyond the program's."""
    torch.set_num_threads(1)
    end_with_parent()


def as_is(item: Any) -> Any:
    """What the data set returned."""
    return item


def loaded(loader: DataLoader, timeout: float = 0, stopped: Callable[[], bool] = never) -> Generator[Any, None, None]:
    """What the loader yields; its worker_init_fn must be `start_worker`. Close the iterator to end the workers.

    Raises WorkerError if a worker dies or takes more than `timeout` seconds (0: no limit), Interrupted if `stopped`
    while there is nothing to yield; and what the data set raises in a worker.
    """
    if not loader.num_workers:
        yield from loader
        return
    fetcher = _Fetcher(loader)
    atexit.register(fetcher.close)  # before multiprocessing's own, which would wait for shielded workers
    try:
        fetcher.start()
        fetcher.ready.wait()
        while True:
            item, last = fetcher.take(timeout, stopped)
            if last:
                return
            yield item
    finally:
        atexit.unregister(fetcher.close)
        fetcher.close()


class _Fetcher(threading.Thread):
    """Starts the workers, and takes over what they hand over."""

    def __init__(self, loader: DataLoader) -> None:
        super().__init__(name="flexiast-batches", daemon=True)
        self.loader = loader
        self.workers: list[Any] = []
        self.ready = threading.Event()
        """The workers have been started: until then the program must not go on, so that they fork from a quiet one."""
        self.closed = threading.Event()
        self.items: queue.Queue[tuple[Any, BaseException | None, bool]] = queue.Queue(maxsize=1)

    def run(self) -> None:
        shield_children()
        error = None
        try:
            try:
                batches = iter(self.loader)
                self.workers = list(batches._workers)  # type: ignore[attr-defined]
            finally:
                self.ready.set()
            for item in batches:
                if not self._put(item, None, False):
                    return
        except BaseException as raised:  # for the program to raise
            error = raised
        self._put(None, error, True)

    def _put(self, *item: Any) -> bool:
        while not self.closed.is_set():
            try:
                self.items.put(item, timeout=_LOOK)  # type: ignore[arg-type]
                return True
            except queue.Full:
                continue
        return False

    def take(self, timeout: float, stopped: Callable[[], bool]) -> tuple[Any, bool]:
        """The next item, and whether it is only the mark of the end."""
        deadline = time.monotonic() + timeout if timeout else float("inf")
        while True:
            try:
                item, error, last = self.items.get(timeout=_LOOK)
            except queue.Empty:
                self._look(deadline, timeout, stopped)
                continue
            if error is not None:
                raise error
            return item, last

    def _look(self, deadline: float, timeout: float, stopped: Callable[[], bool]) -> None:
        if stopped():
            raise Interrupted("stopped while waiting for a decoding process")
        for worker in self.workers:
            if worker.exitcode:
                raise WorkerError(_death(worker.pid, worker.exitcode))
        if time.monotonic() > deadline:
            raise WorkerError(f"timed out after {timeout:g} seconds")

    def close(self) -> None:
        """End the workers, whatever they are doing: they have nothing to save. The thread follows when it notices."""
        self.closed.set()
        for worker in self.workers:
            worker.kill()
        self.join(timeout=0.5)  # no longer: the DataLoader looks every five seconds, and half a message is for ever


def _death(pid: int, code: int) -> str:
    if code >= 0:
        return f"process {pid} exited unexpectedly with code {code}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
    hint = {"SIGBUS": f": no room left in {SHARED_MEMORY}", "SIGKILL": ", as if memory had run out"}.get(name, "")
    return f"process {pid} was killed by signal {name}{hint}"


# What workers need ----------------------------------------------------------------------------------------------


def remedy(error: BaseException | str) -> str:
    """What to do about an error that shared memory or open files have run out; nothing for another one."""
    text = str(error)
    number = getattr(error, "errno", None)
    if number == errno.EMFILE or "Too many open files" in text:
        return "; allow more open files (`ulimit -n 4096`), or take fewer data.workers"
    if str(SHARED_MEMORY) in text or "shared memory" in text or "No space left" in text:
        return (
            f"; {SHARED_MEMORY} is too small: give the container a larger one (`docker run --shm-size 8g`), or decode"
            " in the training process (data.workers 0)"
        )
    return ""


def require_room(workers: int, batch_bytes: int) -> None:
    """Raise ConfigError if what the workers hand over cannot fit: shared memory, and open files.

    batch_bytes: least size of a batch; it may be twice that, of which a warning tells.
    """
    if not workers:
        return
    batches = workers * PREFETCHED + 3  # and those on their way to the model
    _require_shared_memory(workers, batches * batch_bytes)
    _require_open_files(workers, batches)


def _require_shared_memory(workers: int, needed: int) -> None:
    if not SHARED_MEMORY.is_dir() or not hasattr(os, "statvfs"):
        return
    there = os.statvfs(SHARED_MEMORY)
    free = there.f_bavail * there.f_frsize
    needed *= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    line = (
        f"data.workers: found {free / 1e6:.0f} MB free in {SHARED_MEMORY} for {workers} decoding processes, expected"
        f" at least {needed / 1e6:.0f} MB{remedy(str(SHARED_MEMORY))}; smaller batches need less too"
    )
    if free < needed:
        raise ConfigError(line)
    if free < 2 * needed:
        logger.warning("%s (twice that unless all clips are 16-bit PCM at the model's rate)", line)


def _require_open_files(workers: int, batches: int) -> None:
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))
    except (ImportError, OSError):
        return
    needed = used + workers * _FILES_PER_WORKER + 2 * batches + 32
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise ConfigError(
            f"data.workers: found a limit of {limit} open files for {workers} decoding processes, expected at least"
            f" {needed}; allow more (`ulimit -n {max(4096, needed)}`), or take fewer data.workers"
        )
