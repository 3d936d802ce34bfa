"""Run decoding processes that have a deadline, are shielded from signals, and end with the program.

torch's DataLoader runs them, but reads their results without any time limit. So a separate thread reads, and the
program waits for the thread, with a deadline and open to signals.
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
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..errors import ConfigError, DataError, FlexiASTError, NotFetched
from ..runtime.interruption import Interrupted, never
from ..runtime.lifetime import end_with_parent, shield_children

if TYPE_CHECKING:
    from .manifest import Manifest
    from .shards import ShardMember

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps the batches that decoding processes pass on."""
MAX_WORKERS = 256
PREFETCHED = 2
"""Batches that each decoding process works ahead."""
_LOOK = 0.5
"""Seconds between checks for signals, dead workers and the deadline."""
_FILES_PER_WORKER = 6
"""Open files (pipes and sentinels) that each decoding process needs in the process that started it."""
_NO_MEMORY = ("Cannot allocate memory", "can't allocate memory", "MemoryError", "Unable to allocate")
"""How the system, torch and NumPy say that memory has run out."""


class WorkerError(FlexiASTError):
    """A decoding process has died or takes too long."""


_FAILURES = (WorkerError, NotFetched, RuntimeError, EOFError, OSError)
"""What `loaded` raises if something is wrong with a worker; all but the first two are the DataLoader's own."""


def start_worker(_worker: int) -> None:
    """Set up a decoding process: one thread, and an end when the program ends."""
    torch.set_num_threads(1)
    end_with_parent()


def as_is(item: Any) -> Any:
    """The item unchanged, as a collate function."""
    return item


def loaded(loader: DataLoader, timeout: float = 0, stopped: Callable[[], bool] = never) -> Generator[Any, None, None]:
    """The loader's items; its worker_init_fn must be `start_worker`. Close the iterator to end the workers.

    Raises WorkerError if a worker dies or takes more than `timeout` seconds (0: no limit), Interrupted if `stopped`
    becomes true while waiting, and whatever the data set raises in a worker.
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
    """Starts the workers, and receives their items."""

    def __init__(self, loader: DataLoader) -> None:
        super().__init__(name="flexiast-batches", daemon=True)
        self.loader = loader
        self.workers: list[Any] = []
        self.ready = threading.Event()
        """Set once the workers have been started. Until then the program waits, so that it is idle when it forks."""
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
        """The next item and False, or None and True at the end."""
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
        """Kill the workers: they have nothing to save. The thread ends when it notices."""
        self.closed.set()
        for worker in self.workers:
            worker.kill()
        self.join(timeout=0.5)  # no longer: it may take 5 s to notice, or hang on half a message


def _death(pid: int, code: int) -> str:
    if code >= 0:
        return f"process {pid} exited unexpectedly with code {code}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
    hint = {"SIGBUS": f": no room left in {SHARED_MEMORY}", "SIGKILL": ", as if memory had run out"}.get(name, "")
    return f"process {pid} was killed by signal {name}{hint}"


def items(dataset: Source, workers: int, timeout: float = 0, name: str = "data.workers") -> Generator[Any, None, None]:
    """A dataset's items in order, from `workers` processes (0: this one); see `watched`.

    Raises ConfigError if too few open files are allowed for the workers.
    """
    workers = min(workers, MAX_WORKERS)
    require_room(workers, name=name)
    loader: DataLoader = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        collate_fn=as_is,
        worker_init_fn=start_worker,
    )
    yield from watched(loader, timeout, name=name)


def watched(
    loader: DataLoader, timeout: float, stopped: Callable[[], bool] = never, name: str = "data.workers"
) -> Generator[Any, None, None]:
    """As `loaded`, for a loader whose dataset is a `Source`; close the iterator likewise.

    name: of the setting with the number of workers. Raises DataError, naming the files at hand, if a worker dies,
    fails, or takes more than `timeout` seconds (0: no limit).
    """
    try:
        with closing(loaded(loader, timeout, stopped)) as handed:
            yield from handed
    except _FAILURES as error:
        raise _failure(loader.dataset, error, name) from error  # type: ignore[arg-type]


class Source(Protocol):
    """The parts of a data set that tell what its workers are at."""

    current: Tensor
    """(MAX_WORKERS,) the clip each worker is on, -1 before the first; see `at_nothing`."""

    @property
    def source(self) -> object:
        """Where the clips are listed."""

    def path(self, clip: int) -> object:
        """What a clip is read from."""


class OfManifest(Dataset):
    """The clips of a manifest, as a `Source`."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.current = at_nothing()

    @property
    def source(self) -> Path:
        """Where the clips are listed."""
        return self.manifest.source

    def path(self, clip: int) -> Path | ShardMember:
        """What a clip is read from."""
        return self.manifest.clips[clip].path


def at_nothing() -> Tensor:
    """`Source.current` before the first clip, in shared memory, so that it is known if a worker dies or hangs."""
    return torch.full((MAX_WORKERS,), -1).share_memory_()


def note(current: Tensor, clip: int) -> None:
    """Put down in `Source.current` that this process is on a clip."""
    worker = get_worker_info()
    current[worker.id if worker else 0] = clip


def _failure(dataset: Source, error: Exception, name: str) -> DataError:
    """The error of a decoding process in one line, with what to do about it, or else the files at hand."""
    lines = (str(error) or type(error).__name__).splitlines()
    # For an error in a worker, the DataLoader gives its traceback; the last line says what happened.
    reason = (lines[-1] if "Traceback" in str(error) else lines[0]).rstrip(". ")
    if isinstance(error, NotFetched):
        return DataError(reason.rpartition(f"{NotFetched.__name__}: ")[2])
    at_work = [str(dataset.path(int(clip))) for clip in dataset.current if clip >= 0]
    where = remedy(error, name) or f" while on {', '.join(at_work)}"
    return DataError(f"{dataset.source}: a decoding process failed ({reason}){where}")


# What workers need ----------------------------------------------------------------------------------------------


def remedy(error: BaseException | str, name: str = "data.workers") -> str:
    """Advice about an error because shared memory, memory or open files have run out; empty for any other error.

    name: of the setting with the number of decoding processes.
    """
    text = str(error)
    number = getattr(error, "errno", None)
    if number == errno.EMFILE or "Too many open files" in text:
        return f"; allow more open files (`ulimit -n 4096`), or take fewer {name}"
    if str(SHARED_MEMORY) in text or "shared memory" in text or "No space left" in text:
        return (
            f"; {SHARED_MEMORY} is too small: give the container a larger one (`docker run --shm-size 8g`), or decode"
            f" in the program's own process ({name} 0)"
        )
    if number == errno.ENOMEM or isinstance(error, MemoryError) or any(told in text for told in _NO_MEMORY):
        return f"; memory has run out: fewer {name} or smaller batches"
    return ""


def require_room(workers: int, batch_bytes: int = 0, name: str = "data.workers") -> None:
    """Raise ConfigError if there is too little shared memory, or too few open files are allowed, for the workers.

    batch_bytes: least size of a batch; 0 for items that need no shared memory. A batch may be twice as large; if that
    may not fit, a warning is logged. name: of the setting with their number.
    """
    if not workers:
        return
    batches = workers * PREFETCHED + 3  # and those on their way to the model
    _require_shared_memory(workers, batches * batch_bytes, name)
    _require_open_files(workers, batches, name)


def _require_shared_memory(workers: int, needed: int, name: str) -> None:
    if not SHARED_MEMORY.is_dir() or not hasattr(os, "statvfs"):
        return
    stats = os.statvfs(SHARED_MEMORY)
    free = stats.f_bavail * stats.f_frsize
    needed *= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    line = (
        f"{name}: found {free / 1e6:.0f} MB free in {SHARED_MEMORY} for {workers} decoding processes, expected"
        f" at least {needed / 1e6:.0f} MB{remedy(str(SHARED_MEMORY), name)}; smaller batches need less too"
    )
    if free < needed:
        raise ConfigError(line)
    if free < 2 * needed:
        logger.warning("%s (twice that unless all clips are 16-bit PCM at the model's rate)", line)


def _require_open_files(workers: int, batches: int, name: str) -> None:
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))
    except (ImportError, OSError):
        return
    needed = used + workers * _FILES_PER_WORKER + 2 * batches + 32
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise ConfigError(
            f"{name}: found a limit of {limit} open files for {workers} decoding processes, expected at least"
            f" {needed}; allow more (`ulimit -n {max(4096, needed)}`), or take fewer {name}"
        )
